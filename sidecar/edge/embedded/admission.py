"""The one step of the hot path. It awaits nothing, so nothing comes between its parts."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.edge.embedded.copies import Copies
from sidecar.edge.embedded.handles import SqliteHandles
from sidecar.edge.embedded.limits import MemoryLimits, asked_by
from sidecar.edge.embedded.usage import UsageCounts
from sidecar.model import Admission, Limit, Quota, Verdict
from sidecar.policy.windows import US_PER_S


class LocalAdmission(SqliteHandles):
    """Standing from the copies of the file, limits and usage counts from memory."""

    _clock: Callable[[], float]
    _copies: Copies
    _limits: MemoryLimits
    _failures: MemoryLimits
    _usage: UsageCounts

    async def admit(self, admission: Admission) -> Verdict:
        """See `stores.AdmissionStore`."""
        now = round(self._clock() * US_PER_S) / US_PER_S
        self._copies.refresh()
        if admission.key_id is not None:
            record = self._copies.record(admission.account, admission.key_id)
            if record is None or record.version != admission.key_version:
                return Verdict("key_changed", now, key=record)
        if self._revoked(admission):
            return Verdict("revoked", now)
        account = admission.account
        used = []
        for handle in admission.handles:
            bound = self.known(account, handle, now, self._copies.revoked_before(account))
            if bound is None:
                return Verdict("handle_unknown", now, unknown=handle)
            used.append((handle, bound))
        if admission.how == "peek":
            return Verdict("good", now, tuple([self._limits.peek(*asked) for asked in asked_by(admission)]))
        verdict = Verdict("good", now, self._limits.spend(asked_by(admission)))
        goes_on = admission.how == "shadow" or verdict.admitted
        for handle, bound in used if goes_on else ():
            self.use(account, handle, bound, now)
        if admission.key_id is not None and admission.counts_as_use:
            self._usage.count(admission.account, admission.key_id, now, refused=not goes_on, write=admission.write)
        return verdict

    async def count_refusal(self, account: str, key_id: str) -> None:
        """See `stores.AdmissionStore`."""
        self._usage.count(account, key_id, self._clock(), refused=True, write=False)

    async def peek(self, address: str, limit: Limit) -> Quota:
        """See `stores.FailureCounter`."""
        return self._failures.peek(limit, address)

    async def record(self, address: str, limit: Limit) -> Quota:
        """See `stores.FailureCounter`."""
        return self._failures.spend(((limit, address),))[0]

    def _revoked(self, admission: Admission) -> bool:
        if admission.token_id is not None and self._copies.revoked_token(admission.token_id) is not None:
            return True
        return not admission.issued_at >= self._copies.revoked_before(admission.account)
