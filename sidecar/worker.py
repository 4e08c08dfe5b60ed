"""One of several processes that serve the public port. `workers` starts it; it is no command for people."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any, Final

import uvloop

from sidecar.app import Sidecar
from sidecar.config import Config
from sidecar.edge.telemetry import Family
from sidecar.edge.worker_link import SupervisorLink
from sidecar.faults import place_of
from sidecar.process import run

_ORPHANS_STOP_S: Final = 1.0
"""Short, because whoever ended the supervisor that way wants the port back."""


class Worker:
    """A sidecar that tells its supervisor how it does, and does not outlive it."""

    def __init__(self, sidecar: Sidecar, supervisor: SupervisorLink, stop: asyncio.Event) -> None:
        self.telemetry = sidecar.telemetry
        self._sidecar = sidecar
        self._supervisor = supervisor
        self._stop = stop
        self._orphaned = False
        self._answering: asyncio.Task[None]

    async def start(self) -> None:
        """Start the sidecar; the first answer tells the supervisor that it has started."""
        await self._sidecar.start()
        self._answering = asyncio.create_task(self._answer())

    async def stop(self, *, delayed: bool) -> None:
        """Stop the sidecar, at once when there is nobody left to wait for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ORPHANS_STOP_S if self._orphaned else None):
                await self._sidecar.stop(delayed=delayed)
        self._answering.cancel()

    async def _answer(self) -> None:
        await self._supervisor.answer({"readiness": self._readiness, "metrics": self._metrics, "reload": self._reload})
        self._orphaned = True
        self._stop.set()  # before the line is written: the log's reader may be gone, too
        self.telemetry.event("supervisor_lost", level="error")

    async def _readiness(self) -> tuple[str, Any]:
        found = await self._sidecar.readiness()
        return found.status, found.checks

    async def _reload(self, config: Config) -> str | None:
        """Return why these settings can't take effect; None when they have."""
        try:
            await self._sidecar.reload(config)
        except (OSError, ValueError) as problem:
            return str(problem)
        except Exception as fault:  # the supervisor waits for an answer, whatever it is
            return place_of(fault)
        return None

    async def _metrics(self) -> list[Family]:
        await self._sidecar.look_again()
        return self.telemetry.families()


def main() -> int:
    """Work until the supervisor says so or is gone; return the exit code."""
    return uvloop.run(_work())


async def _work() -> int:
    try:
        supervisor, (number, config) = await SupervisorLink.open()
    except EOFError:
        return 1
    stop = asyncio.Event()
    return await run(Worker(Sidecar(config, worker=number), supervisor, stop), stop)


if __name__ == "__main__":
    sys.exit(main())
