"""What a fuzz target is, and how an asynchronous walk is taken without waiting."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """One thing that reads what strangers send."""

    name: str
    check: Callable[[bytes], bool]
    """Try one input: True when it passed, False when it was refused; any exception is a find."""
    words: tuple[bytes, ...]
    """What inputs are made of."""


def at_once(walk: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that has nothing to wait for."""
    try:
        walk.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    walk.close()
    raise AssertionError("the walk waited for something")
