"""Settings are replaced while requests are under way: each ends as it began, and nothing stays behind."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sidecar import config
from sidecar.edge.jwks import KeySets
from sidecar.generation import Generation
from tests.e2e.bed import JWT_ROUTE, Bed, assert_refused, config_text, credentials, merged, request, tool_call
from tests.e2e.conftest import Start
from tests.mcp_server import Stream, StubUpstream
from tests.service import until


async def changed(bed: Bed, **changes: Any) -> None:
    text = config_text(merged(bed.settings, changes))
    await bed.sidecar.reload(config.load(text, {}, lambda path: Path(path).read_bytes()))


def generations() -> int:
    gc.collect()
    return sum(isinstance(thing, Generation) for thing in gc.get_objects())


async def _are_left(count: int) -> bool:
    return generations() == count


async def test_the_next_request_goes_by_them(start: Start) -> None:
    bed = await start()
    token = bed.token("mcp:read")
    assert (await bed.post(tool_call("look"), token=token)).status_code == 200
    await changed(bed, access={"tools": {"read": [], "write": ["look"], "destructive": []}})
    assert_refused(await bed.post(tool_call("look"), token=token), 403, "INSUFFICIENT_SCOPE")
    await changed(bed, routes=[{"path": "/elsewhere", "credentials": ["jwt"]}])
    assert_refused(await bed.post(tool_call("look"), token=token), 404, "NOT_FOUND")
    await changed(bed, log={"level": "error"})
    lines = len(bed.records())
    await bed.post(tool_call("look"), token=token)
    assert len(bed.records()) == lines


async def test_limits_that_are_changed_count_what_was_spent_before(start: Start) -> None:
    bed = await start(limits={"policies": [{"name": "account", "per": "account", "requests": 3, "window_s": 3600}]})
    token = bed.token()
    for _ in range(2):
        assert (await bed.post(request("ping"), token=token)).status_code == 200
    await changed(bed, limits={"policies": [{"name": "account", "per": "account", "requests": 2, "window_s": 3600}]})
    assert_refused(await bed.post(request("ping"), token=token), 429, "RATE_LIMIT_EXCEEDED")


async def test_what_went_by_the_old_ones_is_gone_when_its_last_answer_has_ended(
    start: Start, stub: StubUpstream
) -> None:
    bed, listening = await start(), Stream()
    stub.answer = listening.answer
    before = generations()
    async with bed.client.stream("GET", JWT_ROUTE, headers=credentials(token=bed.token())) as stream:
        listening.send(b"data: 1\n\n")
        pieces = stream.aiter_raw()
        await anext(pieces)
        await changed(bed, max_body_bytes=1000)
        await changed(bed, max_body_bytes=2000)
        await until(partial(_are_left, before + 1))  # the first one has its stream, the second one had nothing to do
        listening.send(b"data: 2\n\n")
        assert await anext(pieces) == b"data: 2\n\n"
        listening.end()
        assert [piece async for piece in pieces] == []
    await until(partial(_are_left, before))


async def test_while_the_upstream_is_away_its_tools_stay_known(start: Start, stub: StubUpstream) -> None:
    bed = await start(access={"tools": {"read": [], "write": [], "destructive": []}})
    token = bed.token("mcp:read")
    answer = await bed.post_when_catalogued(tool_call("look"), token=token)
    asked = len(stub.from_catalogue)
    await changed(bed, access={"tools": {"read": [], "write": [], "destructive": ["drop"]}})
    assert (await bed.post(tool_call("look"), token=token)).status_code == answer.status_code
    assert asked > 0


async def test_settings_that_can_not_take_effect_leave_nothing_behind(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was built of them asks the upstream for its tools no more, and the old ones answer."""
    bed = await start()
    before = generations()

    async def fail(*_: object) -> None:
        raise OSError("the keys can't be had")

    monkeypatch.setattr(KeySets, "use", fail)
    for _ in range(3):
        with pytest.raises(OSError, match="can't be had"):
            await changed(bed, max_body_bytes=1000)
    assert generations() == before
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
