"""What becomes of a request while the store is away?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Final, Literal, Protocol

from sidecar.bounded import BoundedDict
from sidecar.denials import StoreUnavailable
from sidecar.model import Admission, Handle, Limit, Quota, Verdict
from sidecar.policy import quotas
from sidecar.stores import AdmissionStore

_REMEMBERED: Final = 10_000


class LocalLimits(Protocol):
    """Limits that this process keeps by itself."""

    def spend(self, asked: Iterable[tuple[Limit, Hashable]]) -> tuple[Quota, ...]:
        """Judge all together and spend one unit of each, or nothing; each limit comes with whom it is counted for."""
        ...


class ResilientAdmissions:
    """Asks the store, and when it does not answer does as `limits.on_store_failure` says.

    *deny*: 503. *allow*: no limits. *local*: this process's own limits, at `local_share` of each. Authentication
    does not open: a key passes only while the store has vouched for it within the last `offline_grace_s`, so a
    revocation made during an outage may take that long. A session goes on only where the store has vouched for its
    owner before, which never changes. Tokens are proved by their signature; that one was revoked can't be known until
    the store is back.

    `on_failure`, `local_share` and `offline_grace_s` may be changed while it is in use.

    `report` hears of failures, and with None that the store is well: at each verdict where `admits_by_writing`, else
    only at the first one after a failure, because a verdict that took no write does not show that one would succeed.
    `counted` hears of each use of a key, by account and id, and whether it was refused.
    """

    def __init__(
        self,
        store: AdmissionStore,
        local: LocalLimits,
        *,
        on_failure: Literal["local", "deny", "allow"],
        local_share: float,
        offline_grace_s: float,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        admits_by_writing: bool,
        report: Callable[[StoreUnavailable | None], None],
        counted: Callable[[str, str, bool], None] = lambda *_: None,
    ) -> None:
        self._store = store
        self._local = local
        self.on_failure = on_failure
        self.local_share = local_share
        self.offline_grace_s = offline_grace_s
        self._clock = clock
        self._monotonic = monotonic  # the grace must not last longer because somebody sets the clock
        self._admits_by_writing = admits_by_writing
        self._report = report
        self._counted = counted
        self._failed = False
        self._vouched_at: BoundedDict[str, float] = BoundedDict(_REMEMBERED)
        self._vouched_handles: BoundedDict[tuple[str, Handle], None] = BoundedDict(_REMEMBERED)

    async def admit(self, admission: Admission) -> Verdict:
        """Return the store's verdict, or ours in its absence (see `stores.AdmissionStore.admit`)."""
        try:
            verdict = await self._store.admit(admission)
        except StoreUnavailable as problem:
            self._failed = True
            self._report(problem)
            return self._without_store(admission)
        if self._admits_by_writing or self._failed:
            self._failed = False
            self._report(None)
        if admission.key_id is not None:
            if verdict.standing == "good":
                self._vouched_at[admission.key_id] = self._monotonic()
                if admission.counts_as_use:
                    self._counted(admission.account, admission.key_id, not verdict.admitted)
            else:
                self._vouched_at.pop(admission.key_id, None)
        for handle in admission.handles:
            if verdict.standing == "good":
                self._vouched_handles[admission.account, handle] = None
            else:
                self._vouched_handles.pop((admission.account, handle), None)
        return verdict

    async def count_refusal(self, account: str, key_id: str) -> None:
        """Pass the count on; while the store is away it is lost."""
        self._counted(account, key_id, True)
        try:
            await self._store.count_refusal(account, key_id)
        except StoreUnavailable as problem:
            self._report(problem)

    def _without_store(self, admission: Admission) -> Verdict:
        now = self._clock()
        if self.on_failure == "deny":
            raise StoreUnavailable("store_unavailable")
        if admission.key_id is not None and not self._is_vouched_for(admission.key_id):
            raise StoreUnavailable("key_unconfirmed")
        if any((admission.account, handle) not in self._vouched_handles for handle in admission.handles):
            raise StoreUnavailable("handle_unconfirmed")
        if self.on_failure == "allow":
            return Verdict("good", now)
        asked = [
            (limit, (admission.account, admission.credential_id if limit.per == "credential" else None))
            for limit in quotas.scaled(admission.limits, self.local_share)
        ]
        return Verdict("good", now, self._local.spend(asked))

    def _is_vouched_for(self, key_id: str) -> bool:
        at = self._vouched_at.get(key_id)
        return at is not None and self._monotonic() < at + self.offline_grace_s
