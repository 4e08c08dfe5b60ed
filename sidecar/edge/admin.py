"""The second port, for the orchestrator and Prometheus: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
from aiohttp import web

Status = Literal["ready", "degraded", "not_ready", "draining"]
_FROM_BEST_TO_WORST: Final[tuple[Status, ...]] = ("ready", "degraded", "draining", "not_ready")
KEEP_ALIVE_S: Final = 75.0
"""How long a connection waits for the whole head of a request: longer than it is from one scrape to the next."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests should be sent here, and what was found."""

    status: Status
    checks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def http_status(self) -> int:
        return 200 if self.status in ("ready", "degraded") else 503

    @classmethod
    def of_all(cls, found: Iterable[Readiness]) -> Readiness:
        """Return what holds for several processes that serve one port: of status and of each check, the worst."""
        several = tuple(found)
        status = max((one.status for one in several), key=_FROM_BEST_TO_WORST.index)
        return cls(status, _worst(tuple(one.checks for one in several)))


@contextlib.asynccontextmanager
async def admin_port(
    host: str,
    port: int,
    *,
    readiness: Callable[[], Awaitable[Readiness]],
    metrics: Callable[[], Awaitable[bytes]],
    metrics_type: str,
) -> AsyncIterator[str]:
    """Listen for the orchestrator and Prometheus; yield the URL, which port 0 leaves to the system.

    Raises:
        OSError: the port can't be had.
    """
    application = _application(readiness, metrics, metrics_type)
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=KEEP_ALIVE_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield http_url(runner.addresses[0])
    finally:
        await runner.cleanup()


def http_url(address: tuple[Any, ...]) -> str:
    """Return the URL of a socket's address."""
    host, port = address[0], address[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _application(
    readiness: Callable[[], Awaitable[Readiness]], metrics: Callable[[], Awaitable[bytes]], metrics_type: str
) -> web.Application:
    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        found = await readiness()
        return web.Response(
            status=found.http_status,
            body=orjson.dumps({"status": found.status, "checks": found.checks}),
            content_type="application/json",
        )

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": metrics_type})

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", exposition)
    return application


def _worst(checks: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in checks for name in one):
        values = [one[name] for one in checks if name in one]
        if isinstance(values[0], Mapping):
            merged[name] = _worst(tuple(values))
        else:
            merged[name] = next((value for value in values if value != "ok"), "ok")
    return merged
