"""An OpenTelemetry collector: takes traces by OTLP over HTTP and keeps what they say."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_KINDS = {2: "server", 3: "client"}
_ERROR = 2


@dataclass(frozen=True, slots=True)
class Exported:
    """A span as it arrived."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    links: tuple[tuple[str, str], ...]
    """Trace and span of each."""
    attributes: Mapping[str, Any]
    is_error: bool
    problem: str
    seconds: float
    resource: Mapping[str, Any]


class Collector:
    """Keeps the spans it is sent; `status` other than 200 refuses them, and while `is_stuck` nothing is answered."""

    def __init__(self) -> None:
        self.spans: list[Exported] = []
        self.headers: list[Mapping[str, str]] = []
        self.status = 200
        self.is_stuck = False
        self.url = ""
        self._asked = asyncio.Condition()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        assert (request.method, request.path) == ("POST", "/v1/traces")
        assert request.content_type == "application/x-protobuf"
        self.headers.append(dict(request.headers))
        if self.is_stuck:
            async with self._asked:
                self._asked.notify_all()
            await asyncio.Event().wait()
        if self.status == 200:
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        async with self._asked:
            self._asked.notify_all()
        return web.Response(status=self.status, content_type="application/x-protobuf")

    async def having(self, count: int) -> list[Exported]:
        """Wait until so many spans have come, and return them: those of clients before those of upstreams."""
        async with asyncio.timeout(10), self._asked:
            await self._asked.wait_for(lambda: len(self.spans) >= count)
        assert len(self.spans) == count, [span.name for span in self.spans]
        return sorted(self.spans, key=lambda span: span.kind, reverse=True)

    async def asked(self, times: int = 1) -> None:
        """Wait until it has been asked so often."""
        async with asyncio.timeout(10), self._asked:
            await self._asked.wait_for(lambda: len(self.headers) >= times)

    @asynccontextmanager
    async def running(
        self, listener: socket.socket | None = None, tls: tuple[str, str] | None = None
    ) -> AsyncIterator[Collector]:
        """Serve at this socket, else at a free port; `tls` names files with a certificate and its key."""
        context = None
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*tls)
        runner = web.ServerRunner(web.Server(self._handle, handler_cancellation=True), shutdown_timeout=0.1)
        await runner.setup()
        taken = socket.create_server(("127.0.0.1", 0)) if listener is None else listener
        await web.SockSite(runner, taken, ssl_context=context).start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


def _spans(request: ExportTraceServiceRequest) -> list[Exported]:
    return [
        Exported(
            name=span.name,
            kind=_KINDS[span.kind],
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            state=span.trace_state,
            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
            attributes=_plain(span.attributes),
            is_error=span.status.code == _ERROR,
            problem=span.status.message,
            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
            resource=_plain(group.resource.attributes),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
