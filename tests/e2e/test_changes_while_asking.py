"""What changes while a person is asked counts: their yes is for a call that could still be made."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from sidecar.confirmer import Confirmer
from sidecar.questions import Call
from tests.e2e.bed import notification, request, tool_call
from tests.e2e.confirming import DROP, YES, answer_to, at, begin, calling, calls
from tests.e2e.conftest import Start
from tests.e2e.test_pinning import with_tool
from tests.mcp_server import StubUpstream
from tests.service import until


async def test_a_tool_that_is_blocked_meanwhile_is_not_called(start: Start, stub: StubUpstream) -> None:
    bed = await start(catalogue={"on_change": "block", "refresh_s": 1})
    token = bed.token()

    async def is_known() -> bool:
        return (await bed.post(tool_call("put"), token=token)).status_code == 200

    await until(is_known)
    stub.received.clear()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        question = await call.message()
        stub.tools = with_tool("drop", description="Drops a table, and all others.")

        async def is_blocked() -> bool:
            return (await bed.post({**DROP, "id": "x"}, token=token)).status_code == 503

        await until(is_blocked)
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        assert (await call.message())["error"]["code"] == 503
    assert calls(stub) == []


async def test_a_token_that_expires_meanwhile_gets_nothing_done(start: Start, stub: StubUpstream) -> None:
    bed = await start(jwt={"issuers": [{**(await start()).settings["jwt"]["issuers"][0], "leeway_s": 0}]})
    fresh, short = bed.token(), bed.token(exp=int(time.time()) + 2)
    await begin(bed, stub, token=fresh)
    async with calling(bed, token=short) as call:
        question = await call.message()

        async def is_over() -> bool:
            return (await bed.post(request("ping"), token=short, headers=at("s-1"))).status_code == 401

        await until(is_over)
        await bed.post(answer_to(question, YES), token=fresh, headers=at("s-1"))
        assert (await call.message())["error"]["data"]["errorType"] == "INVALID_TOKEN"
    assert calls(stub) == []


async def test_a_cancellation_counts_until_the_call_is_on_its_way(
    start: Start, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, goes_on = asyncio.Event(), asyncio.Event()
    look = Confirmer._require_standing

    async def look_slowly(self: Confirmer, call: Call) -> None:
        looks.set()
        await goes_on.wait()
        await look(self, call)

    monkeypatch.setattr(Confirmer, "_require_standing", look_slowly)
    bed = await start()
    token = bed.token()
    await begin(bed, stub, token=token)
    gives_up = {**notification("notifications/cancelled"), "params": {"requestId": 7}}
    async with calling(bed, token=token) as call:
        question = await call.message()
        await bed.post(answer_to(question, YES), token=token, headers=at("s-1"))
        async with asyncio.timeout(10):
            await looks.wait()
        await bed.post(gives_up, token=token, headers=at("s-1"))
        goes_on.set()
        assert "cancelled" in json.dumps(await call.message())
    assert stub.received == []
