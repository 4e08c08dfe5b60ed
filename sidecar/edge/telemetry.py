"""What this process tells about itself: one JSON line per request, and metrics with closed label sets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, cast

import orjson
import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)

from sidecar.denials import StoreUnavailable
from sidecar.edge.telemetry_durations import Durations
from sidecar.edge.telemetry_sink import LineSink
from sidecar.faults import place_of
from sidecar.model import Quota

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_GOOD_NEWS_OF_KEYS: Final = ("keys_changed", "keys_recovered")
_LINE: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_STORE_LINE_S: Final = 10.0

METRICS_TYPE: Final = CONTENT_TYPE_LATEST
Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""A metric's name, its text, its type, and its samples: each with name, labels and value."""


class Telemetry:
    """The log and the metrics of one sidecar. Values that a client chose never become labels.

    `worker` tells the lines of several processes apart.
    """

    def __init__(
        self,
        sink: BinaryIO,
        *,
        level: str,
        access: bool,
        worker: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writes_of = {level_of: access and _LEVELS[level_of] >= _LEVELS[level] for level_of in _LEVELS}
        self._worker = {} if worker is None else {"worker": worker}
        self._sink = LineSink(sink, is_shared=worker is not None)
        self._log = structlog.wrap_logger(
            structlog.BytesLogger(cast(BinaryIO, self._sink)),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
                structlog.processors.JSONRenderer(serializer=_dump),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            cache_logger_on_first_use=True,
        )
        if self._worker:
            self._log = self._log.bind(**self._worker)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("sidecar_requests", "Requests answered.", "route", "outcome", "era")
        self._count_of: dict[tuple[str, str, str], Counter] = {}
        self._seconds = self._histogram("sidecar_request_seconds", "From request head to the end of the answer.")
        self._upstream_seconds = self._histogram("sidecar_upstream_seconds", "From sending upstream to its head.")
        self._open_streams = Gauge(
            "sidecar_open_streams", "Answers being streamed.", ("route",), registry=self.registry
        )
        self._limit_decisions = self._counter("sidecar_limit_decisions", "By each limit.", "policy", "decision")
        self._decisions_of: dict[tuple[str, bool], Counter] = {}
        self._store_log = _StoreLog(clock)
        store_up = Gauge("sidecar_store_up", "1 when the store answered last.", registry=self.registry)
        store_up.set_function(lambda: self._store_log.is_up)
        self._store_failures = self._counter("sidecar_store_failures", "Calls the store has not answered.")
        self._auth_failures = self._counter("sidecar_auth_failures", "Credentials refused.", "reason")
        self._catalogue_tools = Gauge("sidecar_catalogue_tools", "Tools of the upstream.", registry=self.registry)
        dropped = Gauge("sidecar_log_lines_dropped", "Lines that could not be written.", registry=self.registry)
        dropped.set_function(lambda: self._sink.dropped)

    def event(self, name: str, *, level: str = "info", **members: Any) -> None:
        """Write one line that is not a request's."""
        self._log.log(_LEVELS[level], name, **members)

    def request(
        self,
        members: Mapping[str, Any],
        *,
        route: str,
        outcome: str,
        era: str,
        seconds: float,
        upstream_seconds: float | None,
        quotas: Iterable[Quota],
    ) -> None:
        """Write a request's line and count it. `route`, `outcome` and `era` come from closed sets.

        The line is like that of an event, without structlog's price. What is counted of each set of labels is kept at
        hand: there are as many as `labels()` itself keeps.
        """
        labels = (route, outcome, era)
        count = self._count_of.get(labels)
        if count is None:
            count = self._count_of[labels] = self._requests.labels(*labels)
        count.inc()
        self._seconds.observe(seconds)
        if upstream_seconds is not None:
            self._upstream_seconds.observe(upstream_seconds)
        self._count_decisions(quotas)
        level = "error" if outcome == "internal_error" else "info"
        if self._writes_of[level]:
            line = {"ts": datetime.now(UTC), "level": level, "event": "request", **self._worker, **members}
            self._sink.write(orjson.dumps(line, default=str, option=_LINE))

    def auth_failure(self, reason: str) -> None:
        """Count a refused credential."""
        self._auth_failures.labels(reason).inc()

    def stream_opened(self, route: str) -> None:
        """Count an answer that is being streamed."""
        self._open_streams.labels(route).inc()

    def stream_closed(self, route: str) -> None:
        """Count it no longer."""
        self._open_streams.labels(route).dec()

    def store(self, problem: StoreUnavailable | None) -> None:
        """Note whether the store answered, and if not, why; a line is written when that changes, but seldom."""
        if problem is None and self._store_log.is_up and self._store_log.told_up:
            return
        times = self._store_log.times_to_tell(is_up=problem is None)
        if problem is not None:
            self._store_failures.inc()
            if times:
                self.event("store_lost", level="error", problem=problem.detail or problem.reason, times=times)
        elif times:
            self.event("store_recovered", times=times)

    def key_set(self, issuer: str, what: str, detail: str) -> None:
        """Note what became of an issuer's key set."""
        level = "info" if what in _GOOD_NEWS_OF_KEYS else "warning"
        self.event(what, level=level, issuer=issuer, detail=detail)

    def catalogue(self, tools: int | None, problem: str) -> None:
        """Note how many tools the upstream has, or why that could not be found out."""
        if tools is None:
            self.event("catalogue_failed", level="warning", problem=problem)
        else:
            self._catalogue_tools.set(tools)

    def fault(self, fault: BaseException) -> None:
        """Note where a fault of ours arose that no request's line tells of."""
        self.event("fault", level="error", problem=place_of(fault))

    def finish(self) -> None:
        """Write the last lines; nothing is logged after this."""
        self._sink.finish()

    def exposition(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def families(self) -> list[Family]:
        """Return the metrics as plain data, for a process that adds up those of several."""
        return [
            (
                family.name,
                family.documentation,
                family.type,
                [(one.name, one.labels, one.value) for one in family.samples],
            )
            for family in self.registry.collect()
        ]

    def _count_decisions(self, quotas: Iterable[Quota]) -> None:
        judged = tuple(quotas)
        refused = [quota for quota in judged if quota.retry_s > 0]
        for quota in refused or judged:
            labels = (quota.limit.name, bool(refused))
            count = self._decisions_of.get(labels)
            if count is None:
                decision = "refused" if refused else "allowed"
                count = self._decisions_of[labels] = self._limit_decisions.labels(quota.limit.name, decision)
            count.inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Durations:
        return Durations(name, text, _SECONDS, self.registry)


class _StoreLog:
    """When is a line due about the store? One of each kind in ten seconds, however often it comes and goes.

    The last line always comes to say how things are: one that is not due yet is written when it is, if it still holds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.is_up = self.told_up = True
        self._times = {True: 0, False: 0}
        self._due_at = dict.fromkeys((True, False), -math.inf)

    def times_to_tell(self, *, is_up: bool) -> int:
        """Note how the store is, and return how often it has become so since that was last told; 0: tell nothing."""
        if is_up != self.is_up:
            self.is_up = is_up
            self._times[is_up] += 1
        if is_up == self.told_up or self._clock() < self._due_at[is_up]:
            return 0
        self.told_up = is_up
        self._due_at[is_up] = self._clock() + _STORE_LINE_S
        times, self._times[is_up] = self._times[is_up], 0
        return times


def _dump(line: dict[str, Any], **_: Any) -> bytes:
    ordered = {"ts": line.pop("ts"), "level": line.pop("level"), "event": line.pop("event"), **line}
    return orjson.dumps(ordered, default=str)
