"""Ports for who wants to know what would happen, and wants none of it to happen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sidecar.denials import StoreUnavailable
from sidecar.guard import Guard, ManagementPermit, ReadBody
from sidecar.model import Admission, Handle, Limit, Permit, Principal, Progress, Quota, RequestFacts, Route, Verdict
from sidecar.records import Confirmation, KeyRecord, Pin, Pinned, StoredKey, Unusual, Usage
from sidecar.stores import Store


class Allowed(BaseException):
    """Nothing is against the request. Raised where it would be done."""


class Witness:
    """Stands between the public port and the gateway: knows how far a request got, and lets nothing be done."""

    def __init__(self, gateway: Guard) -> None:
        self._gateway = gateway
        self.facts: RequestFacts | None = None
        self.progress = Progress()

    async def check(self, route: Route, facts: RequestFacts, read_body: ReadBody, progress: Progress) -> Permit:
        """Raise Allowed, or what the gateway raises."""
        self.facts, self.progress = facts, progress
        await self._gateway.check(route, facts, read_body, progress)
        raise Allowed

    async def check_management(
        self,
        facts: RequestFacts,
        read_body: ReadBody,
        understand: Callable[[Principal, bytes], Any],
        progress: Progress,
    ) -> ManagementPermit[Any]:
        """Raise Allowed, or what the gateway raises."""
        self.facts, self.progress = facts, progress
        await self._gateway.check_management(facts, read_body, understand, progress)
        raise Allowed


class StandIn:
    """An authenticator that takes whatever is presented for the credential of one principal."""

    def __init__(self, principal: Callable[[], Principal]) -> None:
        self._principal = principal

    async def authenticate(self, credential: object, facts: RequestFacts) -> Principal:
        """Return the principal, or raise what it raises."""
        return self._principal()

    def revoked(self, credential: object) -> None:
        """Nothing is remembered."""


class LookedAt:
    """A `stores.Store` that is asked and never changed: what would have been counted or kept is not."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def admit(self, admission: Admission) -> Verdict:
        """See `stores.AdmissionStore`."""
        return await self._store.admit(replace(admission, how="peek"))

    async def count_refusal(self, account: str, key_id: str) -> None:
        """Count nothing."""

    async def peek(self, address: str, limit: Limit) -> Quota:
        """See `stores.FailureCounter`."""
        return await self._store.peek(address, limit)

    async def record(self, address: str, limit: Limit) -> Quota:
        """Tell what the failure would have met."""
        return await self._store.peek(address, limit)

    async def account_of(self, key_id: str) -> str | None:
        """See `stores.KeyStore`."""
        return await self._store.account_of(key_id)

    async def get(self, account: str, key_id: str) -> StoredKey | None:
        """See `stores.KeyStore`."""
        return await self._store.get(account, key_id)

    async def add(self, record: KeyRecord, *, max_active: int | None, now: float) -> bool:
        """Refuse."""
        raise _only_looking()

    async def replace(self, record: KeyRecord, *, successor: KeyRecord | None = None) -> bool:
        """Refuse."""
        raise _only_looking()

    async def note_change(self, account: str) -> None:
        """Refuse."""
        raise _only_looking()

    async def page(self, account: str, *, limit: int, after: str | None) -> list[StoredKey]:
        """See `stores.KeyStore`."""
        return await self._store.page(account, limit=limit, after=after)

    def accounts(self) -> AsyncIterator[str]:
        """See `stores.KeyStore`."""
        return self._store.accounts()

    async def usage(self, account: str, key_id: str, now: float, days: int = 30) -> Usage:
        """See `stores.KeyStore`."""
        return await self._store.usage(account, key_id, now, days)

    async def meet(self, token_id: str, account: str, expires_at: float) -> bool:
        """Tell whether the token is good; that it was met is not noted."""
        return not await self._store.is_revoked(token_id)

    async def is_revoked(self, token_id: str) -> bool:
        """See `stores.RevocationStore`."""
        return await self._store.is_revoked(token_id)

    async def revoke_token(self, token_id: str) -> None:
        """Refuse."""
        raise _only_looking()

    async def revoke_account(self, account: str, before: float) -> None:
        """Refuse."""
        raise _only_looking()

    async def revoked_before(self, account: str) -> float:
        """See `stores.RevocationStore`."""
        return await self._store.revoked_before(account)

    async def changes(self, since: str | None) -> tuple[str, frozenset[str] | None]:
        """See `stores.RevocationStore`."""
        return await self._store.changes(since)

    async def bind(self, account: str, handle: Handle, now: float) -> None:
        """Refuse."""
        raise _only_looking()

    async def release(self, account: str, handle: Handle) -> None:
        """Refuse."""
        raise _only_looking()

    async def owned(self, account: str, owner: str, kind: str, ids: Sequence[str]) -> frozenset[str]:
        """See `stores.HandleStore`."""
        return await self._store.owned(account, owner, kind, ids)

    async def elicits(self, account: str, owner: str, session_id: str) -> bool:
        """See `stores.HandleStore`."""
        return await self._store.elicits(account, owner, session_id)

    async def pins_version(self, upstream: str) -> int:
        """See `stores.PinStore`."""
        return await self._store.pins_version(upstream)

    async def pinned(self, upstream: str) -> Pinned:
        """See `stores.PinStore`."""
        return await self._store.pinned(upstream)

    async def change_pins(
        self, upstream: str, version: int, changed: Sequence[tuple[str, Pin | None]], *, is_complete: bool
    ) -> int | None:
        """Tell what would come of it, were it done now."""
        return version + 1

    async def note_unusual(self, account: str, key_id: str, found: Unusual, now: float) -> bool:
        """Refuse."""
        raise _only_looking()

    async def unusual(self, account: str, now: float) -> Mapping[str, tuple[Unusual, ...]]:
        """See `stores.ActivityStore`."""
        return await self._store.unusual(account, now)

    async def keep(self, confirmation: Confirmation, now: float) -> Confirmation:
        """Refuse."""
        raise _only_looking()

    async def confirmation(self, account: str, confirmation_id: str) -> Confirmation | None:
        """See `stores.ConfirmationStore`."""
        return await self._store.confirmation(account, confirmation_id)

    async def move(self, account: str, confirmation_id: str, move: str, now: float, by: str | None = None) -> bool:
        """Refuse."""
        raise _only_looking()

    async def account_of_approval(self, confirmation_id: str) -> str | None:
        """See `stores.ConfirmationStore`."""
        return await self._store.account_of_approval(confirmation_id)

    def approvals(self) -> AsyncIterator[Confirmation]:
        """See `stores.ConfirmationStore`."""
        return self._store.approvals()

    async def use_once(self, account: str, name: str, expires_at: float, now: float) -> bool:
        """Refuse."""
        raise _only_looking()

    async def ping(self) -> None:
        """Refuse: it is a write."""
        raise _only_looking()

    async def warnings(self) -> tuple[str, ...]:
        """See `stores.Store`."""
        return await self._store.warnings()

    async def aclose(self) -> None:
        """See `stores.Store`."""
        await self._store.aclose()


def _only_looking() -> StoreUnavailable:
    return StoreUnavailable("store_unavailable", detail="who only looks changes nothing")
