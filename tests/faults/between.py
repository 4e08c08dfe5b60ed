"""What lies between the sidecar and Redis: an address, and a way of some length."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.redis_server import RedisServer


class Between:
    """Leads each new connection to `server`; those that stand stay where they are.

    What is read off the one end is written to the other `delay_s` later.
    """

    def __init__(self, path: Path, server: RedisServer) -> None:
        self._path = path
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.server = server
        self.delay_s = 0.0
        self.asked = 0
        """How often something was sent to the server: never more often than there were trips to it."""
        self.url = f"unix://{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stand between one client and the server."""
        behind = await asyncio.open_unix_connection(self.server.url.removeprefix("unix://"))
        self._writers |= {writer, behind[1]}
        for source, target in ((reader, behind[1]), (behind[0], writer)):
            task = asyncio.ensure_future(self._pump(source, target, counts=source is reader))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counts: bool) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                self.asked += counts
                if counts and self.delay_s:
                    loop.call_later(self.delay_s, _write, target, data)
                else:
                    target.write(data)
        if counts and self.delay_s:
            await asyncio.sleep(self.delay_s)  # what is on its way arrives before the end
        target.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Between]:
        server = await asyncio.start_unix_server(self.serve, str(self._path))
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            closed = [writer.wait_closed() for writer in self._writers]
            await asyncio.gather(*self._tasks, *closed, return_exceptions=True)  # some have left before


def _write(target: asyncio.StreamWriter, data: bytes) -> None:
    if not target.is_closing():
        target.write(data)
