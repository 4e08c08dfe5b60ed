"""The way to Redis: calls of one event-loop tick share one round trip, and every trip has one deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from redis.exceptions import ConnectionError as BadConnection
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, RedisError

from sidecar.edge.redis.commands import Argument, Call, Script, pack, settle
from sidecar.edge.redis.conversation import Conversation
from sidecar.edge.redis.deadline import Deadline
from sidecar.policy.windows import US_PER_S

MAX_TRIPS: Final = 4
"""Trips under way at once, each on a connection of its own; what comes meanwhile waits and shares the next one."""
PAUSE_S: Final = 0.25
"""After a trip that failed, calls fail at once for so long; then one call finds out, and others do not wait for it."""
OPENING_S: Final = 2.0
"""A connection that takes longer to open is given up. It may take longer than a trip: greetings go to and fro, and a
Redis that is far away, but not too far to decide in time, is to be reached by a later trip."""
MAX_CALLS: Final = 256
"""Calls that share one trip."""
NOT_THE_MASTER: Final = ("-READONLY ", "-MASTERDOWN ", "-LOADING ")
"""How that reads within the error of a script."""


def unnoted(news: object) -> None:
    """Take no note."""


def untroubled() -> None:
    """Do nothing about a trip that failed."""


class Elsewhere(Protocol):
    """Sends a call on that was not done because another node has its keys; False when the reply is not about that."""

    def __call__(self, call: Call, reply: Any, left_s: float) -> bool: ...


class Way:
    """The way to wherever a key is: one Redis, or the master of its slot."""

    def send(self, packed: bytes, script: Script | None, key: str) -> asyncio.Future[Any]:
        """Send a command that was packed before, with what else is sent there in this tick.

        A caller that gives up disturbs nobody. `key` is any of its keys, or the account that is the tag of all.

        Raises:
            StoreUnavailable: out of the future, for whatever goes wrong.
        """
        raise NotImplementedError

    def call(self, *arguments: Argument) -> asyncio.Future[Any]:
        """Send one command, whose first argument is a key if it has any; see `send`."""
        return self.send(pack(arguments), None, str(arguments[1]) if len(arguments) > 1 else "")

    def run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        """Run a script; see `send`."""
        return self.send(script.packed(keys, arguments), script, keys[0])

    async def masters(self) -> Sequence[Way]:
        """Return a way to each Redis that keys are on, for what is asked of all; a key does not matter there.

        Raises:
            StoreUnavailable: nobody says which they are.
        """
        raise NotImplementedError

    async def probe(self, name: str, lives_ms: int) -> None:
        """Write something for so long.

        Raises:
            StoreUnavailable: it can't be written.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Wait for what is under way and close every connection."""
        raise NotImplementedError


class Link(Way):
    """Sends calls to one Redis and hands each its own reply. Belongs to the event loop that it was made on."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Conversation]],
        timeout_s: float,
        note_trip: Callable[[float], None] = unnoted,
        *,
        troubled: Callable[[], None] = untroubled,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """Take no connection yet.

        Args:
            connect: Opens a connection; is not waited for longer than `OPENING_S`.
            timeout_s: The deadline of every round trip.
            note_trip: Told of each trip, well or badly, how many seconds it took.
            troubled: Called after each trip that failed.
            elsewhere: Asked of each reply of a cluster's node.
        """
        self._connect = connect
        self._troubled = troubled
        self._elsewhere = elsewhere
        self._note_trip = note_trip
        self._loop = asyncio.get_running_loop()
        self._idle: list[Conversation] = []
        self._openings: list[asyncio.Task[Conversation]] = []
        """Connections that came too late for the trip they were opened for, or still are on their way."""
        self._epoch = 0
        """Counts how often all connections were left: a read that a former master answers must not keep it."""
        self._timeout_s = timeout_s
        self._waiting: list[Call] = []
        self._trips: set[asyncio.Task[None]] = set()
        self._boarding = False
        self._closed = False
        self._problem: Exception | None = None
        self._paused_until = 0.0

    def send(self, packed: bytes, script: Script | None, key: str = "") -> asyncio.Future[Any]:
        """See `Way`. All keys are there."""
        call = Call(packed, self._loop.create_future(), script)
        self.take(call)
        return call.future

    def take(self, call: Call) -> None:
        """Send a call whose future there is already."""
        if self._closed:
            settle(call.future, ConnectionError("the store is closed"))
        elif self._problem is not None and (self._trips or self._loop.time() < self._paused_until):
            settle(call.future, self._problem)
        else:
            self._waiting.append(call)
            if not self._boarding:
                self._board()

    async def masters(self) -> Sequence[Way]:
        """See `Way`."""
        return (self,)

    async def probe(self, name: str, lives_ms: int) -> None:
        """See `Way`."""
        await self.call("SET", name, "1", "PX", lives_ms)

    def leave(self) -> None:
        """Close the connections that there are: another is the master. Those under way follow when they are done."""
        self._epoch += 1
        openings, self._openings = self._openings, []
        idle, self._idle = self._idle, []
        for opening in openings:
            if not opening.cancel() and not opening.cancelled() and opening.exception() is None:
                idle.append(opening.result())
        for conversation in idle:
            conversation.close()

    async def aclose(self) -> None:
        """See `Way`."""
        while self._trips:
            await asyncio.wait(self._trips)
        self._closed = True
        await self._leave_all()

    def _board(self) -> None:
        """Begin a trip for who waits; it departs in the next tick with all that have come until then."""
        if self._waiting and not self._boarding and len(self._trips) < MAX_TRIPS:
            self._boarding = True
            trip = self._loop.create_task(self._travel())
            self._trips.add(trip)
            trip.add_done_callback(self._arrived)

    def _arrived(self, trip: asyncio.Task[None]) -> None:
        self._trips.discard(trip)
        self._board()

    async def _travel(self) -> None:
        self._boarding = False
        calls, self._waiting = self._waiting[:MAX_CALLS], self._waiting[MAX_CALLS:]
        self._board()
        if not calls:
            return  # a trip that failed has told them
        departed = time.perf_counter()
        try:
            try:
                async with Deadline(self._timeout_s):
                    replies = await self._exchange(calls)
            except TimeoutError as error:
                raise TimeoutError(f"no answer within {self._timeout_s:g} s") from error
            finally:
                self._note_trip(time.perf_counter() - departed)
        except BaseException as error:
            self._fail(calls, error)
            if not isinstance(error, RedisError | OSError | TimeoutError):
                raise
            self._problem = error
            self._paused_until = self._loop.time() + PAUSE_S
            self._troubled()
        else:
            self._problem = None
            left_s = self._timeout_s - (time.perf_counter() - departed)
            for call, reply in zip(calls, replies, strict=True):
                if self._elsewhere is None or not self._elsewhere(call, reply, left_s):
                    settle(call.future, reply)

    def _fail(self, calls: list[Call], error: BaseException) -> None:
        """Tell those aboard, and those who wait for room: a trip of their own would only take as long once more."""
        waiting, self._waiting = self._waiting, []
        for call in (*calls, *waiting):
            settle(call.future, error)

    async def _exchange(self, calls: list[Call]) -> list[Any]:
        epoch, conversation = self._epoch, await self._conversation()
        replies = await conversation.ask(b"".join([call.packed for call in calls]), len(calls))
        if any(type(reply) is NoScriptError for reply in replies):
            await self._teach(conversation, calls, replies)
        for reply in replies:
            if isinstance(reply, RedisError) and is_not_the_master(reply):
                # Only new connections can reach the one that is the master now.
                conversation.close()
                await self._leave_all()
                raise reply
        if epoch == self._epoch:
            self._idle.append(conversation)
        else:
            conversation.close()
        return replies

    async def _conversation(self) -> Conversation:
        while self._idle:
            conversation = self._idle.pop()
            if conversation.is_live():
                return conversation
            conversation.close()
        opening = self._opening()
        began = self._loop.time()
        try:
            conversation = await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._openings.append(opening)
            raise
        if self._loop.time() - began > self._timeout_s / 2:
            # What is left is too little, and being late would close it again.
            self._idle.append(conversation)
            raise TimeoutError
        return conversation

    def _opening(self) -> asyncio.Task[Conversation]:
        """Return what was opened for an earlier trip, or open a new connection."""
        while self._openings:
            opening = self._openings.pop()
            if not opening.done() or (opening.exception() is None and opening.result().is_live()):
                return opening
        return asyncio.create_task(self._open())

    async def _open(self) -> Conversation:
        async with asyncio.timeout(OPENING_S):
            return await self._connect()

    async def _teach(self, conversation: Conversation, calls: list[Call], replies: list[Any]) -> None:
        """Load scripts again: Redis was restarted or flushed. The calls did not run, so they can't count twice."""
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        sources = {script.source for i in unknown if (script := calls[i].script)}
        again = [pack(("SCRIPT", "LOAD", source)) for source in sources] + [calls[i].packed for i in unknown]
        fresh = await conversation.ask(b"".join(again), len(again))
        for i, reply in zip(unknown, fresh[len(sources) :], strict=True):
            replies[i] = reply

    async def _leave_all(self) -> None:
        """Leave, and wait until every connection is closed that is not under way."""
        openings, idle = self._openings, self._idle
        self.leave()
        opened = await asyncio.gather(*openings, return_exceptions=True)
        idle += [conversation for conversation in opened if isinstance(conversation, Conversation)]
        await asyncio.gather(*[conversation.aclose() for conversation in idle])


class OnRedis:
    """What every part of the store stands on."""

    def __init__(self, link: Way, clock: Callable[[], float] | None) -> None:
        self._link = link
        self._clock = clock

    def passed_us(self) -> str:
        """Return the time for a script: nothing, so that it asks Redis's clock, unless a test has its own."""
        return "" if self._clock is None else str(round(self._clock() * US_PER_S))


def is_not_the_master(error: RedisError) -> bool:
    """Tell whether Redis takes nothing on this connection: another one does, it is loading, or it knows us no more."""
    if isinstance(error, ReadOnlyError | MasterDownError | BadConnection):
        return True
    return any(sign in str(error) for sign in NOT_THE_MASTER)
