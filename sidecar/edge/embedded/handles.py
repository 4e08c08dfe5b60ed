"""To whom the upstream gave its sessions and tasks: rows that outlive a restart, and their copies in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.bounded import BoundedDict
from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded.database import Database
from sidecar.model import Handle

MAX_COPIES: Final = 10_000
WRITTEN_AGAIN_AFTER: Final = 0.1
"""Share of the idle time: a use is written down only then, so that a busy session costs few writes. A crash forgets
no more than that much of a session's idle time."""
READS_AT_ONCE: Final = 100
"""So many, about 10 µs each, before others have their turn on the event loop."""

READ: Final = "SELECT owner, bound_at, expires_at, elicits FROM handles WHERE account = ? AND kind = ? AND digest = ?"
WRITE: Final = (
    "INSERT INTO handles (account, kind, digest, owner, bound_at, expires_at, elicits) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (account, kind, digest) DO UPDATE SET owner = excluded.owner, bound_at = excluded.bound_at,"
    " expires_at = excluded.expires_at, elicits = excluded.elicits"
)
FORGET: Final = "DELETE FROM handles WHERE account = ? AND kind = ? AND digest = ? AND owner = ?"

Name = tuple[str, str, str]
"""Account, kind and a digest of the id."""


@dataclass(slots=True)
class Bound:
    """A handle as it is remembered. Times are Unix seconds."""

    owner: str
    bound_at: float
    expires_at: float
    written_until: float
    """The expiry that is on file."""
    elicits: bool


class SqliteHandles:
    """Only the one process that serves binds handles, so its memory is never older than the file."""

    _database: Database
    _clock: Callable[[], float]
    _bound: BoundedDict[Name, Bound]
    _writing: set[asyncio.Task[None]]

    async def bind(self, account: str, handle: Handle, now: float) -> None:
        """See `stores.HandleStore`."""
        expires_at = now + handle.idle_s
        bound = Bound(handle.owner, now, expires_at, expires_at, handle.elicits)
        await self._write(name_of(account, handle.kind, handle.id), bound)
        self._bound[name_of(account, handle.kind, handle.id)] = bound

    async def release(self, account: str, handle: Handle) -> None:
        """See `stores.HandleStore`."""
        name = name_of(account, handle.kind, handle.id)
        await self._database.write(lambda writer: writer.execute(FORGET, (*name, handle.owner)))
        self._bound.pop(name, None)

    async def owned(self, account: str, owner: str, kind: str, ids: Sequence[str]) -> frozenset[str]:
        """See `stores.HandleStore`."""
        now, found = self._clock(), []
        for number, each in enumerate(ids, 1):
            bound = self._find(name_of(account, kind, each), now)
            if bound is not None and bound.owner == owner:
                found.append(each)
            if number % READS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return frozenset(found)

    async def elicits(self, account: str, owner: str, session_id: str) -> bool:
        """See `stores.HandleStore`."""
        bound = self._find(name_of(account, "session", session_id), self._clock())
        return bound is not None and bound.owner == owner and bound.elicits

    def known(self, account: str, handle: Handle, now: float, revoked_before: float) -> Bound | None:
        """Return what is remembered of the handle if it is its owner's, and still good."""
        bound = self._find(name_of(account, handle.kind, handle.id), now)
        good = bound is not None and bound.owner == handle.owner and bound.bound_at >= revoked_before
        return bound if good else None

    def use(self, account: str, handle: Handle, bound: Bound, now: float) -> None:
        """Put off the handle's end."""
        name = name_of(account, handle.kind, handle.id)
        bound.expires_at = max(bound.expires_at, now + handle.idle_s)
        self._bound.pop(name, None)  # to the end of the queue: what is forgotten first is what was not used for longest
        self._bound[name] = bound
        if bound.expires_at - bound.written_until > handle.idle_s * WRITTEN_AGAIN_AFTER:
            bound.written_until = bound.expires_at
            task = asyncio.get_running_loop().create_task(self._write_quietly(name, bound))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def written(self) -> None:
        """Return when all uses that were to be written are."""
        if self._writing:
            await asyncio.wait(self._writing)

    def _find(self, name: Name, now: float) -> Bound | None:
        bound = self._bound.get(name)
        if bound is None:
            rows = self._database.read(READ, *name)
            if not rows:
                return None
            owner, bound_at, expires_at, elicits = rows[0]
            bound = self._bound[name] = Bound(owner, bound_at, expires_at, expires_at, bool(elicits))
        if bound.expires_at <= now:
            del self._bound[name]
            return None
        return bound

    async def _write(self, name: Name, bound: Bound) -> None:
        row = (*name, bound.owner, bound.bound_at, bound.expires_at, bound.elicits)
        await self._database.write(lambda writer: writer.execute(WRITE, row))

    async def _write_quietly(self, name: Name, bound: Bound) -> None:
        try:
            await self._write(name, bound)
        except StoreUnavailable:
            bound.written_until = 0.0  # the next use tries again


def name_of(account: str, kind: str, handle_id: str) -> Name:
    """Return what a handle is called here; its id is the upstream's own text, of any length."""
    return account, kind, hashlib.sha256(handle_id.encode()).hexdigest()
