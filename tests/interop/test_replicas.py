"""Two processes over one Redis are one sidecar to other people's programs.

A shim has each request come on a connection of its own, and the system spreads those: what one process has learned of
a session, the other one must know.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, config_text, credentials, merged, tool_call
from tests.e2e.conftest import base_settings
from tests.interop.shim import Shim
from tests.interop.test_clients import (
    VERSIONS,
    WALKERS,
    Client,
    assert_got_over_the_refusal,
    assert_walked,
    credential,
    walk,
)
from tests.interop.test_conformance import assert_nothing_differs, conformance

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("node")]

BOTH: Final = {1, 2}
LIMIT_S: Final = 20
SPREAD: Final = "Connection: close"
NAMES: Final = {("Python mcp 2.x", "legacy"), ("TypeScript sdk 1.x", "legacy"), ("TypeScript client 2.x", "modern")}
CHOSEN: Final = [client for client in WALKERS if (client.name, client.era) in NAMES]


@dataclass
class Replicas:
    """A running `sidecar serve` with two workers."""

    url: str
    public_url: str
    issuer: DevIssuer
    log: list[dict[str, Any]] = field(default_factory=list)

    def token(self, scope: str, sub: str = "alice") -> str:
        return self.issuer.mint(sub=sub, aud=self.public_url + JWT_ROUTE, scope=scope)

    async def key(self, *scopes: str) -> str:
        async with httpx.AsyncClient(base_url=self.url, headers=credentials(token=self.token("mcp:full"))) as client:
            made = await client.post(KEYS, json={"name": "test", "scopes": scopes})
        return str(made.raise_for_status().json()["key"])

    def accesses(self, account: str = "alice") -> list[dict[str, Any]]:
        """Return the log's lines about an account's requests to the routes."""
        requests = [line for line in self.log if line["event"] == "request" and line["account"] == account]
        return [line for line in requests if line["route"] in (JWT_ROUTE, KEY_ROUTE)]

    async def know_the_tools(self) -> None:
        """Let each worker refuse a write; until it has fetched the tools itself it answers 503."""
        headers = [*credentials(token=self.token("mcp:read", "scout")), ("Connection", "close")]
        async with asyncio.timeout(LIMIT_S), httpx.AsyncClient(base_url=self.url, headers=headers) as client:
            while {access["worker"] for access in self.accesses("scout") if access["status"] == 403} != BOTH:
                await client.post(JWT_ROUTE, json=tool_call("write_note"))


async def read(output: asyncio.StreamReader, log: list[dict[str, Any]], up_to: str | None = None) -> dict[str, Any]:
    """Read the log up to the supervisor's own line of this event, else to its end."""
    async for line in output:
        log.append(json.loads(line))
        if (log[-1]["event"], log[-1].get("worker")) == (up_to, None):
            break
    return log[-1]


@pytest.fixture
async def replicas(
    tmp_path: Path, issuer: DevIssuer, fixture_url: str, redis_url: str, front: Shim
) -> AsyncIterator[Replicas]:
    """Start them in front of the fixture and behind the shim, whose address is the public one."""
    secret, file = tmp_path / "identity.key", tmp_path / "config.yaml"
    secret.write_bytes(base64.b64encode(b"identity-signing-secret-of-tests"))
    identity = {"algorithm": "hmac-sha256", "keys": [{"id": "test", "secret_file": str(secret)}]}
    shared = {"workers": 2, "store": {"url": redis_url}, "identity": identity, "public_url": front.url}
    tools: dict[str, Any] = {"read": [], "write": [], "destructive": []}
    base = base_settings(issuer.url, fixture_url, tmp_path / "unused.db")
    file.write_text(config_text(merged(base, {**shared, "access": {"tools": tools}})))
    command = (sys.executable, "-m", "sidecar", "serve", "--config", str(file))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    running = Replicas("", front.url, issuer)
    try:
        async with asyncio.timeout(LIMIT_S):
            running.url = (await read(process.stdout, running.log, "started"))["public"]
        front.target = running.url
        reading = asyncio.create_task(read(process.stdout, running.log))
        await running.know_the_tools()
        yield running
        process.terminate()
        async with asyncio.timeout(LIMIT_S):
            assert (await reading)["event"] == "stopped"
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("client", CHOSEN, ids=lambda client: f"{client.name} {client.era}")
async def test_a_client_works_though_each_of_its_requests_may_meet_another_process(
    client: Client, replicas: Replicas, front: Shim, tmp_path: Path
) -> None:
    front.line = SPREAD
    for route in (JWT_ROUTE, KEY_ROUTE):
        seen = await walk(client, front.url + route, await credential(replicas, route, "mcp:read"), tmp_path)
        assert_walked(seen, client, route)
        assert_got_over_the_refusal(seen)
        assert seen["version"] == VERSIONS[client.era]
    accesses = replicas.accesses()
    assert {access["worker"] for access in accesses} == BOTH
    assert {access["era"] for access in accesses if access["method"].startswith("tools/")} == {client.era}


async def test_the_suite_finds_the_same_through_two_processes(
    replicas: Replicas, front: Shim, fixture_url: str, tmp_path: Path
) -> None:
    revision = VERSIONS["legacy"]
    front.line = f"Authorization: Bearer {replicas.token('mcp:full')}\r\n{SPREAD}"
    direct = await conformance(fixture_url, revision, tmp_path / "direct")
    through = await conformance(front.url + JWT_ROUTE, revision, tmp_path / "through")
    assert_nothing_differs(direct, through, revision)
    assert {access["worker"] for access in replicas.accesses()} == BOTH
