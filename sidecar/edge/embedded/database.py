"""One SQLite file: read on the event loop, written by one thread, and shared with other processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded.schema import MIGRATIONS

T = TypeVar("T")
Row = tuple[Any, ...]
RETRY_S: Final = 0.01
GIVEN_UP_AFTER_S: Final = 10.0
"""A change that has not ended by then, on a disk that hangs, is nobody's to wait for; it may still come about."""
READ_TIMEOUT_S: Final = 0.05
"""Readers wait for nobody in WAL mode, but for the moment in which another process opens or recovers the file."""


class Database:
    """The file behind the embedded store. Whatever SQLite raises comes out as `StoreUnavailable`."""

    def __init__(
        self,
        reader: sqlite3.Connection,
        writer: sqlite3.Connection,
        thread: ThreadPoolExecutor,
        busy_timeout_s: float,
        note_change: Callable[[float], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._thread = thread
        self._busy_timeout_s = busy_timeout_s
        self._note_change = note_change
        self._closed = False

    @classmethod
    async def open(
        cls, path: str, *, busy_timeout_s: float, note_change: Callable[[float], None] = lambda _: None
    ) -> Database:
        """Open the file, making it and bringing its schema up to date where needed.

        `note_change` is told of each change, well or badly, how many seconds it took.

        Raises:
            StoreUnavailable: The path can't be written, or what is there is not ours or too new.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="sidecar-store")
        try:
            with translated():
                writer = await asyncio.get_running_loop().run_in_executor(thread, open_writer, path, busy_timeout_s)
                return cls(open_reader(path), writer, thread, busy_timeout_s, note_change)
        except StoreUnavailable as problem:
            thread.shutdown(wait=False)
            raise StoreUnavailable("store_unavailable", detail=f"{path}: {problem.detail}") from problem
        except BaseException:
            thread.shutdown(wait=False)
            raise

    def read(self, sql: str, *parameters: Any) -> list[Row]:
        """Run one query, right here: for reads of a few rows, which cost microseconds."""
        try:
            return self._reader.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise unavailable(error) from error

    async def read_later(self, sql: str, *parameters: Any) -> list[Row]:
        """Run one query on the writing thread, after the changes that were handed to it before."""
        return await self._on_thread(lambda writer: writer.execute(sql, parameters).fetchall())

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do this in one transaction on the writing thread; when it returns, it is on disk.

        Whoever waited behind others for a file that somebody has locked waits no longer than the first of them.
        """
        began = time.monotonic()
        deadline = began + self._busy_timeout_s

        def change(writer: sqlite3.Connection) -> T:
            left_ms = max(0, round((deadline - time.monotonic()) * 1000))
            writer.execute(f"PRAGMA busy_timeout = {left_ms}")
            return transact(writer, work)

        try:
            return await self._on_thread(change)
        finally:
            self._note_change(time.monotonic() - began)

    async def aclose(self) -> None:
        """Close both connections and end the thread; what was handed to it before is done first."""
        if self._closed:
            return
        self._closed = True
        with translated():
            self._reader.close()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
        self._thread.shutdown()

    async def _on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreUnavailable("store_unavailable", detail="the store is closed")
        with translated():
            try:
                async with asyncio.timeout(GIVEN_UP_AFTER_S):
                    return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._writer)
            except TimeoutError as error:
                raise TimeoutError(f"not done within {GIVEN_UP_AFTER_S:g} s") from error


def open_writer(path: str, busy_timeout_s: float) -> sqlite3.Connection:
    """Open the connection that writes, on the thread that will use it."""
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    writer = connect(path, busy_timeout_s)
    try:
        use_wal(writer, busy_timeout_s)
        writer.execute("PRAGMA synchronous = FULL")
        transact(writer, migrate)
    except BaseException:
        writer.close()
        raise
    return writer


def use_wal(writer: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Switch a new file to WAL. SQLite waits for nobody here: of several that open the file at once, one may switch."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            writer.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return


def open_reader(path: str) -> sqlite3.Connection:
    """Open the connection that only reads."""
    reader = connect(path, READ_TIMEOUT_S)
    reader.execute("PRAGMA query_only = ON")
    return reader


def connect(path: str, busy_timeout_s: float) -> sqlite3.Connection:
    """Open a connection that begins and ends its transactions only when told to."""
    return sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)


def migrate(writer: sqlite3.Connection) -> None:
    """Bring the schema up to date, from whichever version it has."""
    version = writer.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise sqlite3.DatabaseError(f"the file has schema {version}, this program knows {len(MIGRATIONS)}")
    for migration in MIGRATIONS[version:]:
        for statement in migration:
            writer.execute(statement)
    if version < len(MIGRATIONS):
        writer.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def transact(writer: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do all of it or nothing."""
    writer.execute("BEGIN IMMEDIATE")
    try:
        result = work(writer)
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise
    return result


@contextmanager
def translated() -> Iterator[None]:
    """Let nothing of SQLite or the operating system out."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> StoreUnavailable:
    """Return what callers know this as."""
    return StoreUnavailable("store_unavailable", detail=f"{type(error).__name__}: {error}")
