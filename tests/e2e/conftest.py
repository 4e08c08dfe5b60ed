"""Fixtures: the stub upstream, and a sidecar started through the production composition on free ports."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from sidecar import config
from sidecar.app import Sidecar
from sidecar.demo.issuer import DevIssuer
from tests.collector import Collector
from tests.e2e.bed import PUBLIC_URL, Bed, config_text, merged
from tests.mcp_server import StubUpstream

StoreName = Literal["embedded", "redis"]
Start = Callable[..., Awaitable[Bed]]


@pytest.fixture
async def stub() -> AsyncIterator[StubUpstream]:
    async with StubUpstream().running() as upstream:
        yield upstream


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """Run a collector of traces, and have what is sent to it sent soon."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with Collector().running() as running:
        yield running


@pytest.fixture(params=["embedded", "redis"])
def store(request: pytest.FixtureRequest) -> StoreName:
    """Run the test on both stores."""
    name: StoreName = request.param
    return name


@pytest.fixture
async def start(
    request: pytest.FixtureRequest, tmp_path: Path, issuer: DevIssuer, stub: StubUpstream
) -> AsyncIterator[Start]:
    """Start sidecars: settings of `config.yaml` as keyword arguments; in front of the stub unless told otherwise."""
    identity_secret = tmp_path / "identity.key"
    identity_secret.write_bytes(base64.b64encode(b"identity-signing-secret-of-tests"))
    started: list[StoreName] = []
    async with AsyncExitStack() as stack:

        async def start(store: StoreName = "embedded", /, body_timeout_s: float = 30.0, **settings: Any) -> Bed:
            started.append(store)
            base = base_settings(issuer.url, stub.url, tmp_path / f"sidecar-{len(started)}.db")
            if store == "redis":
                base["store"] = {"url": request.getfixturevalue("redis_url")}
                base["identity"] = {
                    "algorithm": "hmac-sha256",
                    "keys": [{"id": "test", "secret_file": str(identity_secret)}],
                }
            bed = await start_bed(stack, merged(base, settings), issuer, body_timeout_s)
            bed.secrets.add("identity-signing-secret-of-tests")
            return bed

        yield start


def base_settings(issuer_url: str, upstream_url: str, store: Path) -> dict[str, Any]:
    """Return settings for tests: free ports, quick hashing, and no limits that a test did not ask for."""
    return {
        "public_url": PUBLIC_URL,
        "allowed_hosts": ["sidecar", "s", "public.example"],
        "listen": {"host": "127.0.0.1", "port": 0},
        "admin": {"host": "127.0.0.1", "port": 0},
        "upstream": {"url": upstream_url},
        "jwt": {"issuers": [{"issuer": issuer_url}]},
        "api_keys": {"bcrypt_cost": 4},
        "access": {"tools": {"read": ["look"], "write": ["put"], "destructive": ["drop"]}},
        "limits": {"policies": [], "failed_auth": {"requests": 1000, "window_s": 60}},
        "store": {"url": f"sqlite:///{store}"},
        "drain": {"delay_s": 0, "streams_s": 0},
    }


async def start_bed(
    stack: AsyncExitStack, settings: Mapping[str, Any], issuer: DevIssuer, body_timeout_s: float = 30.0
) -> Bed:
    """Start a sidecar on this configuration; when it has ended, its log must hold none of the secrets used."""
    log, secrets = io.BytesIO(), set[str]()
    stack.callback(assert_no_secret_logged, log, secrets)
    loaded = config.load(config_text(settings), {}, lambda path: Path(path).read_bytes())
    sidecar = Sidecar(loaded, log=log, body_timeout_s=body_timeout_s)
    await sidecar.start()
    stack.push_async_callback(sidecar.stop)
    limits = httpx.Limits(max_connections=None)
    client = httpx.AsyncClient(base_url=sidecar.public_url_bound, trust_env=False, timeout=10, limits=limits)
    admin = httpx.AsyncClient(base_url=sidecar.admin_url, trust_env=False, timeout=10)
    await stack.enter_async_context(client)
    await stack.enter_async_context(admin)
    return Bed(sidecar, issuer, log, client, admin, settings, secrets)


def assert_no_secret_logged(log: io.BytesIO, secrets: set[str]) -> None:
    """Search the log for every credential that the test used."""
    text = log.getvalue().decode()
    found = [secret for secret in secrets if secret in text]
    assert not found
