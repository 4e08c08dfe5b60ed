"""The sidecar's own process is ended, killed, paused, or starved of file descriptors."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, credentials, request
from tests.faults.conftest import Serve
from tests.service import Service, until

PATIENCE_S = 20.0


async def ping(service: Service, **how: str) -> httpx.Response:
    path = KEY_ROUTE if "key" in how else JWT_ROUTE
    return await service.client.post(path, json=request("ping"), headers=credentials(**how))


async def test_with_few_file_descriptors_clients_that_ask_nothing_keep_nobody_out(serve: Serve) -> None:
    service = await serve(under=("prlimit", "--nofile=160:160"))
    with ExitStack() as clients:
        for _ in range(200):
            clients.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        assert (await ping(service, token=service.token)).status_code == 200
        assert (await service.readiness())[0] == 200, "the orchestrator's port is not behind the clients' door"
    assert await _serves(service)
    assert service.process.returncode is None


async def _serves(service: Service) -> bool:
    try:
        return (await service.ping()).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.skipif(shutil.which("faketime") is None and not os.environ.get("CI"), reason="needs faketime")
@pytest.mark.parametrize(("offset", "status"), [("+3570s", 200), ("+3700s", 401), ("-25s", 200), ("-3600s", 401)])
async def test_a_token_is_good_within_its_time_and_the_leeway_of_the_sidecars_clock(
    serve: Serve, offset: str, status: int
) -> None:
    """The clock of the sidecar's machine is off by so much: 30 s are forgiven, at either end."""
    service = await serve(under=("faketime", "-f", offset))
    assert (await ping(service, token=service.token)).status_code == status


@pytest.mark.parametrize("lines", ["read", "unread"])
async def test_a_log_that_nobody_reads_stops_nobody(serve: Serve, lines: str) -> None:
    service = await serve()
    if lines == "unread":
        service.pipe.pause_reading()
    for _ in range(4):
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(*[ping(service, token=service.token) for _ in range(100)])
        assert {answer.status_code for answer in answers} == {200}
    service.pipe.close()
    assert (await ping(service, token=service.token)).status_code == 200


async def test_a_log_that_nobody_reads_does_not_hold_up_the_end(serve: Serve) -> None:
    service = await serve()
    service.pipe.pause_reading()
    for _ in range(10):
        await asyncio.gather(*[ping(service, token=service.token) for _ in range(100)])
    service.process.terminate()
    async with asyncio.timeout(PATIENCE_S):
        assert await service.process.wait() == 0


async def test_nor_does_one_workers_end_hold_up_the_others(serve: Serve, redis_settings: dict[str, Any]) -> None:
    """Whether writing to a pipe waits belongs to the pipe, which they share."""
    service = await serve(workers=2, **redis_settings)
    workers = [line["pid"] for line in service.log if line["event"] == "worker_started"]
    service.pipe.pause_reading()
    for _ in range(10):
        await asyncio.gather(*[service.ping() for _ in range(100)])
    os.kill(workers[0], signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(20):
            await until(lambda: _serves(service))
            assert (await service.admin.get("/livez")).status_code == 200
        service.process.terminate()
        assert await service.process.wait() == 0


async def test_the_issuer_may_come_later_and_keys_work_meanwhile(
    serve: Serve, issuer: DevIssuer, tmp_path: Path
) -> None:
    address, port = httpx.URL(issuer.url).host, httpx.URL(issuer.url).port or 0
    await issuer.stop()
    service = await serve()
    assert (await ping(service, token=service.token)).status_code == 503
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "keys", "create", "--account", "alice", "--name", "x", "--json"),
        *("--config", str(tmp_path / "config.yaml")),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert (await ping(service, key=json.loads(out)["key"])).status_code == 200
    await issuer.start(address, port)
    await until(lambda: _serves(service))
