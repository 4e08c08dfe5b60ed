"""How many refusals are recorded one by one? Being refused is free: it must neither fill the disk nor hide others."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sidecar.bounded import BoundedDict

OWN_BURST: Final = 100
OWN_PER_S: Final = 100 / 3600
"""Refusals of one caller that are recorded at once, and then each second."""
SHARED_BURST: Final = 1000
SHARED_PER_S: Final = 1.0
"""And beyond these, of all callers together."""
DAY_BYTES: Final = 100_000_000
"""What refusals of all callers together may take: so much at once, and as much again within a day."""
_DAY_S: Final = 86_400
_REMEMBERED: Final = 10_000
"""Callers whose own allowance is remembered, those that came last; one that is forgotten begins anew."""


class Allowance:
    """Decides which refusals of one group of callers are recorded, and counts the others by reason.

    Each caller has an allowance of its own, so that nobody's refusals hide another's; what is over it comes out of one
    that all share. `day_bytes` bounds what they take on the disk, however many callers there are: it is enough for one
    that never stops, and only many callers together can use it up.
    """

    def __init__(self, day_bytes: int = DAY_BYTES) -> None:
        self._bytes = _Bucket(day_bytes, day_bytes / _DAY_S)
        self._shared = _Bucket(SHARED_BURST, SHARED_PER_S)
        self._own: BoundedDict[str, _Bucket] = BoundedDict(_REMEMBERED)
        self._omitted: Counter[str] = Counter()

    def take(self, caller: str, size: int, now: float) -> bool:
        """Tell whether one more may be recorded, in `size` bytes; `now` is in seconds of a clock that never goes back.

        A caller is an account, or the address of who is not known.
        """
        if not self._bytes.has(size, now):
            return False
        own = self._own.get(caller)
        if own is None:
            own = self._own[caller] = _Bucket(OWN_BURST, OWN_PER_S)
        for bucket in (own, self._shared):
            if bucket.has(1, now):
                bucket.left -= 1
                self._bytes.left -= size
                return True
        return False

    def omit(self, reason: str) -> None:
        """Count one that is not recorded."""
        self._omitted[reason] += 1

    def told(self) -> dict[str, int]:
        """Return how many were left out, by reason, and begin anew."""
        omitted, self._omitted = self._omitted, Counter()
        return dict(omitted)


class _Bucket:
    """A token bucket."""

    __slots__ = ("_at", "_most", "_per_s", "left")

    def __init__(self, most: float, per_s: float) -> None:
        self._most = most
        self._per_s = per_s
        self._at = 0.0
        self.left = most

    def has(self, amount: float, now: float) -> bool:
        self.left = min(self._most, self.left + (now - self._at) * self._per_s)
        self._at = now
        return self.left >= amount
