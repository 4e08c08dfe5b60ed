"""What do several processes count together?"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.edge.telemetry import Family

OF_GAUGES: Final[dict[str, Callable[[float, float], float]]] = {
    # The worst of all: one that is in trouble must not be hidden by others that are well.
    "sidecar_store_up": min,
    "sidecar_draining": max,
    "sidecar_shadow_mode": max,
    "sidecar_config_last_reload_success": min,
    "sidecar_key_set_age_seconds": max,
    "sidecar_key_set_last_success_timestamp_seconds": min,
    "sidecar_key_set_stale_seconds": max,
    "sidecar_key_set_usable_keys": min,
    "sidecar_tls_certificate_expiry_timestamp_seconds": min,
    "sidecar_catalogue_age_seconds": max,
    "sidecar_catalogue_last_success_timestamp_seconds": min,
    # Two processes that see the same ten tools do not see twenty.
    "sidecar_build_info": max,
    "sidecar_catalogue_tools": max,
    "sidecar_catalogue_definitions": max,
    "process_start_time_seconds": min,
    # What each has for itself is had by all together.
    "sidecar_open_streams": operator.add,
    "sidecar_open_connections": operator.add,
    "sidecar_max_connections": operator.add,
    "sidecar_log_lines_dropped": operator.add,
    "sidecar_audit_waiting": operator.add,
    "process_virtual_memory_bytes": operator.add,
    "process_resident_memory_bytes": operator.add,
    "process_open_fds": operator.add,
    "process_max_fds": operator.add,
}
"""What the gauges of several processes are together. Counters and histograms are added."""
_LASTING: Final = ("counter", "histogram")


def exposition(processes: Iterable[Iterable[Family]]) -> bytes:
    """Return the sum in Prometheus' text format. It says nothing of when a series began, which has no sum."""
    return generate_latest(_Sum(processes))


def lasting(processes: Iterable[Iterable[Family]]) -> list[Family]:
    """Return the sum of what only ever grows.

    It is kept of processes that have ended. Without it the sum would fall at their end, which Prometheus takes for
    a restart from zero, and then `rate()` adds everything that the others have counted once more.
    """
    return [family for family in _added(processes) if family[2] in _LASTING]


class _Sum(Collector):
    def __init__(self, processes: Iterable[Iterable[Family]]) -> None:
        self._families = _added(processes)

    def collect(self) -> Iterator[Metric]:
        for name, text, kind, samples in self._families:
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric


def _added(processes: Iterable[Iterable[Family]]) -> list[Family]:
    heads: dict[str, tuple[str, str]] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for name, text, kind, samples in (family for process in processes for family in process):
        heads.setdefault(name, (text, kind))
        values = sums.setdefault(name, {})
        add: Callable[[float, float], float] = OF_GAUGES.get(name, operator.add)
        for sample, labels, value in samples:
            series = (sample, tuple(labels.items()))
            if not sample.endswith("_created"):
                values[series] = add(values[series], value) if series in values else value
    return [
        (name, *heads[name], [(sample, dict(labels), value) for (sample, labels), value in values.items()])
        for name, values in sums.items()
    ]
