"""What is unusual about the use of keys? In the log, and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from sidecar.edge.telemetry_durations import Counts
from sidecar.policy.activity import KINDS


class Activity:
    """Told by `activity`."""

    def __init__(self, registry: CollectorRegistry, event: Callable[..., None]) -> None:
        self._event = event
        self._found = Counts(
            "sidecar_unusual_activity",
            "Keys, or all keys of an account, whose use came to be unusual.",
            ("kind",),
            registry,
            known=[(kind,) for kind in KINDS],
        )

    def unusual(self, members: Mapping[str, Any]) -> None:
        """Take note of it: its `kind`, and what else is known."""
        self._found.add(members["kind"])
        self._event("unusual_activity", level="warning", **members)
