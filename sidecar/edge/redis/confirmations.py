"""Calls that wait for a person: a hash for each, in its account's slot, and the id of the last one for each binding."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from typing import Any, Final

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import names
from sidecar.edge.redis.commands import Script
from sidecar.edge.redis.link import OnRedis
from sidecar.edge.redis.scanning import names_like
from sidecar.policy.confirmation import MOST_WAITING, MOVES, OPEN
from sidecar.records import Confirmation
from sidecar.stores import TooManyWait

KEEP: Final = Script("keep_confirmation")
MOVE: Final = Script("move_confirmation")
KEPT_AFTER_S: Final = 60.0


class RedisConfirmations(OnRedis):
    """Confirmations, each moved by one script. Expiry is by the time that callers give; forgetting is Redis's own."""

    async def keep(self, confirmation: Confirmation, now: float) -> Confirmation:
        """See `stores.ConfirmationStore`. An approval's account is named first: a name for nothing is harmless."""
        account, lives_ms = confirmation.account, _lives_ms(confirmation.expires_at + KEPT_AFTER_S, now)
        keys = [names.confirmation_for(account, confirmation.binding), names.confirmation(account, confirmation.id)]
        if confirmation.kind == "approval":
            keys.append(names.waiting(account))
            await self._link.call("SET", names.approval(confirmation.id), account, "PX", lives_ms)
        found = await self._link.run(
            KEEP,
            keys,
            names.confirmation(account, ""),
            confirmation.id,
            json.dumps(asdict(confirmation), ensure_ascii=False, separators=(",", ":")),
            confirmation.state,
            repr(now),
            lives_ms,
            _listed(OPEN),
            repr(confirmation.expires_at),
            MOST_WAITING,
        )
        if found is None:
            return confirmation
        if confirmation.kind == "approval":
            await self._link.call("DEL", names.approval(confirmation.id))
        if not found:
            raise TooManyWait
        return _read(found)

    async def confirmation(self, account: str, confirmation_id: str) -> Confirmation | None:
        """See `stores.ConfirmationStore`."""
        name = names.confirmation(account, confirmation_id)
        found = await self._link.call("HMGET", name, "record", "state", "by")
        return None if found[0] is None else _read(found)

    async def move(self, account: str, confirmation_id: str, move: str, now: float, by: str | None = None) -> bool:
        """See `stores.ConfirmationStore`."""
        before, after = MOVES[move]
        even_expired = "1" if move == "withdraw" else ""
        keys = (names.confirmation(account, confirmation_id), names.waiting(account))
        done = await self._link.run(
            MOVE, keys, _listed(before), after, repr(now), by or "", even_expired, confirmation_id
        )
        return bool(done)

    async def account_of_approval(self, confirmation_id: str) -> str | None:
        """See `stores.ConfirmationStore`."""
        account: bytes | None = await self._link.call("GET", names.approval(confirmation_id))
        return None if account is None else account.decode()

    async def approvals(self) -> AsyncIterator[Confirmation]:
        """See `stores.ConfirmationStore`."""
        async for name in names_like(self._link, names.ALL_APPROVALS):
            approval = await self._approval(name.decode().rpartition(":")[2])
            if approval is not None:
                yield approval

    async def use_once(self, account: str, name: str, expires_at: float, now: float) -> bool:
        """See `stores.ConfirmationStore`."""
        if expires_at <= now:
            return False
        lives_ms = _lives_ms(expires_at + KEPT_AFTER_S, now)
        return await self._link.call("SET", names.used(account, name), "1", "NX", "PX", lives_ms) is not None

    async def _approval(self, confirmation_id: str) -> Confirmation | None:
        account = await self.account_of_approval(confirmation_id)
        return None if account is None else await self.confirmation(account, confirmation_id)


def _lives_ms(until: float, now: float) -> int:
    return max(1, round((until - now) * 1000))


def _listed(states: Iterable[str]) -> str:
    return f",{','.join(sorted(states))},"


def _read(found: list[bytes | None]) -> Confirmation:
    record, state, by = found
    try:
        fields: dict[str, Any] = json.loads(record or b"")
        decided_by = None if by is None else by.decode()
        return Confirmation(**{**fields, "state": (state or b"").decode(), "decided_by": decided_by})
    except (ValueError, TypeError) as error:
        detail = f"a stored confirmation is unreadable: {error!r}"
        raise StoreUnavailable("store_unavailable", detail=detail) from error
