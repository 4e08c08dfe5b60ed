"""How late is the event loop? Whatever waits for it, a new request first of all, waits for so long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import CollectorRegistry

from sidecar.edge.telemetry_durations import Durations

LOOK_S: Final = 0.25
_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class LoopLag:
    """By how much more than it should a short sleep takes, four times a second."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Durations("sidecar_loop_lag_seconds", "How late the event loop is.", _BOUNDS_S, registry)

    async def watch(
        self,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Look, for as long as this runs."""
        while True:
            began = now()
            await sleep(LOOK_S)
            self._durations.observe(max(0.0, now() - began - LOOK_S))
