"""How much of a limit is spent? Sliding windows, in whole microseconds. Pure: no clock, no I/O.

Never more than `requests` units in any `window_s` seconds, however the window is laid. What was spent is a log of
slots. A unit spent at time t belongs to slot ``t // slot_us`` and stops counting a window after the last moment of
that slot: never early, and at most one slot late. Up to 128 requests a slot is one microsecond, so the log is exact;
above that it is a hundredth of the window, so a log never holds more than 128 slots whatever the traffic.

``edge/redis/scripts/window.lua`` is this file again, in Lua; one contract suite holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.model import Limit, Quota

EXACT_UP_TO: Final = 128
SLOTS_PER_WINDOW: Final = 100
US_PER_S: Final = 1_000_000


class SpendLog:
    """What was spent of one limit and still counts, oldest first."""

    __slots__ = ("counts", "slot_us", "slots", "spent", "window_us")

    def __init__(self) -> None:
        self.slots: list[int] = []
        self.counts: list[int] = []
        self.spent = 0
        self.slot_us = 1
        self.window_us = 0

    def settle(self, limit: Limit, now_us: int) -> None:
        """Bring the log to this moment, under the limit as it is configured now."""
        self.window_us = limit.window_s * US_PER_S
        slot_us = 1 if limit.requests <= EXACT_UP_TO else max(1, self.window_us // SLOTS_PER_WINDOW)
        if slot_us != self.slot_us:
            self._recut(slot_us)
        self.forget(now_us)

    def forget(self, now_us: int) -> None:
        """Drop what no longer counts at this moment."""
        if self.slots and self.slots[-1] > now_us // self.slot_us:
            self._pull_back(now_us // self.slot_us)
        expired = 0
        for slot, count in zip(self.slots, self.counts, strict=True):
            if self._end_us(slot) > now_us:
                break
            expired += 1
            self.spent -= count
        if expired:
            del self.slots[:expired]
            del self.counts[:expired]

    def add(self, now_us: int) -> None:
        """Spend one unit. The log must have been settled at this moment."""
        slot = now_us // self.slot_us
        self.spent += 1
        if self.slots and self.slots[-1] == slot:
            self.counts[-1] += 1
        else:
            self.slots.append(slot)
            self.counts.append(1)

    def returns_in_us(self, units: int, now_us: int) -> int:
        """Return how long it takes until this many of the spent units have returned; 0 when none need to."""
        if units <= 0:
            return 0
        for slot, count in zip(self.slots, self.counts, strict=True):
            units -= count
            if units <= 0:
                return self._end_us(slot) - now_us
        return self.window_us  # more than was ever spent: only a limit of nothing asks for it

    def _end_us(self, slot: int) -> int:
        return (slot + 1) * self.slot_us - 1 + self.window_us

    def _recut(self, slot_us: int) -> None:
        """Change the length of the slots, for a limit that was configured anew; each unit keeps its latest moment."""
        self.slots = [((slot + 1) * self.slot_us - 1) // slot_us for slot in self.slots]
        self.slot_us = slot_us

    def _pull_back(self, newest: int) -> None:
        """Treat what seems to be spent in the future as spent now, because the clock was set back.

        It was spent in the past, so now is not too early for it to count from; and whatever the step, everything
        returns within one window of it.
        """
        units = 0
        while self.slots and self.slots[-1] >= newest:
            self.slots.pop()
            units += self.counts.pop()
        self.slots.append(newest)
        self.counts.append(units)


def spend(asked: Sequence[tuple[Limit, SpendLog]], now_us: int) -> tuple[Quota, ...]:
    """Spend one unit of each limit, or nothing of any when one of them has none left."""
    admitted = True
    for limit, log in asked:
        log.settle(limit, now_us)
        if log.spent >= limit.requests:
            admitted = False
    if admitted:
        for _, log in asked:
            log.add(now_us)
    return tuple([_quota(limit, log, now_us, admitted) for limit, log in asked])


def peek(limit: Limit, log: SpendLog, now_us: int) -> Quota:
    """Tell how the limit stands, spending nothing."""
    log.settle(limit, now_us)
    return _quota(limit, log, now_us, admitted=False)


def _quota(limit: Limit, log: SpendLog, now_us: int, admitted: bool) -> Quota:
    return Quota(
        limit=limit,
        remaining=max(0, limit.requests - log.spent),
        reset_s=log.returns_in_us(1, now_us) / US_PER_S if log.spent else 0.0,
        retry_s=0.0 if admitted else log.returns_in_us(log.spent - limit.requests + 1, now_us) / US_PER_S,
    )
