"""`sidecar serve` in a process of its own, as an operator starts it, and the words to talk to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.bed import JWT_ROUTE, config_text, request

Record = dict[str, Any]


@dataclass
class Clients:
    """Whoever talks to the two ports."""

    token: str
    client: httpx.AsyncClient = field(init=False)
    admin: httpx.AsyncClient = field(init=False)

    async def connect(self, stack: AsyncExitStack, public_url: str, admin_url: str) -> None:
        self.client = await stack.enter_async_context(httpx.AsyncClient(base_url=public_url, trust_env=False))
        self.admin = await stack.enter_async_context(httpx.AsyncClient(base_url=admin_url, trust_env=False))

    @property
    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept": "application/json, text/event-stream"}

    @property
    def port(self) -> int:
        return httpx.URL(self.client.base_url).port or 0

    async def ping(self) -> httpx.Response:
        """Send a request on a connection of its own, so that any of the workers may get it."""
        headers = self.credentials | {"Connection": "close"}
        return await self.client.post(JWT_ROUTE, json=request("ping"), headers=headers)

    async def metrics(self) -> str:
        answer = await self.admin.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.text

    async def total(self, name: str) -> float:
        """Return a metric, its labels left out and their values added."""
        families = text_string_to_metric_families(await self.metrics())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    async def readiness(self) -> tuple[int, str]:
        answer = await self.admin.get("/readyz")
        return answer.status_code, answer.json()["status"]


@dataclass
class Service(Clients):
    """A running `sidecar serve` with two workers, and what it has logged so far."""

    process: asyncio.subprocess.Process
    output: asyncio.StreamReader
    pipe: asyncio.ReadTransport
    log: list[Record] = field(default_factory=list)

    async def read(self, event: str, **members: Any) -> Record:
        """Read the log up to a line with these members; those of the supervisor have no `worker` unless it is named."""
        async with asyncio.timeout(20):
            async for line in self.output:
                self.log.append(json.loads(line))
                if {"event": event, "worker": None, **members}.items() <= {"worker": None, **self.log[-1]}.items():
                    return self.log[-1]
        raise AssertionError(f"the log ended without {event}: {self.log}")


async def spawned(
    stack: AsyncExitStack,
    directory: Path,
    settings: Mapping[str, Any],
    token: str,
    *,
    under: Sequence[str] = (),
) -> Service:
    """Start `sidecar serve` on these settings, below another command if one is named, and do not wait for anything."""
    file = directory / "config.yaml"
    file.write_text(config_text(settings))
    return await launched(stack, (*under, sys.executable, "-m", "sidecar", "serve", "--config", str(file)), token)


async def launched(
    stack: AsyncExitStack,
    command: Sequence[str],
    token: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Service:
    """Run a command that serves, and do not wait for anything."""
    read_end, write_end = os.pipe()
    output = asyncio.StreamReader()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(read_end, "rb")
    )
    stack.callback(pipe.close)
    with os.fdopen(write_end, "wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, stdout=sink, start_new_session=True, env=env, cwd=cwd)
    stack.push_async_callback(_end, process)
    return Service(token, process, output, pipe)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):  # and whatever it started
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 - other processes can only be asked
            await asyncio.sleep(0.02)
