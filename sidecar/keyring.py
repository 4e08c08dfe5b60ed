"""What can be done with API keys. The REST API, the command line and the pages all come through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from sidecar.denials import Conflict, InvalidRequest, NotFound
from sidecar.policy import apikeys, key_requests
from sidecar.policy.identity import usable_account
from sidecar.ports import SecretHasher
from sidecar.records import ApiKey, KeyRecord, StoredKey, Usage
from sidecar.stores import KeyStore, RevocationStore

Origin = Literal["rest", "cli"]

_DAY_S: Final = 86_400
_ATTEMPTS: Final = 8
"""How often a change is tried again when others change the same key meanwhile."""
_ONLY_ACTIVE: Final = "Only an active key can be rotated"


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """A key that may be made: what it is called, may do, and how long it lives."""

    name: str
    scopes: tuple[str, ...]
    lifetime_s: float


class KeyringStore(KeyStore, RevocationStore, Protocol):
    """What of the store a keyring needs."""


class Keyring:
    """The API keys of all accounts.

    A key of another account is as unknown as one that never was. `granted` is what the caller may hand out at most;
    None bounds nothing and is for operators only. Any method may raise `StoreUnavailable`.
    """

    def __init__(
        self,
        store: KeyringStore,
        hasher: SecretHasher,
        *,
        default_scopes: tuple[str, ...],
        default_expiry_days: int,
        rotation_grace_s: int,
        max_per_account: int | None,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._default_scopes = default_scopes
        self._default_expiry_days = default_expiry_days
        self._rotation_grace_s = rotation_grace_s
        self._max_per_account = max_per_account
        self._clock = clock
        self._entropy = entropy

    @property
    def now(self) -> float:
        """The time that keys are judged by, Unix seconds."""
        return self._clock()

    async def create(
        self,
        account: str,
        name: str,
        *,
        scopes: Sequence[str] | None = None,
        expires_in_days: int | None = None,
        created_by: str,
        origin: Origin,
        granted: tuple[str, ...] | None,
    ) -> tuple[KeyRecord, ApiKey]:
        """Make a key: `plan` and `make` in one."""
        plan = self.plan(name, scopes=scopes, expires_in_days=expires_in_days, granted=granted)
        return await self.make(account, plan, created_by=created_by, origin=origin)

    def plan(
        self,
        name: str,
        *,
        scopes: Sequence[str] | None = None,
        expires_in_days: int | None = None,
        granted: tuple[str, ...] | None,
    ) -> KeyPlan:
        """Read what is asked for, with the defaults for what is not said, before anything is done.

        Raises:
            InvalidRequest: naming the field that is wrong.
            InsufficientScope: for scopes beyond `granted`.
        """
        name = key_requests.read_name(name)
        asked = key_requests.read_scopes(self._default_scopes if scopes is None else scopes)
        days = key_requests.read_expiry_days(self._default_expiry_days if expires_in_days is None else expires_in_days)
        if granted is not None:
            key_requests.require_granted(asked, granted)
        return KeyPlan(name, asked, float(days * _DAY_S))

    async def make(
        self, account: str, plan: KeyPlan, *, created_by: str, origin: Origin, asked_at: float | None = None
    ) -> tuple[KeyRecord, ApiKey]:
        """Make a planned key. The `ApiKey` is the only place where its secret will ever be.

        `asked_at` (Unix seconds; None is now) is when the key counts as made.

        Raises:
            InvalidRequest: for an impossible account.
            Conflict: when the account has as many active keys as it may have.
            Overloaded: when too many secrets wait to be hashed.
        """
        # Not the time after the hash, which may wait: a key asked for before its account was revoked counts as older.
        now = self._clock() if asked_at is None else asked_at
        _require_usable(account)
        key = apikeys.mint(self._entropy(apikeys.ENTROPY_BYTES))
        record = KeyRecord(
            id=key.id,
            account=account,
            name=plan.name,
            prefix=apikeys.prefix(key),
            scopes=plan.scopes,
            secret_hash=await self._hasher.hash(key.secret),
            created_at=now,
            created_by=created_by,
            origin=origin,
            lifetime_s=plan.lifetime_s,
            expires_at=now + plan.lifetime_s,
        )
        if not await self._store.add(record, max_active=self._max_per_account, now=now):
            raise Conflict(
                "key_limit", f"This account has {self._max_per_account} active keys, the most it may have; revoke one"
            )
        return record, key

    async def page(
        self, account: str, limit: int = key_requests.DEFAULT_PAGE, cursor: str | None = None
    ) -> tuple[list[StoredKey], str | None]:
        """Return up to `limit` keys, newest first, and the cursor of the next page, None at the end.

        Raises:
            InvalidRequest: naming the parameter that is wrong.
        """
        size = key_requests.read_page_size(limit)
        after = None if cursor is None else key_requests.read_cursor(cursor)
        # One more than asked for tells whether there is a next page.
        found = await self._store.page(account, limit=size + 1, after=after)
        shown = found[:size]
        return shown, key_requests.write_cursor(shown[-1].record.id) if len(found) > size else None

    async def get(self, account: str, key_id: str) -> StoredKey:
        """Return one key.

        Raises:
            NotFound: when this account has no such key.
        """
        stored = await self._store.get(account, key_id) if apikeys.is_key_id(key_id) else None
        if stored is None:
            raise NotFound("key_not_found", "There is no such key")
        return stored

    async def revoke(self, account: str, key_id: str) -> None:
        """End a key for good. Once revoked it is only told of again. Its successor, if it has one, lives on.

        Raises:
            NotFound: when this account has no such key.
        """
        now = self._clock()
        if not await self._change(account, key_id, lambda record: (_revoked(record, now), None)):
            await self._store.note_change(account)  # the notice of the first time may have been lost

    async def rotate(
        self,
        account: str,
        key_id: str,
        grace_s: int | None = None,
        *,
        created_by: str,
        origin: Origin,
        granted: tuple[str, ...] | None,
        asked_at: float | None = None,
    ) -> tuple[KeyRecord, ApiKey]:
        """Give an active key a successor with its name, scopes and lifetime; the old one ends after `grace_s` seconds.

        One that the old key had replaced itself ends now: there are never more than two of a line.

        Raises:
            InvalidRequest: for an impossible `grace_s`.
            NotFound: when this account has no such key.
            InsufficientScope: when the key has scopes beyond `granted`: its successor would be handed out.
            Conflict: when the key is not active, or has a successor already.
            Overloaded: when too many secrets wait to be hashed.
        """
        now = self._clock() if asked_at is None else asked_at
        grace = key_requests.read_grace_s(self._rotation_grace_s if grace_s is None else grace_s)
        old = (await self.get(account, key_id)).record
        _require_rotatable(old, now)
        # A revocation of the account that was cut short may have left this key unmarked; a successor would outlive it.
        if old.created_at < await self._store.revoked_before(account):
            raise Conflict("key_not_active", _ONLY_ACTIVE)
        if granted is not None:
            key_requests.require_granted(old.scopes, granted)
        key = apikeys.mint(self._entropy(apikeys.ENTROPY_BYTES))
        successor = _successor(old, key, await self._hasher.hash(key.secret), now, created_by, origin)

        def change(record: KeyRecord) -> tuple[KeyRecord, KeyRecord]:
            _require_rotatable(record, now)
            ends = min(record.expires_at, now + grace)
            return replace(record, expires_at=ends, replaced_by=key.id, version=record.version + 1), successor

        await self._change(account, key_id, change)
        if old.replaces is not None:
            await self.revoke(account, old.replaces)
        return successor, key

    async def usage(self, account: str, key_id: str) -> Usage:
        """Count how often a key was used.

        Raises:
            NotFound: when this account has no such key.
        """
        await self.get(account, key_id)
        return await self._store.usage(account, key_id, self._clock())

    async def revoke_account(self, account: str, before: float | None = None) -> int:
        """End all tokens and keys issued to an account before this moment (Unix seconds; None is now).

        Returns how many keys it ended. From the first step on nothing older is admitted; marking the keys shows it.

        Raises:
            InvalidRequest: for an impossible account, or a moment that is not past: that can't be taken back, and
                would end what is yet to come.
        """
        _require_usable(account)
        now = self._clock()
        moment = now if before is None else before
        if not 0 < moment <= now:
            raise InvalidRequest("revocation_moment", "before: must be a moment in the past")
        await self._store.revoke_account(account, moment)
        ended, after = 0, None
        while found := await self._store.page(account, limit=key_requests.MAX_PAGE, after=after):
            after = found[-1].record.id
            for stored in found:
                if stored.record.created_at < moment and stored.record.revoked_at is None:
                    await self._change(account, stored.record.id, lambda record: (_revoked(record, now), None))
                    ended += 1
        return ended

    async def _change(
        self, account: str, key_id: str, change: Callable[[KeyRecord], tuple[KeyRecord, KeyRecord | None]]
    ) -> bool:
        """Write what `change` makes of the record, and its successor; False when it is the same record."""
        for _ in range(_ATTEMPTS):
            record = (await self.get(account, key_id)).record
            changed, successor = change(record)
            if changed is record:
                return False
            if await self._store.replace(changed, successor=successor):
                return True
        raise Conflict("key_busy", "This key is being changed by others; try again")


def _require_usable(account: str) -> None:
    if not usable_account(account):
        raise InvalidRequest("key_account", "account: must be 1 to 128 of A-Z a-z 0-9 . _ : | @ + / = -")


def _revoked(record: KeyRecord, now: float) -> KeyRecord:
    if record.revoked_at is not None:
        return record
    return replace(record, revoked_at=now, version=record.version + 1)


def _require_rotatable(record: KeyRecord, now: float) -> None:
    if apikeys.status(record, now) != "active":
        raise Conflict("key_not_active", _ONLY_ACTIVE)
    if record.replaced_by is not None:
        raise Conflict("key_replaced", f"This key was rotated before; rotate its successor {record.replaced_by}")


def _successor(old: KeyRecord, key: ApiKey, secret_hash: str, now: float, created_by: str, origin: Origin) -> KeyRecord:
    return replace(
        old,
        id=key.id,
        prefix=apikeys.prefix(key),
        secret_hash=secret_hash,
        created_at=now,
        created_by=created_by,
        # A key that came over REST stays one, so that no rotation frees it from what its origin asks for.
        origin=old.origin if origin == "cli" else "rest",
        expires_at=now + old.lifetime_s,
        replaces=old.id,
        version=1,
    )
