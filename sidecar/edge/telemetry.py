"""What this process tells about itself: one JSON line per request, and metrics with closed label sets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
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
from sidecar.edge.telemetry_durations import Counts, Durations
from sidecar.edge.telemetry_lag import LoopLag
from sidecar.edge.telemetry_pins import Pins
from sidecar.edge.telemetry_requests import Limiting, Requests
from sidecar.edge.telemetry_sink import LineSink
from sidecar.edge.telemetry_state import State
from sidecar.edge.telemetry_watched import Watched
from sidecar.faults import place_of
from sidecar.model import Quota

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_STORE_SECONDS: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
_GOOD_NEWS_OF_KEYS: Final = ("keys_changed", "keys_recovered")
_LINE: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_STORE_LINE_S: Final = 10.0

CONFIRMATION_OUTCOMES: Final = (
    *("asked", "approval_needed", "confirmed", "declined", "cancelled", "timed_out", "replayed"),
    *("too_large", "too_many"),
)
"""What becomes of calls that a person has to confirm."""
WEBHOOK_OUTCOMES: Final = ("delivered", "retried", "failed", "dropped")
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
        self._worker = {} if worker is None else {"worker": worker}
        self._sink = LineSink(sink, is_shared=worker is not None)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Requests(self.registry)
        self._limiting = Limiting(self.registry)
        self._open_streams = Gauge(
            "sidecar_open_streams", "Answers being streamed.", ("route",), registry=self.registry
        )
        self._streams_of: dict[str, Gauge] = {}
        self.state = State(self.registry, clock=clock)
        """What is so at present, told by those who make it so."""
        self.watched = Watched(self.registry)
        """What is asked of other parts when somebody wants to know."""
        self.pins = Pins(self.registry, self.event)
        """How the definitions of the upstream's tools stand."""
        self.use(level=level, access=access)
        self._store_log = _StoreLog(clock)
        store_up = Gauge("sidecar_store_up", "1 when the store answered last.", registry=self.registry)
        store_up.set_function(lambda: self._store_log.is_up)
        self._store_failures = Counter(
            "sidecar_store_failures", "Calls the store has not answered.", registry=self.registry
        )
        self._store_seconds = Durations(
            "sidecar_store_seconds",
            "One trip to Redis, or one change of the embedded store's file.",
            _STORE_SECONDS,
            self.registry,
        )
        self.store_trip = self._store_seconds.observe
        """Take note of how long a trip to the store took, in seconds, well or badly."""
        self._auth_failures = Counts("sidecar_auth_failures", "Credentials refused.", ("reason",), self.registry)
        self._confirmations, self._webhooks = _confirming(self.registry)
        self.loop_lag = LoopLag(self.registry)
        self._bad_handshakes = Counter(
            "sidecar_tls_handshake_failures", "Clients that did not agree on TLS.", registry=self.registry
        )
        self._faults = Counter("sidecar_faults", "Faults of ours that nobody foresaw.", registry=self.registry)
        dropped = Gauge("sidecar_log_lines_dropped", "Lines that could not be written.", registry=self.registry)
        dropped.set_function(lambda: self._sink.dropped)

    def use(self, *, level: str, access: bool, shadowed: Collection[str] = ()) -> None:
        """Write lines of this level and above from now on, and of requests too where `access`.

        `shadowed` names the rules that are in shadow mode.
        """
        self.state.shadow.use(shadowed)
        self._writes_of = {level_of: access and _LEVELS[level_of] >= _LEVELS[level] for level_of in _LEVELS}
        self._log = _logger(self._sink, _LEVELS[level]).bind(**self._worker)

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
        quotas: Sequence[Quota],
        own_seconds: float | None = None,
        upstream_status: int | None = None,
        shadowed: Collection[str] = (),
    ) -> None:
        """Write a request's line and count it; see `ports.Observer`.

        The line is like that of an event, without structlog's price.
        """
        self._requests.add((route, outcome, era), seconds, own_seconds)
        if upstream_seconds is not None:
            self._requests.add_upstream(upstream_seconds, upstream_status)
        if quotas:
            self._limiting.add(quotas, shadowed="limits" in shadowed)
        for rule in shadowed:
            self.state.shadow.refusal(rule)
        level = "info"
        if outcome == "internal_error":
            level = "error"
            self._faults.inc()
        if self._writes_of[level]:
            line = {"ts": datetime.now(UTC), "level": level, "event": "request", **self._worker, **members}
            self._sink.write(orjson.dumps(line, default=str, option=_LINE))

    def bad_handshake(self) -> None:
        """Count a client that has connected and not agreed with us on TLS."""
        self._bad_handshakes.inc()

    def confirmation(self, outcome: str) -> None:
        """Take note of what became of a call that a person has to confirm."""
        self._confirmations.add(outcome)

    def webhook(self, approval: str, outcome: str, problem: str | None) -> None:
        """Take note of what became of telling somebody of a call that waits for an approval."""
        self._webhooks.add(outcome)
        if outcome != "delivered":
            event = "webhook_retried" if outcome == "retried" else "webhook_failed"
            self.event(event, level="warning", approval=approval, problem=problem or "too many wait")

    def auth_failure(self, reason: str) -> None:
        """Count a refused credential."""
        self._auth_failures.add(reason)

    def limit_refusal(self, policy: str) -> None:
        """Count a refusal by a limit that is judged by itself; see `ports.Observer`."""
        self._limiting.add_refusal(policy)

    def stream_opened(self, route: str) -> None:
        """Count an answer that is being streamed."""
        streams = self._streams_of.get(route)
        if streams is None:
            streams = self._streams_of[route] = self._open_streams.labels(route)
        streams.inc()

    def stream_closed(self, route: str) -> None:
        """Count it no longer."""
        self._streams_of[route].dec()

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

    def store_moved(self, masters: Sequence[str]) -> None:
        """Write where the masters are now: what a former one had confirmed in its last moment may be lost."""
        self.event("store_moved", level="warning", masters=list(masters))

    @property
    def store_is_up(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._store_log.is_up

    def key_set(self, issuer: str, what: str, detail: str) -> None:
        """Note what became of an issuer's key set."""
        level = "info" if what in _GOOD_NEWS_OF_KEYS else "warning"
        self.event(what, level=level, issuer=issuer, detail=detail)

    def catalogue(self, tools: int | None, problem: str, changed: bool = False) -> None:
        """Note how many tools the upstream has and whether they are others than before, or why nobody knows."""
        self.state.catalogue_fetched(tools, changed=changed)
        if tools is None:
            self.event("catalogue_failed", level="warning", problem=problem)

    def reloaded(self, ok: bool) -> None:
        """Note that new settings have taken effect, or that they could not and the old ones still hold."""
        self.state.reloaded(ok)

    def fault(self, fault: BaseException) -> None:
        """Note where a fault of ours arose that no request's line tells of."""
        self._faults.inc()
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


def _logger(sink: LineSink, level: int) -> structlog.typing.FilteringBoundLogger:
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(cast(BinaryIO, sink)),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return logger


def _confirming(registry: CollectorRegistry) -> tuple[Counts, Counts]:
    """Return the counts of calls that a person has to confirm, and of those that were told to others."""
    asked, told = ([(outcome,) for outcome in each] for each in (CONFIRMATION_OUTCOMES, WEBHOOK_OUTCOMES))
    about, of_telling = "Calls that a person has to confirm.", "What was told of calls that wait for an approval."
    return (
        Counts("sidecar_confirmations", about, ("outcome",), registry, known=asked),
        Counts("sidecar_webhook_deliveries", of_telling, ("outcome",), registry, known=told),
    )


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
