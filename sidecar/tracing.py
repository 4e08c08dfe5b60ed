"""How traces are put together from the settings: one tracer for the process, and what tells it of requests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from sidecar.config import Config
from sidecar.edge.http.traced import Traced
from sidecar.edge.telemetry import Telemetry
from sidecar.edge.telemetry_state import version
from sidecar.policy.tracing import of_place
from sidecar.ports import Tracer


@contextlib.asynccontextmanager
async def tracer(config: Config, telemetry: Telemetry) -> AsyncIterator[Tracer | None]:
    """Keep what sends traces, to the last of them; None where none are wanted, and then nothing of it is imported.

    Raises:
        ValueError: a variable of OpenTelemetry's in the environment means nothing.
    """
    if config.tracing.otlp_endpoint is None:
        yield None
        return
    from sidecar.edge.tracing import OtlpTracer  # packages of the extra, which config has made sure are there

    def report(event: str, problem: str | None) -> None:
        if problem is None:
            telemetry.event(event)
        else:
            telemetry.event(event, level="warning", problem=problem)

    kept = OtlpTracer(config.tracing.otlp_endpoint, version=version(), registry=telemetry.registry, report=report)
    try:
        yield kept
    finally:
        await kept.aclose()


def traced(config: Config, tracer: Tracer | None) -> Traced | None:
    """Return what tells the tracer of requests; None without one."""
    if tracer is None:
        return None
    upstream = config.upstream
    return Traced(tracer, here=of_place(config.public_url), there=of_place(upstream.url, upstream.socket))
