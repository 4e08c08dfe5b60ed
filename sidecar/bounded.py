"""A dictionary that cannot outgrow its bound."""

from __future__ import annotations

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
