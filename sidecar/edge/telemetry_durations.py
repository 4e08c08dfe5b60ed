"""How long did things take? A histogram that costs little to add to."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Durations(Collector):
    """Looks to Prometheus like the library's own `Histogram` without labels, at a tenth of its price.

    `bounds_s` are the upper bounds of the buckets, ascending; one without a bound is added. For one thread.
    """

    def __init__(self, name: str, text: str, bounds_s: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._text = text
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(self._bounds_s) + 1)
        self._sum_s = 0.0
        self._created = time.time()
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Add one duration."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def collect(self) -> Iterator[Metric]:
        metric = Metric(self._name, self._text, "histogram")
        for bound_s, count in zip((*self._bounds_s, float("inf")), accumulate(self._counts), strict=True):
            bound: str = floatToGoString(bound_s)  # type: ignore[no-untyped-call]  # the library has not typed it
            metric.add_sample(f"{self._name}_bucket", {"le": bound}, float(count))
        metric.add_sample(f"{self._name}_count", {}, float(sum(self._counts)))
        metric.add_sample(f"{self._name}_sum", {}, self._sum_s)
        metric.add_sample(f"{self._name}_created", {}, self._created)
        yield metric
