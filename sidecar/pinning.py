"""Are the upstream's tools what was approved? The first list is (trust on first use); from then on, somebody says so.

Pins are kept in the store, so that replicas and restarts agree. A process goes by what it was told itself at its last
fetch, compared with what the store says was approved: an approval reaches it at the next look, a second later at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sidecar.denials import StoreUnavailable, ToolUnapproved, UpstreamNotReady
from sidecar.policy import pins
from sidecar.policy.pins import Change, State
from sidecar.records import Pinned, Sighting
from sidecar.stores import PinStore

LOOK_S: Final = 1.0
_CHANGES_AT_ONCE: Final = 50
_ATTEMPTS: Final = 20
"""How often a change is tried again when other processes change the same pins meanwhile."""


class PinReport(Protocol):
    """Hears what becomes of the pins."""

    def pinned(self, tools: int) -> None:
        """Take note that so many tools were approved because they were the first."""
        ...

    def changed(self, changed: Sequence[Change]) -> None:
        """Take note of definitions that are others than before. Of several processes, one is told."""
        ...

    def stand(self, counts: Mapping[State, int]) -> None:
        """Take note of how many tools stand how."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an upstream's definitions: as last told, and as approved; None for what is not."""

    seen: Mapping[str, str] | None = None
    approved: Mapping[str, str] | None = None


class Pinning:
    """Compares and remembers. Where it does not `block`, it only tells."""

    def __init__(
        self,
        store: PinStore,
        upstream: str,
        *,
        blocks: bool,
        report: PinReport,
        clock: Callable[[], float],
        known: Known | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._blocks = blocks
        self._report = report
        self._clock = clock
        self._sleep = sleep
        self.known = known or Known()
        self._version = -1
        self._unsettled: Mapping[str, Sighting] | None = None
        """What was fetched and has not been compared with the pins, because the store did not answer."""
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def require_approved(self, tool: str) -> None:
        """See `ports.ToolPins`."""
        if self._blocks and not self.shown((tool,)):
            raise ToolUnapproved("tool_unapproved")

    def shown(self, tools: Iterable[str]) -> frozenset[str]:
        """See `ports.ToolPins`."""
        if not self._blocks:
            return frozenset(tools)
        seen, approved = self.known.seen, self.known.approved
        if seen is None:
            raise UpstreamNotReady("catalogue_missing")
        if approved is None:
            raise StoreUnavailable("pins_missing", detail="it is not known yet which tools were approved")
        return frozenset([tool for tool in tools if tool in seen and seen[tool] == approved.get(tool)])

    def note(self, seen: Mapping[str, Sighting]) -> None:
        """Go by these definitions from now on; `settle` compares them with what the store has."""
        self.known = Known({name: sighting.digest for name, sighting in seen.items()}, self.known.approved)
        self._unsettled = seen

    async def settle(self) -> None:
        """Read what was approved, and tell of what changed. A store that does not answer is asked again later."""
        async with self._one_at_a_time:
            with contextlib.suppress(StoreUnavailable):
                pinned = await self._store.pinned(self._upstream)
                seen = self._unsettled
                if seen is not None:
                    pinned = await self._compared(pinned, seen)
                    if self._unsettled is seen:
                        self._unsettled = None
                self._go_by(pinned)

    def start(self) -> None:
        """Begin to look for approvals."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                version = await self._store.pins_version(self._upstream)
                if version != self._version or self._unsettled is not None:
                    await self.settle()
            await self._sleep(LOOK_S)

    async def _compared(self, pinned: Pinned, seen: Mapping[str, Sighting]) -> Pinned:
        """Write what this list changes and return the pins then; tell of what was written, also if no more could be."""
        done: list[Change] = []
        try:
            for _ in range(_ATTEMPTS):
                left = pins.changes(pinned, seen, self._clock())
                while left:
                    some, left = left[:_CHANGES_AT_ONCE], left[_CHANGES_AT_ONCE:]
                    after = await self._write(pinned, some, is_complete=pinned.is_complete or not left)
                    if after is None:
                        pinned = await self._store.pinned(self._upstream)
                        break
                    pinned = after
                    done += some
                else:
                    break
        finally:
            self._tell(done)
        return pinned

    async def _write(self, pinned: Pinned, some: Sequence[Change], *, is_complete: bool) -> Pinned | None:
        changed = [(name, after) for name, _, after in some]
        version = await self._store.change_pins(self._upstream, pinned.version, changed, is_complete=is_complete)
        return None if version is None else pins.applied(pinned, some, version=version, is_complete=is_complete)

    def _tell(self, done: Sequence[Change]) -> None:
        first = [change for change in done if pins.is_first(change)]
        others = [change for change in done if not pins.is_first(change)]
        if first:
            self._report.pinned(len(first))
        if others:
            self._report.changed(others)

    def _go_by(self, pinned: Pinned) -> None:
        self._version = pinned.version
        self.known = Known(self.known.seen, pins.approved(pinned))
        self._report.stand(pins.counts(pinned))


class NoPins:
    """Stands in where no tool needs an approval."""

    def require_approved(self, tool: str) -> None:
        """Let everything pass."""

    def shown(self, tools: Iterable[str]) -> frozenset[str]:
        """Let everything pass."""
        return frozenset(tools)
