"""How long may a trip take? Longer by as much as we ourselves are late to look."""

from __future__ import annotations

import asyncio
from typing import Any, Final

LAST_LOOKS: Final = 3
"""Turns of the event loop after the deadline: one reads the socket, one the replies, one hands them over."""


class Deadline:
    """Bounds a trip like `asyncio.timeout`, but not by our own slowness.

    When the event loop comes late to look, the replies may long be here, unread: they are read before time is called.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look_again, LAST_LOOKS)

    async def __aexit__(self, *raised: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(*raised)

    def _look_again(self, times: int) -> None:
        loop = asyncio.get_running_loop()
        if times:
            self._timer = loop.call_later(0, self._look_again, times - 1)
        else:
            self._timeout.reschedule(loop.time())
