"""Sliding windows in the memory of one process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Final

from sidecar.model import Admission, Limit, Quota
from sidecar.policy.windows import US_PER_S, SpendLog, peek, spend

MAX_LOGS: Final = 100_000
"""At 0.5 to 6.5 KiB each. Beyond it logs that still count are forgotten, the oldest first."""
SWEEP: Final = 2
"""Old logs looked at for each new one: more than one, so that the dead are cleared faster than the new come."""

Asked = Iterable[tuple[Limit, Hashable]]
"""Limits, each with whom it is counted for."""


class MemoryLimits:
    """Counts what is spent of limits, for any number of holders, in bounded memory.

    Also stands in for a shared store that does not answer.
    """

    def __init__(self, clock: Callable[[], float], *, max_logs: int = MAX_LOGS) -> None:
        self._clock = clock
        self._max_logs = max_logs
        self._logs: OrderedDict[tuple[str, Hashable], SpendLog] = OrderedDict()

    def __len__(self) -> int:
        return len(self._logs)

    def spend(self, asked: Asked) -> tuple[Quota, ...]:
        """Spend one unit of each limit, or nothing of any when one of them has none left."""
        now_us = round(self._clock() * US_PER_S)
        logs: list[tuple[Limit, SpendLog]] = []
        new: list[tuple[tuple[str, Hashable], SpendLog]] = []
        for limit, holder in asked:
            log = self._logs.get((limit.name, holder))
            if log is None:
                log = SpendLog()
                new.append(((limit.name, holder), log))
            logs.append((limit, log))
        quotas = spend(logs, now_us)
        for key, log in new:
            if log.spent:
                self._sweep(now_us)
                self._logs[key] = log
        return quotas

    def peek(self, limit: Limit, holder: Hashable) -> Quota:
        """Tell how one limit stands, spending and remembering nothing."""
        log = self._logs.get((limit.name, holder))
        return peek(limit, SpendLog() if log is None else log, round(self._clock() * US_PER_S))

    def _sweep(self, now_us: int) -> None:
        """Look at the logs in front: the empty go, the others move to the back of the queue."""
        for _ in range(min(SWEEP, len(self._logs))):
            key, log = self._logs.popitem(last=False)
            log.forget(now_us)
            if log.spent:
                self._logs[key] = log
        while len(self._logs) >= self._max_logs:
            self._logs.popitem(last=False)


def asked_by(admission: Admission) -> list[tuple[Limit, Hashable]]:
    """Return the limits of an admission with whom each is counted for."""
    account, credential = admission.account, admission.credential_id
    return [(limit, (account, credential if limit.per == "credential" else "")) for limit in admission.limits]
