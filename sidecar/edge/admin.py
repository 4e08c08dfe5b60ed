"""The second port, for the orchestrator and Prometheus: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

Status = Literal["ready", "degraded", "not_ready", "draining"]
_FROM_BEST_TO_WORST: Final[tuple[Status, ...]] = ("ready", "degraded", "draining", "not_ready")
PATHS: Final = ("/livez", "/readyz", "/metrics")
_NAME: Final = "sidecar"
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
    report_fault: Callable[[BaseException], None],
) -> AsyncIterator[str]:
    """Listen for the orchestrator and Prometheus; yield the URL, which port 0 leaves to the system.

    `report_fault` is told of our own faults, of which whoever asked hears nothing.

    Raises:
        OSError: the port can't be had.
    """

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path not in PATHS:
            return _refusal(404)
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, Allow="GET, HEAD")
        if path == "/livez":
            return web.Response(text="ok\n")
        try:
            if path == "/metrics":
                return web.Response(body=await metrics(), headers={"Content-Type": metrics_type})
            return _told(await readiness())
        except Exception as fault:
            report_fault(fault)
            return _refusal(500)

    runner = web.ServerRunner(_Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield http_url(runner.addresses[0])
    finally:
        await runner.cleanup()


def http_url(address: tuple[Any, ...], *, tls: bool = False) -> str:
    """Return the URL of a socket's address."""
    scheme, host, port = "https" if tls else "http", address[0], address[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _Server(web.Server):
    """A low-level server, every answer of which says the same of what serves it."""

    def __init__(self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        async def signed(request: web.BaseRequest) -> web.StreamResponse:
            response = await answer(request)
            response.headers["Server"] = _NAME
            return response

        super().__init__(signed, keepalive_timeout=KEEP_ALIVE_S, access_log=None)

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a head that could not be parsed, with nothing of what it held, here or in a log."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun and cannot be taken back")
        return _refusal(status, Server=_NAME)


def _refusal(status: int, **headers: str) -> web.Response:
    response = web.Response(status=status, headers=headers)
    response.force_close()
    return response


def _told(found: Readiness) -> web.Response:
    document = orjson.dumps({"status": found.status, "checks": found.checks})
    return web.Response(status=found.http_status, body=document, content_type="application/json")


def _worst(checks: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in checks for name in one):
        values = [one[name] for one in checks if name in one]
        if isinstance(values[0], Mapping):
            merged[name] = _worst(tuple(values))
        else:
            merged[name] = next((value for value in values if value != "ok"), "ok")
    return merged
