"""Key sets under a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sidecar.edge.jwks import KeySets, KeySource
from tests.issuer import FailingIssuer


class Clock:
    """Time that passes when told to. Whoever sleeps here is woken by `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._asleep = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, woken))
        self._asleep.set()
        await woken

    async def advance(self, seconds: float) -> None:
        """Let time pass; return when what this woke is asleep again."""
        self.now += seconds
        due = [woken for at, woken in self._sleepers if at <= self.now]
        self._sleepers = [(at, woken) for at, woken in self._sleepers if at > self.now]
        if due:
            self._asleep.clear()
            for woken in due:
                woken.set_result(None)
            await self.settled()

    async def settled(self) -> None:
        """Return when the one background task has done its work and sleeps."""
        async with asyncio.timeout(5):
            await self._asleep.wait()


class Keeper:
    """Key sets under test, their clock, and what they report."""

    def __init__(self, sources: Mapping[str, KeySource], timeout_s: float) -> None:
        self.clock = Clock()
        self.reports: list[tuple[str, str]] = []
        self.keys = KeySets(
            sources,
            report=lambda issuer, event, detail: self.reports.append((event, detail)),
            timeout_s=timeout_s,
            clock=self.clock,
            sleep=self.clock.sleep,
            jitter=lambda: 1.0,
        )


@asynccontextmanager
async def keeping(issuer: str, source: KeySource, *, timeout_s: float = 2.0) -> AsyncIterator[Keeper]:
    """Start, and wait until the first fetch is done, well or badly."""
    keeper = Keeper({issuer: source}, timeout_s)
    await keeper.keys.start()
    try:
        await keeper.clock.settled()
        yield keeper
    finally:
        await keeper.keys.aclose()


def kid(issuer: FailingIssuer) -> str:
    """Return the id of the key that signs now."""
    return issuer.keys[-1].kid
