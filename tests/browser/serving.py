"""The sidecar, its issuer and its server, each in a process of its own, as they are behind a real page."""

from __future__ import annotations

import asyncio
import base64
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from sidecar.app import keyring, open_store
from sidecar.config import Config, load
from sidecar.stores import Store
from tests.e2e.bed import KEY_ROUTE, config_text, merged, modern, request
from tests.interop.node_programs import HERE, environment

PATIENCE_S: Final = 20.0
FROM_REST: Final[Mapping[str, Any]] = {"created_by": "ada", "origin": "rest", "granted": None}


def until(holds: Callable[[], Any], *, step: Callable[[], Any] = lambda: time.sleep(0.02)) -> Any:
    """Return what `holds` returns as soon as that is true, with a step between; fail when it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "it took too long"
        step()
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def provider(origin: str) -> Iterator[str]:
    """Run an identity provider that knows the pages at this origin; yield its issuer."""
    command = ("node", str(HERE / "clients" / "sign_in_provider.mjs"), origin)
    given = {**environment(), "NODE_NO_WARNINGS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HERE, env=given, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(line.strip() for line in process.stdout if line.startswith("http://"))
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Served:
    """A running sidecar and what belongs to it."""

    url: str
    issuer: str
    log: Path
    config: Path
    process: subprocess.Popen[bytes]

    def call(self, key: str, tool: str = "get_balance", **arguments: Any) -> httpx.Response:
        """Call a tool with a key, as a program would; wait until the sidecar knows the tools."""
        message, routing = modern(request("tools/call", {"name": tool, "arguments": arguments}))
        headers = {"X-API-Key": key, "Accept": "application/json, text/event-stream", **routing}

        def ask() -> httpx.Response | None:
            answer = httpx.post(self.url + KEY_ROUTE, json=message, headers=headers, trust_env=False)
            return None if answer.status_code == 503 else answer

        found: httpx.Response = until(ask)
        return found

    def make(self, *names: str, days: int = 90, scope: str = "mcp:read") -> list[str]:
        """Make a key of ada's for each of these names, as over REST; return them."""

        async def make(store: Store) -> list[str]:
            async with keyring(self.settings, store) as keys:
                made = [
                    await keys.create("ada", name, scopes=[scope], expires_in_days=days, **FROM_REST) for name in names
                ]
            return [key.text for _, key in made]

        found: list[str] = self.act(make)
        return found

    def act(self, act: Callable[[Store], Awaitable[Any]]) -> Any:
        """Do something with the store that the sidecar uses."""

        async def acted() -> Any:
            async with open_store(self.settings) as store:
                return await act(store)

        return asyncio.run(acted())

    @property
    def settings(self) -> Config:
        return load(self.config.read_text(), {}, lambda path: Path(path).read_bytes())

    def command(self, *words: str) -> None:
        """Run an operator's command."""
        subprocess.run((sys.executable, "-m", "sidecar", *words, "--config", str(self.config)), check=True)

    def stop(self) -> None:
        """End it now, so that another may take its port."""
        self.process.terminate()
        self.process.wait()


@contextmanager
def sidecar(
    directory: Path, port: int, issuer: str, upstream_url: str, redis_url: str, settings: Mapping[str, Any]
) -> Iterator[Served]:
    """Run `sidecar serve` on Redis, with people signing in at the issuer."""
    url = f"http://127.0.0.1:{port}"
    secret, log, file = directory / "identity.secret", directory / "sidecar.log", directory / "config.yaml"
    secret.write_bytes(base64.b64encode(b"identity-signing-secret-of-tests"))
    base = {
        "public_url": url,
        "listen": {"host": "127.0.0.1", "port": port},
        "admin": {"host": "127.0.0.1", "port": 0},
        "upstream": {"url": upstream_url},
        "jwt": {"issuers": [{"issuer": issuer, "default_scopes": ["mcp:full"]}]},
        "api_keys": {"bcrypt_cost": 4, "rotation_grace_s": 2, "max_per_account": 1000},
        "identity": {"algorithm": "hmac-sha256", "keys": [{"id": "test", "secret_file": str(secret)}]},
        "store": {"url": redis_url},
        "drain": {"delay_s": 0, "requests_s": 1, "streams_s": 0},
        "key_page": {"client_id": "pages"},
    }
    file.write_text(config_text(merged(base, settings)))
    command = (sys.executable, "-m", "sidecar", "serve", "--config", str(file))
    with log.open("wb") as sink, subprocess.Popen(command, stdout=sink) as process:
        try:
            served = Served(url, issuer, log, file, process)
            until(lambda: _is_up(served, process))
            yield served
        finally:
            process.terminate()


def _is_up(served: Served, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, served.log.read_text()
    return b'"started"' in served.log.read_bytes()
