"""The second port, for the orchestrator and Prometheus: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from aiohttp import web

Status = Literal["ready", "degraded", "not_ready", "draining"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests should be sent here, and what was found."""

    status: Status
    checks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def http_status(self) -> int:
        return 200 if self.status in ("ready", "degraded") else 503


def admin_application(
    *, readiness: Callable[[], Awaitable[Readiness]], metrics: Callable[[], bytes], metrics_type: str
) -> web.Application:
    """Return the application of the admin listener."""

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
        return web.Response(body=metrics(), headers={"Content-Type": metrics_type})

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", exposition)
    return application
