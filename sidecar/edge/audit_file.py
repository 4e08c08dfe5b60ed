"""The file of the audit: whole lines at its end, by several processes, across rotation. All of it awaits the disk."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sidecar.policy.audit import CHECKPOINT, END, START, Chain, Scribe, digest, moment

_LOCK_WITHIN_S: Final = 5.0
_LOCK_RETRY_S: Final = 0.005
_PIECE_BYTES: Final = 65_536
_MODE: Final = 0o600


class AuditFile:
    """Appends records, and follows the file when it is moved away or emptied: there another chain begins.

    Others append, too: a lock (flock) is held while the last line is looked at and lines are added. What could not be
    written whole is taken back, so that a full disk leaves no half of a line. `about` are members of each chain's
    first record; `chain_id` returns a new one each time. For one thread at a time.
    """

    def __init__(
        self,
        path: str,
        scribe: Scribe,
        *,
        about: Mapping[str, Any],
        chain_id: Callable[[], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path)
        self.scribe = scribe
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), **about}
        self._chain_id = chain_id
        self._clock = clock
        self._descriptor = -1
        self._chain = Chain("")
        self._size = 0
        """Of the file, when we last added to it; its last line then was ours."""

    def open(self) -> None:
        """Begin a chain in the file, which is made when it is not there.

        Raises:
            OSError: it can't be written, or is no regular file.
        """
        self.append(())

    def append(self, records: Sequence[Mapping[str, Any]], *, checkpoint: bool = False) -> None:
        """Add records, and a signed one after them if asked for.

        Raises:
            OSError: nothing of it was added.
        """
        if self._descriptor >= 0 and self._has_moved():
            self._leave()
        if self._descriptor < 0:
            self._descriptor = _opened(self._path)
        signed = [{"time": moment(self._clock()), "kind": CHECKPOINT}] if checkpoint else []
        self._add([*records, *signed])

    def sync(self) -> None:
        """Return when all that was added is on the disk.

        Raises:
            OSError: it may not be.
        """
        os.fsync(self._descriptor)

    def close(self, records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Add the last records and end the chain.

        Raises:
            OSError: nothing of it was added, or it may not be on the disk.
        """
        try:
            self.append([*records, self._end()])
            self.sync()
        finally:
            self._let_go()

    def _end(self) -> dict[str, Any]:
        return {"time": moment(self._clock()), "kind": END}

    def _has_moved(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self._descriptor)
        return (found.st_dev, found.st_ino) != (ours.st_dev, ours.st_ino)

    def _leave(self) -> None:
        """End the chain where the file was moved to, if that can be done."""
        try:
            with contextlib.suppress(OSError):
                self._add([self._end()])
                os.fsync(self._descriptor)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._size = -1, 0

    def _add(self, records: Sequence[Mapping[str, Any]]) -> None:
        with _locked(self._descriptor, fcntl.LOCK_EX):
            size = os.fstat(self._descriptor).st_size
            chain, is_ours = self._chain, self._size > 0
            if size < self._size or not is_ours:  # emptied by whoever copies it, or new to us
                chain, records = Chain(self._chain_id()), [self._start(), *records]
            before, is_torn = (chain.hash, False) if size == self._size and is_ours else self._last_line(size)
            lines, chain = self.scribe.write(chain, before, records)
            self._write(b"\n" + lines if is_torn else lines, size)
            self._chain, self._size = chain, os.fstat(self._descriptor).st_size

    def _start(self) -> dict[str, Any]:
        record = {"time": moment(self._clock()), "kind": START, **self._about}
        if self._chain.seq:
            record["continues"] = {"chain": self._chain.id, "seq": self._chain.seq, "hash": self._chain.hash}
        return record

    def _last_line(self, size: int) -> tuple[str | None, bool]:
        """Return the hash of the line at the end of the file, None in an empty one, and whether it is unfinished."""
        end, start = b"", size
        while start and b"\n" not in end[:-1]:
            start = max(0, start - _PIECE_BYTES)
            end = os.pread(self._descriptor, size - start, start)
        is_torn = bool(end) and not end.endswith(b"\n")
        line = end.removesuffix(b"\n").rpartition(b"\n")[2]
        return (digest(line) if end else None), is_torn

    def _write(self, data: bytes, size: int) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            if written:
                with contextlib.suppress(OSError):  # a file that can't be cut: who comes next says that it was so
                    os.ftruncate(self._descriptor, size)
            raise


def lines_of(path: str) -> Iterator[bytes]:
    """Yield the lines of a file as far as they are written now; of a compressed one, too.

    Raises:
        OSError: it can't be read.
    """
    if path.endswith(".gz"):
        with gzip.open(path) as packed:
            yield from packed
        return
    with Path(path).open("rb") as file:
        with _locked(file.fileno(), fcntl.LOCK_SH):
            left = os.fstat(file.fileno()).st_size
        for line in file:
            yield line[:left]
            left -= len(line)
            if left <= 0:
                return


def _opened(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, _MODE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return descriptor


@contextlib.contextmanager
def _locked(descriptor: int, how: int) -> Iterator[None]:
    """Hold the lock of a file, without waiting for ever: its holder may have been stopped."""
    give_up = time.monotonic() + _LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise
            time.sleep(_LOCK_RETRY_S)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
