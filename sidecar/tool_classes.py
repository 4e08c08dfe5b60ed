"""What may be done with a tool: is it a read, a write or destructive, and is it what was approved?"""

from __future__ import annotations

from typing import Final

from sidecar.denials import UpstreamNotReady
from sidecar.model import ToolClass
from sidecar.pinning import NoPins
from sidecar.policy.tools import ToolFinding, ToolLists
from sidecar.ports import ToolCatalogue, ToolPins

_NO_PINS: Final = NoPins()


class ToolClasses:
    """Is this tool a read, a write or destructive? By the operator's lists, else the catalogue, else *write*.

    Unless it `waits`, a tool also counts as a write while the catalogue is not known.
    """

    def __init__(
        self, lists: ToolLists, catalogue: ToolCatalogue, *, waits: bool = True, pins: ToolPins = _NO_PINS
    ) -> None:
        self._lists = lists
        self._catalogue = catalogue
        self._waits = waits
        self._pins = pins
        self.shown = pins.shown
        """Returns those of some tools that anybody may see; see `ports.ToolPins`."""

    def called(self, tool: str) -> ToolClass:
        """Return the class of a tool that is to be called.

        Raises:
            ToolUnapproved, StoreUnavailable: it is not what was approved, or that is not known.
            UpstreamNotReady: either depends on the catalogue, and no fetch has succeeded yet.
        """
        self._pins.require_approved(tool)
        return self.of(tool)

    def of(self, tool: str) -> ToolClass:
        """Return the tool's class.

        Raises:
            UpstreamNotReady: it depends on the catalogue, and no fetch has succeeded yet.
        """
        try:
            return self._lists.declared(tool) or self._catalogue.annotated(tool) or "write"
        except UpstreamNotReady:
            if self._waits:
                raise
            return "write"

    def why(self, tool: str) -> ToolFinding:
        """Return what `of` says with its reason, for people; it always waits for the catalogue.

        Raises:
            UpstreamNotReady: it depends on the catalogue, and no fetch has succeeded yet.
        """
        entry = self._lists.entry(tool)
        if entry is not None:
            return ToolFinding(self.of(tool), "list", entry)
        annotated = self._catalogue.annotated(tool)
        return ToolFinding(self.of(tool), "default" if annotated is None else "annotation")
