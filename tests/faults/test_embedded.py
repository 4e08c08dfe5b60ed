"""The embedded store's file is locked, or its disk is full: who is known is served, and readiness tells."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, credentials, request
from tests.faults.conftest import Serve
from tests.mcp_server import StubUpstream, reply
from tests.service import Service, until

PATIENCE_S = 20.0
Undo = Callable[[], None]
WITHOUT_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def locked(service: Service, file: Path) -> Undo:
    """Have another program begin a change and not end it."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def full(service: Service, file: Path) -> Undo:
    """Let the process write no further into any file, as on a disk without room; its pipes and sockets it may."""
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    return lambda: resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, WITHOUT_LIMIT) and None


async def readiness(service: Service) -> tuple[int, str, str]:
    answer = await service.admin.get("/readyz")
    return answer.status_code, answer.json()["status"], answer.json()["checks"]["store"]


@pytest.mark.parametrize("fault", [locked, full])
@pytest.mark.parametrize(("policy", "told"), [("deny", (503, "not_ready")), ("local", (200, "degraded"))])
async def test_a_file_that_takes_no_changes_is_told_of_and_who_is_known_is_served(
    serve: Serve,
    stub: StubUpstream,
    tmp_path: Path,
    fault: Callable[[Service, Path], Undo],
    policy: str,
    told: tuple[int, str],
) -> None:
    service = await serve(limits={"on_store_failure": policy})
    lines = credentials(token=service.token)
    key = (await service.client.post(KEYS, json={"name": "x"}, headers=lines)).json()["key"]
    await until(lambda: ready(service))
    comes_back = fault(service, tmp_path / "sidecar.db")
    for _ in range(3):
        assert await readiness(service) == (*told, "unavailable")
        for path, how in ((KEY_ROUTE, credentials(key=key)), (JWT_ROUTE, lines)):
            assert (await service.client.post(path, json=request("ping"), headers=how)).status_code == 200
    assert (await service.client.post(KEYS, json={"name": "y"}, headers=lines)).status_code == 503
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}}, Mcp_Session_Id="s-1")
    refused = await service.client.post(JWT_ROUTE, json=request("initialize"), headers=lines)
    assert (refused.status_code, "Mcp-Session-Id" in refused.headers) == (503, False)
    given_back = stub.received[-1]
    assert (given_back.method, given_back.value("Mcp-Session-Id")) == ("DELETE", "s-1")
    assert given_back.value("X-Account-Id") == "alice"
    assert given_back.values("Signature")
    assert await service.total("sidecar_store_up") == 0
    comes_back()
    await until(lambda: ready(service))
    assert await service.total("sidecar_store_up") == 1
    assert (await service.client.post(KEYS, json={"name": "y"}, headers=lines)).status_code == 201
    service.process.terminate()
    await service.read("stopped")
    events = Counter(record["event"] for record in service.log)
    assert (events["store_lost"], events["store_recovered"], events["internal_error"]) == (1, 1, 0)


async def test_many_sessions_that_cannot_be_bound_are_refused_together(
    serve: Serve, stub: StubUpstream, tmp_path: Path
) -> None:
    """One after another each would wait for the lock, two seconds at a time."""
    service = await serve()
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}}, Mcp_Session_Id="s-1")
    lines, client = credentials(token=service.token), service.client
    unlock = locked(service, tmp_path / "sidecar.db")
    client.timeout = httpx.Timeout(PATIENCE_S)
    asked = [client.post(JWT_ROUTE, json=request("initialize"), headers=lines) for _ in range(30)]
    assert {answer.status_code for answer in await asyncio.gather(*asked)} == {503}
    unlock()
    answer = await client.post(JWT_ROUTE, json=request("initialize"), headers=lines)
    assert (answer.status_code, answer.headers["Mcp-Session-Id"]) == (200, "s-1")


async def test_a_locked_file_does_not_hold_up_the_end_and_what_could_not_be_written_is_told(
    serve: Serve, tmp_path: Path
) -> None:
    service = await serve()
    made = await service.client.post(KEYS, json={"name": "x"}, headers=credentials(token=service.token))
    unlock = locked(service, tmp_path / "sidecar.db")
    how = credentials(key=made.json()["key"])
    assert (await service.client.post(KEY_ROUTE, json=request("ping"), headers=how)).status_code == 200
    service.process.terminate()
    async with asyncio.timeout(PATIENCE_S):
        assert await service.process.wait() == 0
    await service.read("usage_lost")
    unlock()


async def ready(service: Service) -> bool:
    return await readiness(service) == (200, "ready", "ok")
