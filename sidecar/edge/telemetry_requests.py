"""What is counted of each request: how many, how long, and how near to its limits. A few additions each, no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.edge.telemetry_durations import Buckets, Counts, Distribution, Durations, total
from sidecar.model import Quota

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OWN_SECONDS: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_USED: Final = (0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 1.0)
_NO_ANSWER: Final = "none"


class Requests(Collector):
    """Number and duration of requests by route, outcome and era, and the whole that these are parts of.

    A request is added to one series of buckets; the counter and the histogram without labels are sums of these, made
    when somebody asks.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._parts = Distribution(
            "sidecar_route_seconds",
            "From request head to the end of the answer, by route, outcome and era.",
            ("route", "outcome", "era"),
            SECONDS,
            registry,
        )
        self._own = Distribution(
            "sidecar_own_seconds",
            "From request head to sending it upstream or refusing it, without waiting for the client's body.",
            ("route",),
            OWN_SECONDS,
            registry,
        )
        self._upstream = Durations(
            "sidecar_upstream_seconds", "From sending upstream to its head, or to giving up.", SECONDS, registry
        )
        self._answers = Counts("sidecar_upstream_answers", "Answers of the upstream.", ("status",), registry)
        self._series: dict[tuple[str, str, str], tuple[Buckets, Buckets]] = {}
        registry.register(self)

    def add(self, labels: tuple[str, str, str], seconds: float, own_seconds: float | None) -> None:
        """Count a request by route, outcome and era."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = (self._parts.of(*labels), self._own.of(labels[0]))
        series[0].observe(seconds)
        if own_seconds is not None:
            series[1].observe(own_seconds)

    def add_upstream(self, seconds: float, status: int | None) -> None:
        """Count what was sent upstream; `status` is None where no answer came."""
        self._upstream.observe(seconds)
        self._answers.add(_NO_ANSWER if status is None else _CLASSES.get(status // 100, "other"))

    def collect(self) -> Iterator[Metric]:
        count = Metric("sidecar_requests", "Requests answered.", "counter")
        for (route, outcome, era), buckets in self._parts.by_labels.items():
            labels = {"route": route, "outcome": outcome, "era": era}
            count.add_sample("sidecar_requests_total", labels, float(sum(buckets.counts)))
        yield count
        whole = Metric("sidecar_request_seconds", "From request head to the end of the answer.", "histogram")
        total(self._parts.by_labels.values(), SECONDS).add_to(whole, {})
        yield whole


class _Policy:
    """What one limit decided, and how much of it each request left used that came nearest to this one."""

    __slots__ = ("allowed", "refused", "shadowed", "used")

    def __init__(self) -> None:
        self.allowed = self.refused = self.shadowed = 0
        self.used = Buckets(_USED)


class Limiting(Collector):
    """What the limits decided, and how near to the tightest of them each request came."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._policies: defaultdict[str, _Policy] = defaultdict(_Policy)
        registry.register(self)

    def add(self, quotas: Sequence[Quota], *, shadowed: bool = False) -> None:
        """Count what the limits said of one request. Where some refused, the others were not spent from.

        `shadowed`: what they refused was let pass, because limits are in shadow mode.
        """
        refused = [quota for quota in quotas if quota.retry_s > 0]
        least, tightest = 2.0, None
        for quota in refused or quotas:
            limit = quota.limit
            policy = self._policies[limit.name]
            if not refused:
                policy.allowed += 1
            elif shadowed:
                policy.shadowed += 1
            else:
                policy.refused += 1
            left = quota.remaining / limit.requests
            if left < least:
                least, tightest = left, policy
        if tightest is not None:
            tightest.used.observe(1.0 - least)

    def add_refusal(self, policy: str) -> None:
        """Count a refusal by a limit that is judged by itself."""
        self._policies[policy].refused += 1

    def collect(self) -> Iterator[Metric]:
        decisions = Metric("sidecar_limit_decisions", "By each limit.", "counter")
        used = Metric(
            "sidecar_limit_used_ratio",
            "Share of the tightest limit that is used, as each request left it.",
            "histogram",
        )
        for name, policy in self._policies.items():
            decided = {"allowed": policy.allowed, "refused": policy.refused, "shadowed": policy.shadowed}
            for decision, count in decided.items():
                if count:
                    labels = {"policy": name, "decision": decision}
                    decisions.add_sample("sidecar_limit_decisions_total", labels, float(count))
            if any(policy.used.counts):
                policy.used.add_to(used, {"policy": name})
        yield decisions
        yield used


_CLASSES: Final = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}
