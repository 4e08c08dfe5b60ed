"""Answers that are being streamed: how many there may be, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from math import ceil
from typing import Final, cast

from sidecar.denials import Denial, StoreUnavailable
from sidecar.edge.http.exchange import Exchange
from sidecar.faults import place_of
from sidecar.model import Principal
from sidecar.ports import Observer, UpstreamAnswer
from sidecar.stores import RevocationStore

EXPIRED: Final = "expired"
REVOKED: Final = "revoked"
UNCONFIRMED: Final = "unconfirmed"
SHUTDOWN: Final = "shutdown"
LOOK_S: Final = 0.5
"""How often changes to credentials are asked for while streams are open: a revocation reaches them within 1 s."""
LOOKS_A_ROUND: Final = 50
"""Every stream is looked at once in so many looks, about 25 s, because the notice of a change can be lost."""
SLICE: Final = 50
"""Streams that are looked at before others get a turn of the event loop."""
FAREWELL_S: Final = 0.25
"""How long a client has to take what was sent before its stream's end, until its connection is broken off."""
_OUR_FAULT: Final = 500
PAUSE_S: Final = 15.0
"""Silence after which a comment is sent, below the idle time of common load balancers (60 s) and clients (30 s)."""


class _Awaited:
    """In the place of an answer that has not begun: the task that would send it."""

    __slots__ = ("_answers", "_exchange", "refusal", "task")

    def __init__(self, answers: _Answers, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        self._answers = answers
        self._exchange = exchange
        self.task = cast("asyncio.Task[object]", asyncio.current_task(loop))
        self.refusal: Denial | None = None

    def __enter__(self) -> None:
        self._answers[self._exchange] = self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._answers.pop(self._exchange, None)
        if self.refusal is not None and kind is asyncio.CancelledError and self.task.uncancel() == 0:
            raise self.refusal from None  # else the client has left, too

    def refuse(self, denial: Denial) -> None:
        """Break off whatever the answer waits for, which lets go of the upstream."""
        self.refusal = denial
        self.task.cancel()


_Answers = dict[Exchange, "UpstreamAnswer | _Awaited"]


class OpenStreams:
    """All streams of this process, and the requests whose answers have not begun.

    Expiry ends the streams that would go on for ever (GET, and `subscriptions/listen` since 2026-07-28), and so does
    our own end; revocation ends every stream, and gives every request whose answer has not begun its refusal. Streams
    end cleanly, but where the client does not read: then its connection ends with the stream.

    `offline_grace_s` may be changed while it is in use.
    """

    def __init__(
        self,
        changes: RevocationStore,
        recheck: Callable[[Principal], Awaitable[Principal]],
        observer: Observer,
        *,
        offline_grace_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._changes = changes
        self._recheck = recheck
        self._observer = observer
        self.offline_grace_s = offline_grace_s
        self._clock = clock
        self._sleep = sleep
        self._loop = asyncio.get_running_loop()
        self._answers: _Answers = {}
        """In the order in which they were last looked at, the longest ago first."""
        self._expiries: dict[Exchange, asyncio.TimerHandle] = {}
        self._farewells: dict[Exchange, asyncio.TimerHandle] = {}
        self._takes_endless = True
        self._fresh: set[Exchange] = set()
        """Not looked at yet: what changed between their admission and the first look is told of only once."""

    def begin(self, exchange: Exchange) -> contextlib.AbstractContextManager[None]:
        """Watch over a request from before it is sent on; its answer may be opened within.

        Raises:
            Denial: the caller's credential was revoked, and nothing of an answer was sent.
        """
        return _Awaited(self._answers, exchange, self._loop)

    @contextlib.contextmanager
    def open(self, exchange: Exchange, answer: UpstreamAnswer) -> Iterator[None]:
        """Watch over an answer while it streams."""
        self._answers[exchange] = answer
        self._fresh.add(exchange)
        if exchange.is_endless:
            self._expire_in_time(exchange)
            if not self._takes_endless:
                self._end(exchange, SHUTDOWN)
        try:
            yield
        finally:
            self._answers.pop(exchange, None)
            self._fresh.discard(exchange)
            for timers in (self._expiries, self._farewells):
                timer = timers.pop(exchange, None)
                if timer is not None:
                    timer.cancel()

    def end_endless(self) -> None:
        """End what would never end by itself, also what begins from now on."""
        self._takes_endless = False
        for exchange in tuple(self._expiries):
            self._end(exchange, SHUTDOWN)

    async def watch(self) -> None:
        """End streams whose key, token or account was revoked, for as long as this runs.

        While the store is away nothing is heard of that. After `offline_grace_s` streams of API keys end, as new
        requests with a key that the store can't confirm are refused then. Those of tokens go on: a token is proved by
        its signature, and its revocation during an outage is honoured when the store is back, or else its expiry.
        """
        since: str | None = None
        away_since: float | None = None
        while True:
            await self._sleep(LOOK_S)
            if not self._answers:
                since = away_since = None
                continue
            try:
                reached, accounts = await self._changes.changes(since)
                # What changed between a stream's admission and the beginning of the record is not in it.
                await self._look_at(None if since is None else accounts)
                since = reached  # only now: what could not be looked at is to be told of again
                away_since = None
            except StoreUnavailable:  # asked again in a moment, from the same place on
                away_since = self._clock() if away_since is None else away_since
                if self._clock() - away_since > self.offline_grace_s:
                    await self._end_unconfirmed()
            except Exception as fault:  # a watch that stops would let revoked streams run on
                since = None
                self._observer.event("streams_unwatched", level="error", problem=place_of(fault))

    async def _end_unconfirmed(self) -> None:
        for number, exchange in enumerate(tuple(self._answers)):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            principal = exchange.progress.principal
            if principal is not None and principal.kind == "api_key":
                self._end(exchange, UNCONFIRMED)

    async def _look_at(self, accounts: frozenset[str] | None) -> None:
        """Look at the streams of these accounts (None is all), at the new ones, and at those whose turn it is."""
        in_turn = ceil(len(self._answers) / LOOKS_A_ROUND)
        for number, exchange in enumerate(tuple(self._answers)):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            principal = exchange.progress.principal
            if principal is None or exchange not in self._answers:
                continue
            if accounts is None or principal.account in accounts or exchange in self._fresh or number < in_turn:
                await self._look(exchange, principal)

    async def _look(self, exchange: Exchange, principal: Principal) -> None:
        try:
            exchange.progress.principal = await self._recheck(principal)
        except Denial as denial:
            if isinstance(denial, StoreUnavailable):
                raise
            if denial.status < _OUR_FAULT:
                self._revoke(exchange, denial)
        else:
            self._fresh.discard(exchange)
            if exchange in self._expiries:
                self._expire_in_time(exchange)
        finally:  # also when it could not be found out: one whose record is damaged must not stand before all others
            if exchange in self._answers:
                self._answers[exchange] = self._answers.pop(exchange)

    def _expire_in_time(self, exchange: Exchange) -> None:
        earlier = self._expiries.get(exchange)
        if earlier is not None:
            earlier.cancel()
        self._expiries[exchange] = self._loop.call_later(exchange.valid_for_s, self._end, exchange, EXPIRED)

    def _revoke(self, exchange: Exchange, denial: Denial) -> None:
        awaited = self._answers.get(exchange)
        if not isinstance(awaited, _Awaited):
            self._end(exchange, REVOKED)
        elif awaited.refusal is None:
            exchange.ended_by = REVOKED
            awaited.refuse(denial)

    def _end(self, exchange: Exchange, reason: str) -> None:
        answer = self._answers.get(exchange)
        if answer is not None and not isinstance(answer, _Awaited) and exchange not in self._farewells:
            exchange.ended_by = reason
            answer.close()
            self._farewells[exchange] = self._loop.call_later(FAREWELL_S, exchange.abandon)
