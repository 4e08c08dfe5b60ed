"""Where log lines go: a file, a terminal, or a pipe whose reader may have stopped reading."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
from collections import deque
from typing import BinaryIO, Final

MAX_WAITING_BYTES: Final = 1_048_576
"""Lines that wait for a reader; what does not fit is dropped and counted."""
_RETRY_S: Final = 0.05
_LAST_WORDS_S: Final = 0.5
_ATOMIC_BYTES: Final = select.PIPE_BUF
"""So much a pipe takes as a whole or not at all (POSIX, `write`): lines of several processes don't mix."""


class LineSink:
    """Writes whole lines and never waits for who reads them, nor fails: a request goes on whatever becomes of its line.

    On an event loop, the lines of one tick are written together. A line is one write, or part of one, so that
    processes which share a sink do not cut each other's lines: at any length in a file, up to `PIPE_BUF` in a pipe.
    """

    def __init__(self, sink: BinaryIO, *, is_shared: bool = False) -> None:
        """Take over the sink. `is_shared`: other processes of ours write to it too, and go on after this one."""
        self._sink = sink
        self._descriptor = _descriptor(sink)
        self._is_pipe = self._descriptor is not None and _is_pipe(self._descriptor)
        self._is_shared = is_shared
        if self._descriptor is not None and self._is_pipe:
            os.set_blocking(self._descriptor, False)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._scheduled: asyncio.Handle | None = None
        self._has_finished = False
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Take one line, its end included."""
        if self._descriptor is None:
            self._write_through(line)
            return
        if self._has_finished or self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        if self._scheduled is None:
            self._schedule(0)

    def flush(self) -> None:
        """Do nothing: lines go out by themselves."""

    def finish(self) -> None:
        """Write what waits, giving a reader half a second; drop the rest, and leave the pipe as it was found.

        Not where it is shared: to wait or not belongs to the pipe, not to the process.
        """
        if self._descriptor is None:
            return
        self._push()
        if self._waiting:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            if poll.poll(_LAST_WORDS_S * 1000):
                self._push()
        self._has_finished = True
        if self._scheduled is not None:
            self._scheduled.cancel()
        self.dropped += len(self._waiting)
        self._waiting.clear()
        if self._is_pipe and not self._is_shared:
            os.set_blocking(self._descriptor, True)

    def _schedule(self, seconds: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._push()
            return
        self._scheduled = loop.call_later(seconds, self._push) if seconds else loop.call_soon(self._push)

    def _push(self) -> None:
        self._scheduled = None
        while self._waiting and self._descriptor is not None:
            lines, count = self._next_write()
            try:
                written = os.write(self._descriptor, lines)
            except BlockingIOError:
                self._schedule_again()
                return
            except OSError:
                written, self.dropped = len(lines), self.dropped + count
            self._take(count)
            if written < len(lines):
                self._waiting.appendleft(lines[written:])
                self._waiting_bytes += len(lines) - written

    def _schedule_again(self) -> None:
        with contextlib.suppress(RuntimeError):  # without a loop the next line tries again
            asyncio.get_running_loop()
            self._schedule(_RETRY_S)

    def _next_write(self) -> tuple[bytes, int]:
        """Return as many lines as go out together, and how many they are."""
        if not self._is_pipe:
            return b"".join(self._waiting), len(self._waiting)
        size, count = 0, 0
        for line in self._waiting:
            if count and size + len(line) > _ATOMIC_BYTES:
                break
            size, count = size + len(line), count + 1
        return b"".join([self._waiting[number] for number in range(count)]), count

    def _take(self, count: int) -> None:
        for _ in range(count):
            self._waiting_bytes -= len(self._waiting.popleft())

    def _write_through(self, line: bytes) -> None:
        try:
            self._sink.write(line)
        except (OSError, ValueError):
            self.dropped += 1


def _descriptor(sink: BinaryIO) -> int | None:
    """Return what the operating system calls the sink; None for one in memory."""
    try:
        return sink.fileno()
    except (OSError, ValueError):
        return None


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
