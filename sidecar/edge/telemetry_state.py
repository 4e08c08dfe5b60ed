"""What is so at present: gauges, and counts of what changed them. Nothing here is on a request's way."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Collection, Iterator
from importlib import metadata
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.denials import Rule
from sidecar.edge.telemetry_durations import Counts

_PACKAGE: Final = "mcp-sidecar"
_OUTCOMES: Final = (("success",), ("failure",))
_RULES: Final = get_args(Rule)


class State:
    """The build, the phase, the settings and the catalogue of a process."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float]) -> None:
        build = Gauge("sidecar_build_info", "What runs; always 1.", ("version", "python"), registry=registry)
        build.labels(version(), platform.python_version()).set(1)
        self._draining = Gauge("sidecar_draining", "1 from the signal to stop on.", registry=registry)
        self._reloads = Counts(
            "sidecar_config_reloads",
            "Attempts to put new settings into effect.",
            ("outcome",),
            registry,
            known=_OUTCOMES,
        )
        self._reload_success = Gauge(
            "sidecar_config_last_reload_success", "1 unless the last attempt failed.", registry=registry
        )
        self._reload_success.set(1)
        self._fetches = Counts(
            "sidecar_catalogue_fetches",
            "Attempts to ask the upstream for its tools.",
            ("outcome",),
            registry,
            known=_OUTCOMES,
        )
        self._tools = Gauge("sidecar_catalogue_tools", "Tools of the upstream.", registry=registry)
        self._changes = Counter(
            "sidecar_catalogue_changes",
            "Times that the upstream's tools or their classes were others than before.",
            registry=registry,
        )
        self._age = _Age(registry, clock)
        self.shadow = _Shadow(registry)
        self._process_ends = Counter(
            "sidecar_process_ends", "Of several processes, how many ended and were replaced.", registry=registry
        )

    def draining(self) -> None:
        """Note that the process is about to end."""
        self._draining.set(1)

    def reloaded(self, ok: bool) -> None:
        """Note that new settings have taken effect, or that they could not."""
        self._reloads.add("success" if ok else "failure")
        self._reload_success.set(int(ok))

    def catalogue_fetched(self, tools: int | None, *, changed: bool) -> None:
        """Note how many tools the upstream has; None when that could not be found out."""
        self._fetches.add("failure" if tools is None else "success")
        if tools is not None:
            self._tools.set(tools)
            self._age.restart()
        if changed:
            self._changes.inc()

    def worker_ended(self) -> None:
        """Note that one of several workers has ended."""
        self._process_ends.inc()


class _Shadow:
    """Which rules are in shadow mode, and what they would have refused."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._modes = Gauge(
            "sidecar_shadow_mode", "1 while the rule refuses nothing and only takes note.", ("rule",), registry=registry
        )
        self._refusals = Counts(
            "sidecar_shadow_refusals",
            "Requests that the rule would have refused, were it not in shadow mode.",
            ("rule",),
            registry,
            known=[(rule,) for rule in _RULES],
        )
        self.use(())

    def use(self, rules: Collection[str]) -> None:
        """Note which rules are in shadow mode from now on."""
        for rule in _RULES:
            self._modes.labels(rule).set(int(rule in rules))

    def refusal(self, rule: str) -> None:
        """Note that a rule would have refused a request."""
        self._refusals.add(rule)


class _Age(Collector):
    """How old is the catalogue? Nothing is told before there is one."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        registry.register(self)

    def restart(self) -> None:
        self._since = self._clock()

    def collect(self) -> Iterator[Metric]:
        age = Metric("sidecar_catalogue_age_seconds", "Since the upstream last told its tools.", "gauge")
        last = Metric(
            "sidecar_catalogue_last_success_timestamp_seconds", "When the upstream last told its tools.", "gauge"
        )
        if self._since is not None:
            age_s = self._clock() - self._since
            age.add_sample(age.name, {}, age_s)
            last.add_sample(last.name, {}, time.time() - age_s)
        yield age
        yield last


def version() -> str:
    """Return the version of what is installed."""
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown"
