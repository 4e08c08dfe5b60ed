"""API-key records: a hash per key, and per account two sorted sets, of all keys and of those not revoked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import names
from sidecar.edge.redis.changes import RedisChanges
from sidecar.edge.redis.commands import Script
from sidecar.edge.redis.scanning import names_like
from sidecar.policy.windows import US_PER_S
from sidecar.records import KeyRecord, StoredKey

ADD: Final = Script("add_key")
REPLACE: Final = Script("replace_key")
PAGE: Final = Script("page")


TIMES: Final = ("last_used", "returned", "silent")
"""What `admit` writes beside a record, in microseconds."""
CLAIM_S: Final = 60
"""How long the name of a key that is not there yet may stand for nothing."""


class RedisKeys(RedisChanges):
    """Keys, each under its account's hash tag; who knows only an id finds the account through a name of its own."""

    async def account_of(self, key_id: str) -> str | None:
        """See `stores.KeyStore`."""
        account: bytes | None = await self._link.call("GET", names.owner(key_id))
        return None if account is None else account.decode()

    async def get(self, account: str, key_id: str) -> StoredKey | None:
        """See `stores.KeyStore`."""
        record, *times_us = await self._link.call("HMGET", names.record(account, key_id), "record", *TIMES)
        return None if record is None else stored_key(record, times_us)

    async def add(self, record: KeyRecord, *, max_active: int | None, now: float) -> bool:
        """See `stores.KeyStore`. An id that is taken is not added either."""
        if not await self._claim(record):
            return False
        account = record.account
        added = await self._link.run(
            ADD,
            (names.record(account, record.id), names.key_list(account), names.active_keys(account)),
            *written(record),
            "" if max_active is None else max_active,
            repr(now),
        )
        return await self._settled(record, bool(added))

    async def replace(self, record: KeyRecord, *, successor: KeyRecord | None = None) -> bool:
        """See `stores.KeyStore`."""
        if successor is not None and not await self._claim(successor):
            return False
        account = record.account
        keys = [names.record(account, record.id), names.key_list(account), names.active_keys(account)]
        arguments = written(record)
        if successor is not None:
            keys.append(names.record(account, successor.id))
            arguments += written(successor)
        replaced = bool(await self._link.run(REPLACE, keys, *arguments))
        if replaced:
            await self.note_change(account)
        return replaced if successor is None else await self._settled(successor, replaced)

    async def page(self, account: str, *, limit: int, after: str | None) -> list[StoredKey]:
        """See `stores.KeyStore`."""
        ids: list[bytes] = await self._link.run(PAGE, (names.key_list(account),), limit, after or "")
        found = await asyncio.gather(*[self.get(account, key_id.decode()) for key_id in ids])
        return [key for key in found if key is not None]

    async def accounts(self) -> AsyncIterator[str]:
        """See `stores.KeyStore`."""
        async for name in names_like(self._link, names.ALL_KEY_LISTS):
            yield names.account_in(name)

    async def _claim(self, record: KeyRecord) -> bool:
        """Name the key's account before there is a key: should the second step fail, a name for nothing is harmless."""
        claim = ("SET", names.owner(record.id), record.account, "NX", "EX", CLAIM_S)
        if await self._link.call(*claim) is not None:
            return True
        return await self.account_of(record.id) == record.account

    async def _settled(self, record: KeyRecord, added: bool) -> bool:
        """Make the claim last when there is a key now; else it goes by itself, unless it is of a key that was there."""
        if added:
            await self._link.call("PERSIST", names.owner(record.id))
        return added


def written(record: KeyRecord) -> list[str]:
    """Return a record as the scripts take it: id, version, JSON, creation, expiry, and whether it is revoked."""
    return [
        record.id,
        str(record.version),
        json.dumps(asdict(record), separators=(",", ":")),
        repr(record.created_at),
        repr(record.expires_at),
        "" if record.revoked_at is None else "1",
    ]


def key_record(text: bytes) -> KeyRecord:
    """Read a record back.

    Raises:
        StoreUnavailable: when it is not one.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        return KeyRecord(**{**fields, "scopes": tuple(fields["scopes"])})
    except (ValueError, TypeError, KeyError) as error:
        raise StoreUnavailable("store_unavailable", detail=f"a stored key record is unreadable: {error!r}") from error


def stored_key(record: bytes, times_us: Sequence[bytes | None]) -> StoredKey:
    """Put a record and its `TIMES` together."""
    return StoredKey(
        key_record(record), *[None if time_us is None else int(time_us) / US_PER_S for time_us in times_us]
    )
