"""Several processes behind one port: together they are one sidecar. Real processes, as an operator starts them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from sidecar import config
from sidecar.config import Config
from sidecar.demo.issuer import DevIssuer
from sidecar.workers import Supervisor, pause_before_restart_s
from tests.e2e.bed import AUDIENCE, JWT_ROUTE, config_text, merged
from tests.e2e.conftest import base_settings
from tests.mcp_server import Stream, StubUpstream
from tests.service import Clients, Record, Service, spawned, until

SECRET = b"identity-signing-secret-of-tests"


Serve = Callable[..., Awaitable[Service]]


@pytest.fixture
def settings(tmp_path: Path, issuer: DevIssuer, stub: StubUpstream, redis_url: str) -> dict[str, Any]:
    secret = tmp_path / "identity.key"
    secret.write_bytes(base64.b64encode(SECRET))
    identity = {"algorithm": "hmac-sha256", "keys": [{"id": "test", "secret_file": str(secret)}]}
    shared = {"workers": 2, "store": {"url": redis_url}, "identity": identity}
    return merged(base_settings(issuer.url, stub.url, tmp_path / "sidecar.db"), shared)


@pytest.fixture
async def spawn(settings: dict[str, Any], issuer: DevIssuer, tmp_path: Path) -> AsyncIterator[Serve]:
    """Start `sidecar serve`, and do not wait for anything."""
    async with AsyncExitStack() as stack:

        async def spawn(**changes: Any) -> Service:
            return await spawned(stack, tmp_path, merged(settings, changes), token_of(issuer))

        yield spawn


@pytest.fixture
async def serve(spawn: Serve) -> AsyncIterator[Serve]:
    """Start `sidecar serve` and wait until it serves."""
    async with AsyncExitStack() as stack:

        async def serve(**changes: Any) -> Service:
            service = await spawn(**changes)
            started = await service.read("started")
            await service.connect(stack, started["public"], started["admin"])
            return service

        yield serve


def is_free(port: int) -> bool:
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taker.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def test_two_workers_serve_and_together_keep_one_limit_and_one_count(serve: Serve) -> None:
    policies = [{"name": "account", "per": "account", "requests": 20, "window_s": 60}]
    service = await serve(limits={"policies": policies})
    answers = [await service.ping() for _ in range(24)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 4
    assert [int(answer.headers["X-RateLimit-Remaining"]) for answer in answers[:20]] == [*range(19, -1, -1)]
    assert await service.readiness() == (200, "ready")
    for name in ("sidecar_requests_total", "sidecar_request_seconds_count", "sidecar_limit_decisions_total"):
        assert await service.total(name) == 24, name
    for name in ("sidecar_store_up", "sidecar_build_info", "sidecar_key_set_usable_keys"):
        assert await service.total(name) == 1, name
    assert await service.total("sidecar_upstream_answers_total") == 20
    assert await service.total("sidecar_limit_used_ratio_count") == 24
    assert 0 < await service.total("sidecar_key_set_age_seconds") < 60
    assert await service.total("sidecar_draining") == 0
    assert_reads_like_one_process(await service.metrics())
    service.process.terminate()
    await service.read("stopped")
    served_by = Counter(line["worker"] for line in service.log if line["event"] == "request")
    assert set(served_by) == {1, 2}
    assert served_by.total() == 24
    assert await service.process.wait() == 0


def assert_reads_like_one_process(metrics: str) -> None:
    lines = metrics.splitlines()
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(set(families)) == len(families)
    assert len(set(series)) == len(series)
    assert {"sidecar_requests_total", "sidecar_request_seconds", "sidecar_store_up"} <= set(families)
    assert not [line for line in lines if "_created" in line or "worker" in line or "pid" in line]
    assert 'sidecar_requests_total{era="legacy",outcome="forwarded",route="/mcp"} 20.0' in lines


async def test_a_silent_worker_counts_as_not_ready_and_is_replaced_without_loss_of_its_counts(
    settings: dict[str, Any], issuer: DevIssuer
) -> None:
    log, clients = io.BytesIO(), Clients(token_of(issuer))
    async with AsyncExitStack() as stack:
        supervisor = await started(stack, settings, log, silence_s=1)
        await clients.connect(stack, supervisor.public_url_bound, supervisor.admin_url)
        for _ in range(8):
            await clients.ping()
        assert await clients.total("sidecar_requests_total") == 8
        os.kill(pid(log, worker=2), signal.SIGSTOP)
        assert await clients.readiness() == (503, "not_ready")
        assert (await clients.admin.get("/livez")).status_code == 200
        assert await clients.total("sidecar_requests_total") == 8

        async def replaced() -> bool:
            return len(events(log, worker=2)) == 4

        await until(replaced)
        assert events(log, worker=2) == ["worker_started", "worker_silent", "worker_ended", "worker_started"]
        (ended,) = (line for line in records(log) if line["event"] == "worker_ended" and line["worker"] == 2)
        assert (ended["exit_code"], ended["restart_in_s"]) == (-signal.SIGKILL, 0)
        assert await clients.readiness() == (200, "ready")
        for _ in range(8):
            assert (await clients.ping()).status_code == 200
        assert await clients.total("sidecar_requests_total") == 16
        assert await clients.total("sidecar_process_ends_total") == 1


async def test_sigterm_lets_running_requests_finish_and_ends_with_zero(serve: Serve, stub: StubUpstream) -> None:
    service, stream = await serve(), Stream("application/json")
    stub.answer = stream.answer
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(service.ping())
        await stream.opened.wait()
        service.process.terminate()
        await service.read("stopping", worker=1)
        assert await service.readiness() == (503, "draining")
        assert await service.total("sidecar_draining") == 1
        await until(_is_refused(service))
        stream.send(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        stream.end()
    assert (running.result().status_code, running.result().json()["result"]) == (200, {})
    async with asyncio.timeout(10):
        assert await service.process.wait() == 0
    await service.read("stopped")
    assert {line.get("worker") for line in service.log if line["event"] == "stopped"} == {None, 1, 2}


def _is_refused(service: Service) -> Callable[[], Awaitable[bool]]:
    async def refused() -> bool:
        try:
            await service.client.get("/nothing", headers={"Connection": "close"})
        except httpx.TransportError as error:  # else it came before the port was closed and was cut off with it
            return isinstance(error, httpx.ConnectError)
        return False

    return refused


@pytest.mark.parametrize("log_is_read", [True, False])
async def test_workers_do_not_outlive_their_supervisor(serve: Serve, stub: StubUpstream, log_is_read: bool) -> None:
    service, stream = await serve(), Stream()
    stub.answer = stream.answer
    stream.send(b"data: {}\n\n")
    async with service.client.stream("GET", JWT_ROUTE, headers=service.credentials) as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        if not log_is_read:
            service.pipe.close()
        service.process.kill()

        async def port_is_free() -> bool:
            return is_free(service.port)

        await until(port_is_free)
        async with asyncio.timeout(5):
            with pytest.raises((StopAsyncIteration, httpx.RemoteProtocolError)):
                await anext(pieces)


async def test_a_port_that_other_workers_have_is_not_shared_with_them(serve: Serve, spawn: Serve) -> None:
    first = await serve()
    second = await spawn(listen={"port": first.port})
    failed = await second.read("start_failed")
    assert str(first.port) in failed["problem"]
    assert await second.process.wait() == 1


async def test_no_secret_is_in_a_workers_arguments_or_environment(settings: dict[str, Any]) -> None:
    log = io.BytesIO()
    async with AsyncExitStack() as stack:
        await started(stack, settings, log)
        seen = process_facts(pid(log, worker=1))
    assert b"sidecar.worker" in seen
    assert SECRET not in seen
    assert base64.b64encode(SECRET) not in seen


async def test_the_start_fails_when_a_worker_does_not_start(settings: dict[str, Any]) -> None:
    supervisor = Supervisor(loaded(settings), log=io.BytesIO(), module="tests.e2e.no_such_module")
    with pytest.raises(ChildProcessError):
        await supervisor.start()
    assert is_free(httpx.URL(supervisor.public_url_bound).port or 0)


@pytest.mark.parametrize(("deaths", "pause_s"), [(1, 0), (2, 1), (3, 2), (6, 16), (7, 30), (10_000, 30)])
def test_the_first_restart_is_at_once_and_the_next_ones_ever_later(deaths: int, pause_s: float) -> None:
    assert pause_before_restart_s(deaths) == pause_s


async def started(stack: AsyncExitStack, settings: dict[str, Any], log: io.BytesIO, **how: Any) -> Supervisor:
    """Start a supervisor in this process; its workers are processes all the same."""
    supervisor = Supervisor(loaded(settings), log=log, **how)
    await supervisor.start()
    stack.push_async_callback(supervisor.stop)
    return supervisor


def loaded(settings: dict[str, Any]) -> Config:
    return config.load(config_text(settings), {}, lambda path: Path(path).read_bytes())


def token_of(issuer: DevIssuer) -> str:
    return issuer.mint(sub="alice", aud=AUDIENCE, scope="mcp:full")


def records(log: io.BytesIO) -> list[Record]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def events(log: io.BytesIO, *, worker: int) -> list[str]:
    return [line["event"] for line in records(log) if line.get("worker") == worker]


def pid(log: io.BytesIO, *, worker: int) -> int:
    (line,) = (line for line in records(log) if line["event"] == "worker_started" and line["worker"] == worker)
    return int(line["pid"])


def process_facts(pid: int) -> bytes:
    """Return what other processes of this user can see of one."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
