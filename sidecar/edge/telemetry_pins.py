"""How do the definitions of the upstream's tools stand? In the log, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from sidecar.edge.telemetry_durations import Counts
from sidecar.policy.pins import STATES, Change, State, told

_MOST_NAMED: Final = 20
"""So many tools are named in one line."""


class Pins:
    """Told by `pinning`."""

    def __init__(self, registry: CollectorRegistry, event: Callable[..., None]) -> None:
        self._event = event
        self._states = Gauge(
            "sidecar_catalogue_definitions",
            "Tools whose definition is as approved, new, changed since, or gone.",
            ("state",),
            registry=registry,
        )
        self._changes = Counts(
            "sidecar_catalogue_definition_changes",
            "Definitions of tools that came to be so.",
            ("state",),
            registry,
            known=[(state,) for state in STATES],
        )
        self.stand(dict.fromkeys(STATES, 0))

    def stand(self, counts: Mapping[State, int]) -> None:
        """Note how many tools stand how."""
        for state, count in counts.items():
            self._states.labels(state).set(count)

    def pinned(self, tools: int) -> None:
        """Note that so many definitions were approved because they were the first."""
        self._event("catalogue_pinned", tools=tools)

    def changed(self, changed: Sequence[Change]) -> None:
        """Note which definitions are others than before."""
        tools = told(changed)
        for tool in tools:
            self._changes.add(tool["state"])
        counts = Counter(tool["state"] for tool in tools)
        level = "warning" if counts["new"] or counts["changed"] else "info"
        self._event("catalogue_definitions_changed", level=level, **counts, tools=tools[:_MOST_NAMED])
