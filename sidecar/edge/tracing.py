"""`ports.Tracer` by OpenTelemetry: spans wait in memory and are sent by OTLP over HTTP, in a thread of their own.

The packages of the extra ``otel`` are needed to import this. What the SDK reads from the environment counts: sampling
(`OTEL_TRACES_SAMPLER*`), the resource, the queue (`OTEL_BSP_*`); `tracing_client` says what of `OTEL_EXPORTER_OTLP_*`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry

from sidecar.edge.tracing_client import OtlpClient
from sidecar.edge.tracing_queue import Exporter, Queue, SpanCounts
from sidecar.ports import Span

FLUSH_S: Final = 2.0
"""How long a collector has to take the last spans when the process ends."""
_LONGEST_PROBLEM: Final = 200
_MOST_TOLD: Final = 8
_NS: Final = 1_000_000_000
_TOLD: Final = "opentelemetry.sdk"
"""Loggers that speak of settings and of the queue. Others may repeat what a client has sent."""

_SAMPLERS: Final = ("always_on", "always_off", "traceidratio")
_RATIO: Final = "traceidratio"
Report = Callable[[str, str | None], None]
"""Hears an event's name, and the problem that it is, if it is one. It is called on the event loop."""


class OtlpTracer:
    """Sends spans to a collector, from the event loop that runs when this is made.

    At most `OTEL_BSP_MAX_QUEUE_SIZE` (2048) spans wait; when the collector does not take them, more are dropped and
    counted.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        version: str,
        registry: CollectorRegistry,
        report: Report,
        flush_s: float = FLUSH_S,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._has_ended = False

        def told(event: str, problem: str | None) -> None:
            if not self._has_ended:
                report(event, problem)

        def tell(event: str, problem: str | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody is left to be told
                loop.call_soon_threadsafe(told, event, problem)

        _require_sampler(os.environ)
        self._flush_s = flush_s
        self._client = OtlpClient(endpoint, os.environ, agent=f"mcp-sidecar/{version}")
        self._sdk_log = _SdkLog(tell)
        exporter = Exporter(self._client, tell)
        queue = Queue(exporter)
        ours = {"service.name": "mcp-sidecar", "service.version": version, "service.instance.id": str(uuid.uuid4())}
        resource = Resource.create().merge(Resource(ours)).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(queue)
        self._tracer = self._provider.get_tracer("mcp-sidecar", version)
        registry.register(SpanCounts(queue, exporter))

    def request(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        *,
        parent: Mapping[str, str],
        linked: Mapping[str, str],
        age_s: float,
    ) -> Span:
        """Begin the span of a request; see `ports.Tracer`."""
        link = _context_of(linked)
        return _Span(
            self._tracer.start_span(
                name,
                _context_of(parent),
                SpanKind.SERVER,
                attributes,
                links=[Link(get_current_span(link).get_span_context())] if linked else (),
                start_time=time.time_ns() - int(age_s * _NS),
            )
        )

    def call(self, name: str, attributes: Mapping[str, str | int], *, within: Span) -> Span:
        """Begin the span of what is asked of another; see `ports.Tracer`."""
        assert isinstance(within, _Span)  # noqa: S101 - a tracer is given its own spans
        return _Span(self._tracer.start_span(name, within.context(), SpanKind.CLIENT, attributes))

    async def aclose(self) -> None:
        """Send what waits, for `flush_s` at most; what the collector has not taken by then is lost."""
        flushed, loop = asyncio.Event(), asyncio.get_running_loop()

        def flush() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waited for so long
                loop.call_soon_threadsafe(flushed.set)

        # Not one of the loop's own threads: those are waited for when the process ends, and this may hang for long.
        threading.Thread(target=flush, name="tracing-flush", daemon=True).start()
        try:
            async with asyncio.timeout(self._flush_s):
                await flushed.wait()
        except TimeoutError:
            self._client.give_up()
        self._has_ended = True
        self._sdk_log.close()


class _Span:
    """A span of the SDK as `ports.Span`."""

    __slots__ = ("_span", "trace_id")

    def __init__(self, span: SdkSpan) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}" if context.is_valid else ""

    def context(self) -> Context:
        return set_span_in_context(self._span, Context())

    def carrier(self) -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        if self.trace_id:
            _W3C.inject(carrier, self.context())
        return carrier

    def end(self, attributes: Mapping[str, str | int], error: str | None) -> None:
        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error or None))
        self._span.end()


class _SdkLog(logging.Handler):
    """Tells what the SDK says, each thing once, which would else go to standard error."""

    def __init__(self, tell: Report) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._told: set[str] = set()
        self._logger = logging.getLogger("opentelemetry")
        self._propagated, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[0] if record.exc_info else None
        said = record.getMessage()[:_LONGEST_PROBLEM] + (f" ({fault.__name__})" if fault else "")
        if record.name.startswith(_TOLD) and said not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(said)
            self._tell("tracing_warning", said)

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
        super().close()


_W3C: Final = TraceContextTextMapPropagator()


def _context_of(carrier: Mapping[str, str]) -> Context:
    """Return the context that a client's headers name. None of ours is ever taken from the surroundings."""
    return _W3C.extract(carrier, Context()) if carrier else Context()


def _require_sampler(environment: Mapping[str, str]) -> None:
    """Refuse what the SDK would only warn of, and then record everything.

    Raises:
        ValueError: naming the variable.
    """
    name = environment.get(OTEL_TRACES_SAMPLER, "").strip()
    base = name.lower().removeprefix("parentbased_")
    if name and base not in _SAMPLERS and not entry_points(group="opentelemetry_traces_sampler", name=name):
        known = ", ".join((*_SAMPLERS, *(f"parentbased_{one}" for one in _SAMPLERS)))
        raise ValueError(f"{OTEL_TRACES_SAMPLER} must be one of {known}")
    ratio = environment.get(OTEL_TRACES_SAMPLER_ARG, "").strip()
    if base == _RATIO and ratio and not _is_share(ratio):
        raise ValueError(f"{OTEL_TRACES_SAMPLER_ARG} must be a number from 0 to 1")


def _is_share(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= 1.0
    except ValueError:
        return False
