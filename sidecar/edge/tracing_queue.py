"""Spans that wait to be sent: how many, what became of them, and who is told when a collector is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.edge.tracing_client import OtlpClient

_MAX_QUEUE_SIZE: Final = 2048
_AT_ONCE: Final = 16
_BREATH_S: Final = 0.0005
"""A batch takes 40 ms to encode, in which the event loop would get the interpreter once in 5 ms: hence the pauses."""

Tell = Callable[[str, str | None], None]
"""Hears an event's name, and the problem that it is, if it is one. It is called in the thread that sends."""


class Queue(SpanProcessor):
    """The SDK's bounded queue, which never overflows: what it has no room for is counted here and not put in.

    Raises:
        ValueError: what the environment says of it is impossible.
    """

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._room = _room()
        try:
            self._batches = BatchSpanProcessor(exporter, max_queue_size=self._room)
        except ValueError as error:
            raise ValueError(f"OTEL_BSP_* in the environment: {error}") from error
        self._taken = 0
        self.dropped = 0

    def on_end(self, span: ReadableSpan) -> None:
        if not span.context or not span.context.trace_flags.sampled:
            return
        # Each number has one thread that writes it, so that none of them needs a lock.
        if self._taken - self._exporter.begun >= self._room:
            self.dropped += 1
            return
        self._taken += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call, unused-ignore]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)


class Exporter(SpanExporter):
    """Sends batches, in the SDK's thread; counts, and tells when the collector is lost and found again."""

    def __init__(self, client: OtlpClient, tell: Tell) -> None:
        self._client = client
        self._tell = tell
        self._is_lost = False
        self.begun = self.exported = self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun += len(spans)
        problem = self._client.send(_encoded(spans))
        if problem is None:
            self.exported += len(spans)
        else:
            self.failed += len(spans)
        if (problem is not None) != self._is_lost:
            self._is_lost = problem is not None
            self._tell("traces_lost" if self._is_lost else "traces_recovered", problem)
        return SpanExportResult.SUCCESS if problem is None else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._client.give_up()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class SpanCounts(Collector):
    """What became of spans."""

    def __init__(self, queue: Queue, exporter: Exporter) -> None:
        self._queue = queue
        self._exporter = exporter

    def collect(self) -> Iterator[Metric]:
        spans = Metric("sidecar_trace_spans", "Spans that were to be sent, by what became of them.", "counter")
        counts = {
            "exported": self._exporter.exported,
            "failed": self._exporter.failed,
            "dropped": self._queue.dropped,
        }
        for outcome, count in counts.items():
            spans.add_sample("sidecar_trace_spans_total", {"outcome": outcome}, count)
        yield spans


def _encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """Return a batch as OTLP has it: messages of Protocol Buffers one after another are one with the lists of all."""
    pieces = []
    for first in range(0, len(spans), _AT_ONCE):
        pieces.append(encode_spans(spans[first : first + _AT_ONCE]).SerializeToString())
        time.sleep(_BREATH_S)
    return b"".join(pieces)


def _room() -> int:
    """Return how many spans may wait."""
    said = os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE, "").strip() or str(_MAX_QUEUE_SIZE)
    if not (said.isascii() and said.isdecimal() and len(said) < 10):
        raise ValueError(f"{OTEL_BSP_MAX_QUEUE_SIZE} must be a number of spans")
    return int(said)
