"""How much of bodies this process holds at a time: those that have to be whole before they can be judged."""

from __future__ import annotations

from typing import Final

from sidecar.denials import Overloaded

LEAST_BYTES: Final = 64 * 1024 * 1024
FREE_BYTES: Final = 65_536
"""Too small to be counted."""


class HeldBytes:
    """A bound on the bytes of all bodies that are held whole, whoever they belong to."""

    def __init__(self, max_bytes: int = LEAST_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    def change(self, before: int, after: int) -> int:
        """Take note that somebody who held so much holds so much now; return what counts of it.

        Raises:
            Overloaded: it is more than there is room for, and nothing was noted.
        """
        counted = after if after > FREE_BYTES else 0
        if counted > before and self._held + counted - before > self._max_bytes:
            raise Overloaded("held_bytes", detail=f"{self._held} bytes of other bodies are held")
        self._held += counted - before
        return counted
