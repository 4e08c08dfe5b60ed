"""The one trip of the hot path, and the counters of failed authentication."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from sidecar.bounded import BoundedCache
from sidecar.edge.redis import names
from sidecar.edge.redis.commands import Argument, Script
from sidecar.edge.redis.handles import idle_ms
from sidecar.edge.redis.keys import key_record
from sidecar.edge.redis.link import OnRedis, Way
from sidecar.model import Admission, Limit, Quota, Verdict
from sidecar.policy.windows import US_PER_S

ADMIT: Final = Script("window", "admit")
COUNT_REFUSAL: Final = Script("window", "count_refusal")
FAILURES: Final = Script("window", "failures")
NOW: Final = Struct(">d")
QUOTA: Final = Struct(">ddd")
US_PER_DAY: Final = 86_400 * US_PER_S
REMEMBERED: Final = 10_000
_HOW: Final = {"spend": "", "shadow": "s", "peek": "p"}


class _Question(NamedTuple):
    """A packed command, and what of it is not in its key."""

    packed: bytes
    limits: tuple[Limit, ...]
    day: int


class RedisAdmission(OnRedis):
    """Standing, limits and usage counts of a request in one script; what it decides stands in ``scripts/admit.lua``.

    What is asked of one credential is nearly always the same: the packed commands of 10 000 are remembered, about a
    kilobyte each, until the day ends or other limits apply.
    """

    _day = 0
    """The day by Redis's clock, as last heard: usage is kept by day, and a script's keys are named beforehand."""

    def __init__(self, link: Way, clock: Callable[[], float] | None) -> None:
        super().__init__(link, clock)
        self._questions: BoundedCache[tuple[object, ...], _Question] = BoundedCache(REMEMBERED)

    async def admit(self, admission: Admission) -> Verdict:
        """See `stores.AdmissionStore`."""
        while True:
            answer: bytes = await self._link.send(self._question(admission), ADMIT, admission.account)
            standing, (now_us,), rest = answer[:1], NOW.unpack_from(answer, 1), answer[1 + NOW.size :]
            if standing != b"d":
                break
            self._day = int(now_us // US_PER_DAY)
        if standing == b"g":
            return Verdict("good", now_us / US_PER_S, quotas(admission.limits, rest))
        if standing == b"k":
            return Verdict("key_changed", now_us / US_PER_S, key=key_record(rest) if rest else None)
        if standing == b"h":
            return Verdict("handle_unknown", now_us / US_PER_S, unknown=admission.handles[int(rest)])
        return Verdict("revoked", now_us / US_PER_S)

    async def count_refusal(self, account: str, key_id: str) -> None:
        """See `stores.AdmissionStore`."""
        while True:
            usage = names.usage(account, key_id, self._day)
            wrong_day: int = await self._link.run(COUNT_REFUSAL, (usage,), self.passed_us(), self._day)
            if not wrong_day:
                return
            self._day = wrong_day

    async def peek(self, address: str, limit: Limit) -> Quota:
        """See `stores.FailureCounter`."""
        return await self._failures(address, limit, "")

    async def record(self, address: str, limit: Limit) -> Quota:
        """See `stores.FailureCounter`."""
        return await self._failures(address, limit, "1")

    async def _failures(self, address: str, limit: Limit, spend: str) -> Quota:
        window_us = limit.window_s * US_PER_S
        key = names.failures(address, limit.name)
        answer: bytes = await self._link.run(FAILURES, (key,), self.passed_us(), limit.requests, window_us, spend)
        return quotas((limit,), answer)[0]

    def _question(self, admission: Admission) -> bytes:
        if admission.handles or self._clock is not None:
            return self._packed(admission)
        asked = (
            admission.account,
            admission.credential_id,
            admission.issued_at,
            admission.token_id,
            admission.key_id,
            admission.key_version,
            admission.write,
            admission.counts_as_use,
            admission.how,
        )
        known = self._questions.get(asked)
        if known is None or known.limits is not admission.limits or known.day != self._day:
            known = _Question(self._packed(admission), admission.limits, self._day)
            self._questions[asked] = known
        return known.packed

    def _packed(self, admission: Admission) -> bytes:
        return ADMIT.packed(self._keys(admission), self._arguments(admission))

    def _keys(self, admission: Admission) -> list[str]:
        account = admission.account
        keys = [names.revoked_before(account)]
        if admission.token_id is not None:
            keys.append(names.revoked_here(account, admission.token_id))
        if admission.key_id is not None:
            keys.append(names.record(account, admission.key_id))
            keys.append(names.usage(account, admission.key_id, self._day))
        keys += [names.handle(account, handle.kind, handle.id) for handle in admission.handles]
        for limit in admission.limits:
            holder = admission.credential_id if limit.per == "credential" else "account"
            keys.append(names.limit_log(account, holder, limit.name))
        return keys

    def _arguments(self, admission: Admission) -> list[Argument]:
        arguments: list[Argument] = [
            self.passed_us(),
            repr(admission.issued_at),
            "" if admission.token_id is None else "1",
            "" if admission.key_id is None else admission.key_version,
            self._day,
            ("1" if admission.write else "") if admission.counts_as_use else "0",
            _HOW[admission.how],
            len(admission.handles),
        ]
        for handle in admission.handles:
            arguments += (handle.owner, idle_ms(handle))
        for limit in admission.limits:
            arguments += (limit.requests, limit.window_s * US_PER_S)
        return arguments


def quotas(limits: tuple[Limit, ...], answer: bytes) -> tuple[Quota, ...]:
    """Read what a script says of each limit, in whole microseconds."""
    return tuple(
        [
            Quota(limit, int(remaining), reset_us / US_PER_S, retry_us / US_PER_S)
            for limit, (remaining, reset_us, retry_us) in zip(limits, QUOTA.iter_unpack(answer), strict=True)
        ]
    )
