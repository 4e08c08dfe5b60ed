"""What people do with calls that wait for their approval. The command and REST call this."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.denials import Conflict, NotFound
from sidecar.policy import approvals as policy
from sidecar.policy.approvals import Decision
from sidecar.records import Confirmation
from sidecar.stores import ConfirmationStore


class Approvals:
    """Finds approvals, and decides about them. Times are those of `clock`, in Unix seconds."""

    def __init__(self, store: ConfirmationStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self._clock()

    async def all(self) -> list[Confirmation]:
        """Return what the store knows of, the oldest first; of what is over, only what has not been forgotten."""
        found = [approval async for approval in self._store.approvals()]
        return sorted(found, key=lambda approval: (approval.created_at, approval.id))

    async def find(self, approval_id: str, account: str | None = None) -> Confirmation:
        """Return one, of this account or (None) of any.

        Raises:
            NotFound: there is none, or it is another account's.
            StoreUnavailable: that can't be found out.
        """
        owner = await self._store.account_of_approval(approval_id) if policy.is_id(approval_id) else None
        found = None
        if owner is not None and account in (None, owner):
            found = await self._store.confirmation(owner, approval_id)
        if found is None or found.kind != "approval":
            raise NotFound("approval_not_found", "No such approval: it is over, or its id is another one")
        return found

    async def decide(self, approval: Confirmation, decision: Decision, by: str) -> Confirmation:
        """Approve or decline, and return what it is now. To say the same again changes nothing.

        Raises:
            Conflict: it was decided otherwise, was used, or has expired.
            NotFound, StoreUnavailable: see `find`.
        """
        moved = await self._store.move(approval.account, approval.id, decision, self.now, by)
        now = await self.find(approval.id, approval.account)
        state = policy.state(now, self.now)
        if not moved and state != policy.OUTCOME[decision]:
            raise Conflict("approval_decided", f"This can't be decided any more: it is {state}")
        return now
