"""Who hears of the definitions of tools: the log, the metrics and the audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sidecar.edge.http.audited import Audited
from sidecar.edge.telemetry_pins import Pins
from sidecar.policy.pins import Change, State, told

_MOST_RECORDED: Final = 100


class PinReports:
    """Tells them all. See `pinning.PinReport`."""

    def __init__(self, telemetry: Pins, audited: Audited, *, blocks: bool) -> None:
        self._telemetry = telemetry
        self._audited = audited
        self._decision = "blocked" if blocks else "allowed"

    def pinned(self, tools: int) -> None:
        """Tell that so many definitions were approved because they were the first."""
        self._telemetry.pinned(tools)
        self._audited.definitions({"act": "pin_first_definitions", "decision": "allowed", "count": tools})

    def changed(self, changed: Sequence[Change]) -> None:
        """Tell which definitions are others than before: of very many, only how many there are."""
        self._telemetry.changed(changed)
        members = {"act": "definitions_changed", "decision": self._decision, "count": len(changed)}
        self._audited.definitions({**members, "tools": told(changed[:_MOST_RECORDED])})

    def stand(self, counts: Mapping[State, int]) -> None:
        """Tell how many tools stand how."""
        self._telemetry.stand(counts)
