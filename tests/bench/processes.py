"""Programs that are started for the measurement, and that end with it whatever happens."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench.errors import NotStarted

_START_S: Final = 30.0
_STOP_S: Final = 10.0
_DESCRIPTORS: Final = 65_536
_KEPT_FREE: Final = 128


class Process:
    """A running program. What it writes to standard error is kept, for when it does not start."""

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self._started_at = time.perf_counter()
        self.ready_after_s = 0.0
        """How long it took from its start until it was ready."""
        self._errors = directory / f"{name.replace(' ', '-')}-{time.monotonic_ns()}.err"
        # It must not outlive us even when we are killed, and then nobody is left to end it.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for us: we end everything, in order
            )
        self.pid = self._process.pid

    def wait_until(self, ready: Callable[[], bool], *, every_s: float = 0.005) -> None:
        """Return when it is ready.

        Raises:
            NotStarted: it ended, or takes too long.
        """
        deadline = time.monotonic() + _START_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                last_words = self._errors.read_text(errors="replace")[-800:].strip()
                raise NotStarted(f"{self.name} did not start: {last_words}")
            time.sleep(every_s)
        self.ready_after_s = time.perf_counter() - self._started_at

    def stop(self) -> None:
        """Ask it to end, and see to it that it does."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def running(name: str, command: Sequence[str], directory: Path, ready: Callable[[], bool]) -> Iterator[Process]:
    """Have a program run, from when it is ready to the end of the block."""
    process = Process(name, command, directory)
    try:
        process.wait_until(ready)
        yield process
    finally:
        process.stop()


def free_port() -> int:
    """Return a port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Tell whether somebody takes connections there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def raise_descriptor_limit() -> None:
    """Let this process and those that it starts have as many descriptors as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for soft, new_hard in ((_DESCRIPTORS, max(_DESCRIPTORS, hard)), (min(_DESCRIPTORS, hard), hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, new_hard))
            return


def max_connections() -> int:
    """Return how many clients a proxy can have at once, each with a connection of its own to the upstream."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (soft - _KEPT_FREE) // 2
