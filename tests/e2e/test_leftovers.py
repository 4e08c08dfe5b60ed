"""What a request leaves behind in memory: nothing, and that at once. The garbage collector looks seldom."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator

import pytest

from sidecar.edge.http.exchange import Exchange
from tests.e2e.bed import JWT_ROUTE, KEYS, Bed, credentials, request, tool_call
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream, echo, reply
from tests.service import until


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def none_are_left() -> bool:
    return not any(isinstance(thing, Exchange) for thing in gc.get_objects())


async def refusals(bed: Bed, stub: StubUpstream) -> set[int]:
    """Have requests refused in every way that there is; return the statuses."""
    reader, full = bed.token("mcp:tools:list"), bed.token()
    limited = bed.token(sub="limited")
    found = [
        await bed.post(tool_call("put", x=["ab"] * 1000), token=reader),
        await bed.post(b"{", token=full),
        await bed.post(json.dumps([request("ping")]).encode(), token=full),
        await bed.post(request("ping"), token="not.a.token"),
        await bed.post(request("ping")),
        await bed.post(request("no/such/method"), token=reader),
        await bed.post(request("ping"), path="/nowhere", token=full),
        await bed.client.put(JWT_ROUTE, headers=credentials(token=full)),
        await bed.rest("GET", f"{KEYS}/key_000000000000", full),
        await bed.rest("POST", KEYS, full, {"name": 7}),
    ]
    found += [await bed.post(request("ping"), token=limited) for _ in range(9)]
    stub.answer = reply(401)
    found.append(await bed.post(request("ping"), token=full))
    stub.answer = echo
    return {answer.status_code for answer in found}


async def test_refusals_and_answers_leave_nothing_behind(start: Start, stub: StubUpstream) -> None:
    bed = await start(limits={"policies": [{"name": "few", "per": "account", "requests": 8, "window_s": 3600}]})
    for _ in range(2):
        statuses = await refusals(bed, stub)
    assert statuses >= {400, 401, 403, 404, 405, 429, 502}
    await until(none_are_left)
