"""Dictionaries that cannot outgrow their bound, and how often what they remember serves."""

from __future__ import annotations

from random import random
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """Holds at most `bound` entries; setting one more forgets the one that was set longest ago."""

    __slots__ = ("_bound",)

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._bound = bound

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self._bound and key not in self:
            del self[next(iter(self))]
        super().__setitem__(key, value)


class BoundedCache(dict[K, V]):
    """Holds at most `bound` entries; setting one more forgets any other. For what costs only time to find out again.

    Which one is chance. When more than `bound` take turns, forgetting the oldest, or the one that was not used for
    longest, would forget each right before its turn: of 12 000 in 10 000 places all would be missed. By chance two
    thirds of them are found, and reading costs nothing.
    """

    __slots__ = ("_bound", "_places")

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._bound = bound
        self._places: list[K] = []
        """Every key that is here, and some that were taken out; never more than `bound`."""

    def __setitem__(self, key: K, value: V) -> None:
        if key not in self:
            if len(self._places) < self._bound:
                self._places.append(key)
            else:
                place = int(random() * self._bound)  # noqa: S311 - nothing depends on nobody guessing it
                self.pop(self._places[place], None)
                self._places[place] = key
        super().__setitem__(key, value)

    def clear(self) -> None:
        super().clear()
        self._places.clear()


class Lookups:
    """How often what is remembered was there when it was wanted."""

    __slots__ = ("hits", "misses")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
