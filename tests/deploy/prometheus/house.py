"""A sidecar with all that it stands on, and clients of every kind that come and come until they are told to stop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import uvloop
from aiohttp import web

from sidecar.demo.issuer import DevIssuer
from tests.certificates import Authority
from tests.e2e.bed import AUDIENCE, JWT_ROUTE, KEY_ROUTE, KEYS, merged, modern, request, tool_call
from tests.e2e.conftest import base_settings
from tests.mcp_server import StubUpstream, echo
from tests.redis_server import RedisServer
from tests.service import Service, spawned

BEAT_S = 0.1
"""Each kind of client comes so often, or as fast as it is answered."""
START_S = 60.0
UNKNOWN_KEY = "mcp_" + "0" * 46
GONE_ISSUER = GONE_COLLECTOR = "http://127.0.0.1:9"


class House:
    """Runs on a thread and a loop of its own. `redis` may be paused meanwhile."""

    def __init__(self, directory: Path, redis: RedisServer) -> None:
        self.redis = redis
        self.admin_url = ""
        self._directory = directory
        self._authority = Authority()
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._service: Service
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="house")

    def __enter__(self) -> House:
        self._thread.start()
        assert self._ready.wait(START_S), "the house did not start"
        if self._fault is not None:
            raise self._fault
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(START_S)
        if self._fault is not None:
            raise self._fault

    def reload(self) -> None:
        """Have the sidecar read its settings again."""
        self._service.process.send_signal(signal.SIGHUP)

    def _run(self) -> None:
        try:
            uvloop.run(self._live())
        except BaseException as fault:
            self._fault = fault
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            stub = await stack.enter_async_context(StubUpstream().running())
            stub.answer = answer
            issuer = DevIssuer(algorithm="ES256")
            await issuer.start()
            stack.push_async_callback(issuer.stop)
            settings = self._settings(issuer.url, stub.url)
            self._service = await spawned(stack, self._directory, settings, token(issuer, "alice"))
            started = await self._service.read("started")
            self.admin_url = started["admin"]
            trusting = ssl.create_default_context(cadata=self._authority.cert.decode())
            client = httpx.AsyncClient(base_url=started["public"], verify=trusting, trust_env=False)
            clients = Callers(issuer, await stack.enter_async_context(client))
            await clients.prepare()
            kinds = [asyncio.create_task(again_and_again(kind)) for kind in clients.kinds()]
            self._ready.set()
            await self._over.wait()
            for kind in kinds:
                kind.cancel()
            await asyncio.gather(*kinds, return_exceptions=True)

    def _settings(self, issuer_url: str, upstream_url: str) -> dict[str, Any]:
        secret = self._directory / "identity.key"
        secret.write_bytes(base64.b64encode(b"identity-signing-secret-of-tests"))
        changes = {
            "workers": 2,
            "tracing": {"otlp_endpoint": GONE_COLLECTOR},
            "store": {"url": self.redis.url},
            "identity": {"algorithm": "hmac-sha256", "keys": [{"id": "test", "secret_file": str(secret)}]},
            "jwt": {
                "issuers": [
                    {"issuer": issuer_url, "account_prefix": "a:"},
                    {"issuer": GONE_ISSUER, "account_prefix": "b:"},
                ]
            },
            "upstream": {"response_timeout_s": 0.3},
            "limits": {
                "policies": [
                    {"name": "account", "per": "account", "requests": 100_000, "window_s": 60},
                    {"name": "writes", "per": "account", "effect": "write", "requests": 3, "window_s": 1},
                ],
                "failed_auth": {"requests": 3, "window_s": 1},
                "streams": {"per_credential": 1},
            },
            "catalogue": {"refresh_s": 1},
            "listen": {"tls": self._authority.certify().written(self._directory, "sidecar")},
            "log": {"access": False},
            "audit": {"file": str(self._directory / "audit.jsonl")},
        }
        return merged(base_settings(issuer_url, upstream_url, self._directory / "unused.db"), changes)


class Callers:
    """Who is served, refused or limited, who guesses, who streams, and who asks for what is slow or broken."""

    def __init__(self, issuer: DevIssuer, client: httpx.AsyncClient) -> None:
        self._issuer = issuer
        self._client = client
        self._key = ""
        self._headers = {"Accept": "application/json, text/event-stream"}

    async def prepare(self) -> None:
        """Have a key made."""
        made = await self._client.post(
            KEYS, json={"name": "test", "scopes": ["mcp:read"]}, headers=self._bearer("alice")
        )
        assert made.status_code == 201, made.text
        self._key = made.json()["key"]

    def kinds(self) -> list[Callable[[], Awaitable[Any]]]:
        return [
            lambda: self._post(request("ping"), self._bearer("alice")),
            lambda: self._post(*self._modern(request("ping"), self._bearer("alice"))),
            lambda: self._post(request("ping"), {"X-API-Key": self._key}, KEY_ROUTE),
            lambda: self._post(tool_call("put"), self._bearer("reader", "mcp:read")),
            lambda: self._post(tool_call("put"), self._bearer("greedy")),
            lambda: self._post(request("ping"), {"Authorization": "Bearer no.token.at-all"}),
            lambda: self._post(request("ping"), {"X-API-Key": UNKNOWN_KEY}, KEY_ROUTE),
            lambda: self._post(request("ping"), self._bearer("alice"), "/no/such/path"),
            lambda: self._post(tool_call("look", be="slow"), self._bearer("alice")),
            lambda: self._post(tool_call("look", be="broken"), self._bearer("alice")),
            lambda: self._post(tool_call("look", be="silent"), self._bearer("alice")),
            lambda: self._client.get(KEYS, headers=self._bearer("alice")),
            self._stream,
            self._second_stream,
            self._metadata,
        ]

    async def _stream(self) -> None:
        async with self._client.stream("GET", JWT_ROUTE, headers=self._bearer("listener"), timeout=None) as answer:
            async for _ in answer.aiter_raw():
                pass

    async def _second_stream(self) -> None:
        await self._client.get(JWT_ROUTE, headers=self._bearer("listener"), timeout=0.5)

    async def _metadata(self) -> None:
        await self._client.get("/.well-known/oauth-protected-resource/mcp")

    async def _post(self, message: dict[str, Any], headers: dict[str, str], path: str = JWT_ROUTE) -> None:
        headers = {"Content-Type": "application/json", **self._headers, **headers}
        await self._client.post(path, content=json.dumps(message), headers=headers)

    def _modern(self, message: dict[str, Any], headers: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        message, routing = modern(message)
        return message, headers | routing

    def _bearer(self, account: str, scope: str = "mcp:full") -> dict[str, str]:
        return {"Authorization": f"Bearer {token(self._issuer, account, scope)}"}


def token(issuer: DevIssuer, account: str, scope: str = "mcp:full") -> str:
    return issuer.mint(sub=account, aud=AUDIENCE, scope=scope)


async def again_and_again(kind: Callable[[], Awaitable[Any]]) -> None:
    """Have this kind of client come; that it is not answered is what we are here for."""
    while True:
        with contextlib.suppress(httpx.HTTPError):
            await kind()
        await asyncio.sleep(BEAT_S)


async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """Be the upstream: well, slow, broken or silent, as it is asked to; a GET streams."""
    if request.method == "GET":
        return await stream(request)
    be = json.loads(body).get("params", {}).get("arguments", {}).get("be") if body else None
    if be == "broken":
        return web.Response(status=500)
    await asyncio.sleep({"slow": 0.1, "silent": 10.0}.get(str(be), 0.0))
    return await echo(request, body)


async def stream(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(b"data: {}\n\n")
        await asyncio.sleep(BEAT_S)
