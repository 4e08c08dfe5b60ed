"""The store that needs no server: SQLite for keys and revocations, limits in the memory of the one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.bounded import BoundedDict
from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded.activity import SqliteActivity
from sidecar.edge.embedded.admission import LocalAdmission
from sidecar.edge.embedded.claim import sole_server
from sidecar.edge.embedded.confirmations import SqliteConfirmations
from sidecar.edge.embedded.copies import Copies
from sidecar.edge.embedded.database import Database
from sidecar.edge.embedded.handles import MAX_COPIES
from sidecar.edge.embedded.keys import SqliteKeys
from sidecar.edge.embedded.limits import MemoryLimits
from sidecar.edge.embedded.pins import SqlitePins
from sidecar.edge.embedded.revocations import SqliteRevocations
from sidecar.edge.embedded.usage import UsageCounts

__all__ = ["EmbeddedStore", "MemoryLimits", "sole_server"]

PROBE_S: Final = 0.5
"""Who asks whether the file takes writes seldom waits a second for the answer; a change may wait longer."""


class EmbeddedStore(LocalAdmission, SqliteActivity, SqliteConfirmations, SqliteKeys, SqlitePins, SqliteRevocations):
    """`stores.Store` in one process and one file, which the command may change meanwhile."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._copies = Copies(database)
        self._limits = MemoryLimits(clock)
        self._failures = MemoryLimits(clock)
        self._usage = UsageCounts(database, clock)
        self._bound = BoundedDict(MAX_COPIES)
        self._writing = set()

    @classmethod
    async def open(
        cls,
        path: str,
        *,
        clock: Callable[[], float],
        busy_timeout_s: float = 2.0,
        note_change: Callable[[float], None] = lambda _: None,
    ) -> EmbeddedStore:
        """Open the file, or make it (0600, in a directory of 0700).

        Args:
            path: The SQLite file.
            clock: Unix seconds.
            busy_timeout_s: How long a change waits for another process that is changing the file.
            note_change: Told of each change, well or badly, how many seconds it took.

        Raises:
            StoreUnavailable: The path can't be written, or what is there is not ours or too new.
        """
        return cls(await Database.open(path, busy_timeout_s=busy_timeout_s, note_change=note_change), clock)

    async def ping(self) -> None:
        """See `stores.Store`. By writing: a file that is locked, or whose disk is full, can be read all the same."""
        try:
            async with asyncio.timeout(PROBE_S):
                await self._database.write(lambda writer: writer.execute("UPDATE probe SET number = number + 1"))
        except TimeoutError as error:
            detail = f"no change could be made within {PROBE_S:g} s"
            raise StoreUnavailable("store_unavailable", detail=detail) from error
        self._copies.refresh()

    async def warnings(self) -> tuple[str, ...]:
        """See `stores.Store`."""
        return ()

    async def aclose(self) -> None:
        """See `stores.Store`."""
        try:
            await self.written()
            await self._usage.aclose()
        finally:
            await self._database.aclose()
