"""Both ends of the line between the process that supervises and a process that works.

The line is a socket pair, the worker's standard input. First comes the job: its length in 4 bytes, then a pickle, so
that secrets stand neither in arguments nor in the environment. Then the supervisor asks in lines, `<number> <what>`,
or `<number> <what> <base64 of a pickle>` where there is something to hand over, and the worker answers
`<number> <JSON>` in any order. Its end tells either side that the other one is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pickle
import signal
import socket
import sys
from asyncio.subprocess import Process
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

_LENGTH_BYTES: Final = 4
_MAX_LINE_BYTES: Final = 1 << 24
_STDIN: Final = 0


class WorkerProcess:
    """A worker, as its supervisor sees it."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = process.pid
        self._process = process
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def begin(cls, module: str, job: object) -> WorkerProcess:
        """Start `python -m module` on this interpreter's path, and hand it the job.

        It gets a session of its own, because Ctrl-C is for the supervisor to act upon.

        Raises:
            OSError: there can be no more processes.
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as unless_begun:
            unless_begun.callback(ours.close)
            with theirs:
                # -P: nothing is imported from the working directory unless this process does so, too.
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", module),
                    stdin=theirs.fileno(),
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                    start_new_session=True,
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_MAX_LINE_BYTES)
            unless_begun.pop_all()
        data = pickle.dumps(job)
        writer.write(len(data).to_bytes(_LENGTH_BYTES) + data)
        return cls(process, reader, writer)

    async def ask(self, what: str, *about: object) -> Any:
        """Return the answer, however long it takes. `about` is handed over with the question, one thing or nothing.

        Raises:
            ConnectionError: the worker has ended, or ends before it answers.
        """
        if self._listening.done():
            raise ConnectionResetError("the worker has ended")
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        words = [str(number), what, *(b64encode(pickle.dumps(thing)).decode() for thing in about)]
        self._writer.write(" ".join(words).encode() + b"\n")
        try:
            return await answer
        finally:
            del self._asked[number]

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait until it has ended; return its exit code, or the signal that ended it as a negative number."""
        code = await self._process.wait()
        self._writer.close()
        return code

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            async for line in self._reader:
                number, _, document = line.partition(b" ")
                answer = self._asked.get(int(number))
                if answer is not None and not answer.done():
                    answer.set_result(orjson.loads(document))
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the worker has ended"))


class SupervisorLink:
    """The supervisor, as a worker sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls) -> tuple[SupervisorLink, Any]:
        """Take up the line, and return it with the job.

        Raises:
            EOFError: the supervisor is gone.
            OSError: standard input is no such line.
        """
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=_STDIN))
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES))
        job = pickle.loads(await reader.readexactly(length))  # noqa: S301 - our own parent's, and nobody else holds the line
        return cls(reader, writer), job

    async def answer(self, answers: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
        """Answer what is asked until the supervisor is gone."""
        with contextlib.suppress(ConnectionError):
            async for line in self._reader:
                number, what, *about = line.decode().split()
                things = [pickle.loads(b64decode(thing)) for thing in about]  # noqa: S301 - as above
                task = asyncio.create_task(self._answer(number, answers[what](*things)))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _answer(self, number: str, answer: Awaitable[Any]) -> None:
        self._writer.write(b"%b %b\n" % (number.encode(), orjson.dumps(await answer)))
