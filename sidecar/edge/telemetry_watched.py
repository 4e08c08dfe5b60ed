"""What other parts know of themselves, asked when somebody wants to know: it costs requests nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.bounded import Lookups
from sidecar.model import KeySetState

_KEY_SET_GAUGES: Final[Mapping[str, tuple[str, Callable[[KeySetState], float | None]]]] = {
    "sidecar_key_set_age_seconds": ("Since the issuer's key set was last fetched.", lambda state: state.age_s),
    "sidecar_key_set_last_success_timestamp_seconds": (
        "When the issuer's key set was last fetched.",
        lambda state: None if state.age_s is None else time.time() - state.age_s,
    ),
    "sidecar_key_set_stale_seconds": (
        "For how long the issuer's key set has been used beyond its lifetime; 0 while it is fresh.",
        lambda state: state.stale_s,
    ),
    "sidecar_key_set_usable_keys": ("Keys that the issuer's tokens may be signed with.", lambda state: state.keys),
}


class Watched(Collector):
    """Asks whoever was named last: parts may be replaced while the process runs."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.key_sets: Callable[[], Mapping[str, KeySetState]] = dict
        self.certificate_expires_at: float | None = None
        """Unix seconds; None where TLS is not served."""
        self._connections: Callable[[], int] | None = None
        self._max_connections = 0
        self.lookups = {name: Lookups() for name in ("token", "key")}
        registry.register(self)

    def connections_of(self, count: Callable[[], int], most: int) -> None:
        """Ask this for the number of connections, of which there can be so many."""
        self._connections, self._max_connections = count, most

    def collect(self) -> Iterator[Metric]:
        yield self._caches()
        yield from self._key_sets()
        if self.certificate_expires_at is not None:
            name = "sidecar_tls_certificate_expiry_timestamp_seconds"
            yield _gauge(name, "When the certificate that clients are shown expires.", self.certificate_expires_at)
        if self._connections is not None:
            yield _gauge("sidecar_open_connections", "Clients that are connected.", self._connections())
            yield _gauge("sidecar_max_connections", "Clients that there is room for.", self._max_connections)

    def _caches(self) -> Metric:
        metric = Metric("sidecar_cache_lookups", "Whether what was remembered of a credential served.", "counter")
        for cache, lookups in self.lookups.items():
            for result, count in (("hit", lookups.hits), ("miss", lookups.misses)):
                metric.add_sample("sidecar_cache_lookups_total", {"cache": cache, "result": result}, float(count))
        return metric

    def _key_sets(self) -> Iterator[Metric]:
        states = self.key_sets()
        fetches = Metric("sidecar_key_set_fetches", "Attempts to fetch an issuer's key set.", "counter")
        for issuer, state in states.items():
            for outcome, count in (("success", state.fetches), ("failure", state.failed_fetches)):
                labels = {"issuer": issuer, "outcome": outcome}
                fetches.add_sample("sidecar_key_set_fetches_total", labels, float(count))
        yield fetches
        for name, (text, value_of) in _KEY_SET_GAUGES.items():
            gauge = Metric(name, text, "gauge")
            for issuer, state in states.items():
                value = value_of(state)
                if value is not None:
                    gauge.add_sample(name, {"issuer": issuer}, float(value))
            yield gauge


def _gauge(name: str, text: str, value: float) -> Metric:
    metric = Metric(name, text, "gauge")
    metric.add_sample(name, {}, float(value))
    return metric
