"""What the inside needs of a store: ports, like those of `ports`.

Every method may raise `denials.StoreUnavailable`; nothing else of a driver's may come out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from sidecar.model import Admission, Handle, Limit, Quota, Verdict
from sidecar.records import Confirmation, KeyRecord, Pin, Pinned, StoredKey, Unusual, Usage


class AdmissionStore(Protocol):
    """The one trip of the hot path: standing, limits and usage counts, all or nothing."""

    async def admit(self, admission: Admission) -> Verdict:
        """Judge all limits together and spend one unit of each, or spend nothing at all.

        In this order: a key whose version differs from `key_version` (or is gone) answers *key_changed*; a token
        that was revoked, or anything with `issued_at` before the account's revocation moment, answers *revoked*;
        a handle that is not bound to this account and owner (or was before that moment) answers *handle_unknown*;
        a limit without a unit left answers *good* with that quota's `retry_s` above 0. In these cases nothing is
        spent; only a refusal by limit is added to the key's usage as *refused*. Otherwise one unit of each limit is
        spent, and for a key its last use is set and its usage (*requests*, and *writes* when `write`) counted.

        With `how` *shadow*, a refusal by limit spends nothing either, and all else is done as if it were none. With
        *peek* the answer is the same, but for units that would have been spent, and nothing is changed.
        """
        ...

    async def count_refusal(self, account: str, key_id: str) -> None:
        """Add one refused request to a key's usage, for refusals that never got as far as `admit`."""
        ...


class FailureCounter(Protocol):
    """Counts failed authentication per client address, in one sliding window."""

    async def peek(self, address: str, limit: Limit) -> Quota:
        """Tell whether another failure would still be within the limit, spending nothing."""
        ...

    async def record(self, address: str, limit: Limit) -> Quota:
        """Spend one unit if one is left; else spend nothing and say when one returns."""
        ...


class KeyStore(Protocol):
    """API-key records, each reachable only through its account. What a change means is decided in `keyring`."""

    async def account_of(self, key_id: str) -> str | None:
        """Name the account that a key belongs to. It never changes, so callers may remember it."""
        ...

    async def get(self, account: str, key_id: str) -> StoredKey | None:
        """Read one key of this account; another account's key is not there."""
        ...

    async def add(self, record: KeyRecord, *, max_active: int | None, now: float) -> bool:
        """Add a new key; False, and nothing done, when `max_active` keys are neither revoked nor expired at `now`."""
        ...

    async def replace(self, record: KeyRecord, *, successor: KeyRecord | None = None) -> bool:
        """Write a changed record, and add its successor with it, atomically.

        `record.version` must be the stored version plus one; False, and nothing done, when it is not.
        """
        ...

    async def note_change(self, account: str) -> None:
        """Tell all processes that a credential of this account has changed, as `replace` does by itself."""
        ...

    async def page(self, account: str, *, limit: int, after: str | None) -> list[StoredKey]:
        """Return up to `limit` keys, newest first (by `created_at`, then id), following the key with id `after`.

        An `after` that is not a key of this account returns nothing.
        """
        ...

    def accounts(self) -> AsyncIterator[str]:
        """Walk all accounts that have keys, each once, in no order. For operators, not for the hot path."""
        ...

    async def usage(self, account: str, key_id: str, now: float, days: int = 30) -> Usage:
        """Count by hour and by day (UTC), the ones that contain `now` last. `days` are from 3 to 30."""
        ...


class RevocationStore(Protocol):
    """Ends tokens before they expire. `admit` honours both kinds."""

    async def meet(self, token_id: str, account: str, expires_at: float) -> bool:
        """Note, at the first sight of a token, which account it is for; False when it was revoked before.

        After this returned True, a later `revoke_token` is seen by `admit` under the account.
        """
        ...

    async def is_revoked(self, token_id: str) -> bool:
        """Tell whether this token was revoked, and note nothing."""
        ...

    async def revoke_token(self, token_id: str) -> None:
        """End this token, seen before or not, everywhere."""
        ...

    async def revoke_account(self, account: str, before: float) -> None:
        """End whatever was issued to the account before this moment. Never moves an earlier decision back."""
        ...

    async def revoked_before(self, account: str) -> float:
        """Return that moment; 0 when there is none."""
        ...

    async def changes(self, since: str | None) -> tuple[str, frozenset[str] | None]:
        """Return where the record of revocations and changed keys stands now, and whose have changed since then.

        None for the accounts: any may have. With `since` None nothing is known to have changed: the caller begins here.
        """
        ...


class HandleStore(Protocol):
    """Remembers to whom the upstream gave its sessions and tasks. `admit` asks it, and counts as a use."""

    async def bind(self, account: str, handle: Handle, now: float) -> None:
        """Remember the handle for its account and owner. The last one to be given an id has it."""
        ...

    async def release(self, account: str, handle: Handle) -> None:
        """Forget it; nothing happens when it is another's or unknown."""
        ...

    async def owned(self, account: str, owner: str, kind: str, ids: Sequence[str]) -> frozenset[str]:
        """Return which of these ids are bound to this account and owner."""
        ...

    async def elicits(self, account: str, owner: str, session_id: str) -> bool:
        """Tell whether this is a session of this account and owner whose client can ask a person."""
        ...


class PinStore(Protocol):
    """Remembers which definitions of an upstream's tools were approved; `upstream` is a short name of it."""

    async def pins_version(self, upstream: str) -> int:
        """Return a number that grows with every change of its pins; 0 when there never was one."""
        ...

    async def pinned(self, upstream: str) -> Pinned:
        """Return all its pins, as they stood together."""
        ...

    async def change_pins(
        self, upstream: str, version: int, changed: Sequence[tuple[str, Pin | None]], *, is_complete: bool
    ) -> int | None:
        """Set or (None) drop these pins, by name, if the version is still this one: all or nothing.

        Returns the new version, or None when others have changed something meanwhile.
        """
        ...


class ActivityStore(Protocol):
    """Remembers what was unusual, by the id of a key; of an account's keys together, by the empty text."""

    async def note_unusual(self, account: str, key_id: str, found: Unusual, now: float) -> bool:
        """Remember this for `activity.KEEP_S`, in the place of an older one of its kind; False when it is no news.

        See `activity.is_news`. What is no news changes nothing.
        """
        ...

    async def unusual(self, account: str, now: float) -> Mapping[str, tuple[Unusual, ...]]:
        """Return all that is remembered of an account, in the order of its kinds."""
        ...


class TooManyWait(Exception):  # noqa: N818 - an answer, not an error of the program
    """An account has `policy.confirmation.MOST_WAITING` approvals waiting, and this one was not kept."""


class ConfirmationStore(Protocol):
    """Calls that wait for a person. What may happen to one is said by `policy.confirmation.MOVES`."""

    async def keep(self, confirmation: Confirmation, now: float) -> Confirmation:
        """Keep it, unless there is one for the same binding in a state of `OPEN` that has not expired: return that one.

        One that is over is remembered for a minute beyond its expiry, so that a late word can be told from none.

        Raises:
            TooManyWait: it is an approval, and so many of its account wait and have not expired.
        """
        ...

    async def confirmation(self, account: str, confirmation_id: str) -> Confirmation | None:
        """Read one of this account, expired or not."""
        ...

    async def move(self, account: str, confirmation_id: str, move: str, now: float, by: str | None = None) -> bool:
        """Do one of `MOVES`, in one step; False, and nothing done, where its state does not allow it or it expired.

        `by` is who decided, if it is a decision. What expired can still be withdrawn.
        """
        ...

    async def account_of_approval(self, confirmation_id: str) -> str | None:
        """Name the account of an approval, for who knows only its id."""
        ...

    def approvals(self) -> AsyncIterator[Confirmation]:
        """Walk all approvals, in no order. For operators."""
        ...

    async def use_once(self, account: str, name: str, expires_at: float, now: float) -> bool:
        """Take note of something that may be used once, and until then; False when it was used or is over."""
        ...


class Store(
    AdmissionStore,
    FailureCounter,
    KeyStore,
    RevocationStore,
    HandleStore,
    PinStore,
    ActivityStore,
    ConfirmationStore,
    Protocol,
):
    """One environment's store: all of the above in one place."""

    async def ping(self) -> None:
        """Return when the store has taken a write: one that can only be read admits or keeps nothing new.

        Raises:
            StoreUnavailable: when it does not, or takes longer than who looks after a process waits.
        """
        ...

    async def warnings(self) -> tuple[str, ...]:
        """Tell what of the store's own set-up endangers what is kept in it; one sentence each."""
        ...

    async def aclose(self) -> None:
        """Write what is buffered and let go of every connection, file and thread."""
        ...
