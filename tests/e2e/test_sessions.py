"""Sessions of the legacy era work for whom they were given to, on every verb, and look like none to others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, Bed, assert_refused, credentials, notification, request
from tests.e2e.conftest import Start, StoreName
from tests.e2e.sessions import begin, within
from tests.mcp_server import StubUpstream, reply

BOTH = {"routes": [{"path": JWT_ROUTE, "credentials": ["jwt"]}, {"path": KEY_ROUTE, "credentials": ["jwt", "api_key"]}]}


async def statuses(bed: Bed, session_id: str, path: str = JWT_ROUTE, **credential: Any) -> list[int]:
    """Use a session in every way there is, ending it last."""
    lines = [*within(session_id), *credentials(**credential)]
    messages = (request("ping"), notification("notifications/cancelled"), {"jsonrpc": "2.0", "id": 1, "result": {}})
    answers = [
        await bed.client.post(path, json=message, headers=[*lines, ("Accept", "application/json")])
        for message in messages
    ]
    answers.append(await bed.client.get(path, headers=lines))
    answers.append(await bed.client.get(path, headers=[*lines, ("Last-Event-ID", "7")]))
    answers.append(await bed.client.delete(path, headers=lines))
    return [answer.status_code for answer in answers]


async def test_a_session_works_for_its_owner_until_it_is_ended(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    bed = await start(store)
    given = await begin(bed, stub, "s-1", token=bed.token())
    assert given.headers["Mcp-Session-Id"] == "s-1"
    assert await statuses(bed, "s-1", token=bed.token()) == [200, 202, 202, 405, 405, 200]
    assert await statuses(bed, "s-1", token=bed.token()) == [404] * 6


async def test_a_refreshed_token_goes_on_with_the_session(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    await begin(bed, stub, "s-1", token=bed.token(scope="mcp:read"))
    answer = await bed.post(request("ping"), token=bed.token(scope="mcp:full", jti="another"), headers=within("s-1"))
    assert answer.status_code == 200


async def test_to_everybody_else_it_looks_like_a_session_that_never_was(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    bed = await start(store, **BOTH)
    await begin(bed, stub, "s-1", token=bed.token())
    others: list[dict[str, Any]] = [
        {"token": bed.token(sub="bob")},
        {"token": bed.token(client_id="another")},
        {"token": bed.token(client_id=None)},
        {"key": await bed.key("mcp:full", account="alice")},
        {"key": await bed.key("mcp:full", account="alice")},
    ]
    for credential in others:
        path = KEY_ROUTE if "key" in credential else JWT_ROUTE
        assert await statuses(bed, "s-1", path, **credential) == [404] * 6
        answer = await bed.post(request("ping", id="x"), path=path, headers=within("s-1"), **credential)
        never = await bed.post(request("ping", id="x"), path=path, headers=within("never-was"), **credential)
        assert_refused(answer, 404, "SESSION_NOT_FOUND", id="x")
        assert answer.content == never.content
    assert stub.received == []
    assert (await bed.post(request("ping"), token=bed.token(), headers=within("s-1"))).status_code == 200


async def test_a_key_session_is_the_keys_and_not_the_accounts(start: Start, stub: StubUpstream) -> None:
    bed = await start(**BOTH)
    key, other = await bed.key("mcp:full", account="alice"), await bed.key("mcp:full", account="alice")
    await begin(bed, stub, "s-1", key=key)
    assert await statuses(bed, "s-1", KEY_ROUTE, key=other) == [404] * 6
    assert await statuses(bed, "s-1", KEY_ROUTE, token=bed.token()) == [404] * 6
    assert await statuses(bed, "s-1", KEY_ROUTE, key=key) == [200, 202, 202, 405, 405, 200]


async def test_a_session_survives_a_restart_of_the_sidecar(start: Start, stub: StubUpstream, tmp_path: Path) -> None:
    settings = {"store": {"url": f"sqlite:///{tmp_path / 'kept.db'}"}}
    first = await start(**settings)
    await begin(first, stub, "s-1", token=first.token())
    await first.sidecar.stop()
    second = await start(**settings)
    assert (await second.post(request("ping"), token=second.token(), headers=within("s-1"))).status_code == 200


async def test_a_session_is_known_to_every_replica(start: Start, stub: StubUpstream) -> None:
    one, other = await start("redis"), await start("redis")
    await begin(one, stub, "s-1", token=one.token())
    assert (await other.post(request("ping"), token=other.token(), headers=within("s-1"))).status_code == 200


async def test_a_session_that_the_upstream_has_lost_is_forgotten(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    await begin(bed, stub, "s-1", token=bed.token())
    stub.answer = reply(404, {"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "Session not found"}})
    assert (await bed.post(request("ping"), token=bed.token(), headers=within("s-1"))).status_code == 404
    assert len(stub.received) == 1
    assert (await bed.post(request("ping"), token=bed.token(), headers=within("s-1"))).status_code == 404
    assert len(stub.received) == 1


async def test_initialize_drops_a_stale_session(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    answer = await bed.post(request("initialize"), token=bed.token(), headers=within("stale"))
    assert answer.status_code == 200
    assert stub.only.values("Mcp-Session-Id") == []


async def test_in_the_modern_era_a_session_header_is_nobodys_business(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    answer = await bed.post(request("tools/list"), token=bed.token(), era="modern", headers=within("s-1"))
    assert answer.status_code == 200
    assert stub.only.values("Mcp-Session-Id") == []
    assert "Mcp-Session-Id" not in answer.headers


async def test_an_upstream_without_sessions_stays_without(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    answer = await bed.post(request("initialize"), token=bed.token())
    assert "Mcp-Session-Id" not in answer.headers
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200


@pytest.mark.parametrize("session_id", ["a b", "x" * 1025])
async def test_an_impossible_session_id_of_the_upstream_is_502(
    start: Start, stub: StubUpstream, session_id: str
) -> None:
    bed = await start()
    assert_refused(await begin(bed, stub, session_id, token=bed.token()), 502, "UPSTREAM_UNAVAILABLE")
