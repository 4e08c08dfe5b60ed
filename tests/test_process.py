"""What becomes of a fault that nobody awaits."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from sidecar.edge.telemetry import Telemetry
from sidecar.process import run

SECRET = "the-secret-of-somebody"


class Faulty:
    """A service that, once started, has a callback that fails."""

    def __init__(self, log: io.BytesIO, stop: asyncio.Event) -> None:
        self.telemetry = Telemetry(log, level="info", access=True)
        self._stop = stop

    async def start(self) -> None:
        asyncio.get_running_loop().call_soon(self._fail)

    async def stop(self, *, delayed: bool) -> None:
        """There is nothing to let go of."""

    def _fail(self) -> None:
        self._stop.set()
        raise ValueError(SECRET)


async def test_it_is_told_in_the_log_by_its_place_and_nowhere_by_its_text(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log, stop = io.BytesIO(), asyncio.Event()
    async with asyncio.timeout(5):
        assert await run(Faulty(log, stop), stop) == 0
    [told] = map(json.loads, log.getvalue().splitlines())
    assert (told["event"], told["level"]) == ("fault", "error")
    assert told["problem"].startswith("ValueError at _fail:")
    assert SECRET not in f"{log.getvalue()!r}{capfd.readouterr()}{caplog.text}"
