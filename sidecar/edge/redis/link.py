"""The way to Redis: calls of one event-loop tick share one round trip, and every trip has one deadline."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import ConnectionError as BadConnection
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, RedisError

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis.conversation import Conversation
from sidecar.edge.redis.deadline import Deadline
from sidecar.edge.redis.pool import pool_of
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

Argument = str | int


class Script:
    """A Lua script that Redis keeps under its digest. `parts` are joined: shared functions first."""

    def __init__(self, *parts: str) -> None:
        directory = files("sidecar.edge.redis").joinpath("scripts")
        self.source = "".join(directory.joinpath(f"{part}.lua").read_text("utf-8") for part in parts)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def packed(self, keys: Sequence[str], arguments: Sequence[Argument]) -> bytes:
        """Write the command that runs it."""
        return pack(("EVALSHA", self.sha, len(keys), *keys, *arguments))


def unnoted(trip_s: float) -> None:
    """Take no note of how long a trip took."""


@dataclass(slots=True)
class Call:
    """One command on its way, and who waits for its reply."""

    packed: bytes
    future: asyncio.Future[Any]
    script: Script | None


class Link:
    """Sends calls to one Redis and hands each its own reply. Belongs to the event loop that it was made on."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        note_trip: Callable[[float], None] = unnoted,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._connections = pool_of(url, tls)
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

    def call(self, *arguments: Argument, script: Script | None = None) -> asyncio.Future[Any]:
        """Send one command with what else is sent in this tick. A caller that gives up disturbs nobody.

        Raises:
            StoreUnavailable: out of the future, for whatever goes wrong.
        """
        return self.send(pack(arguments), script)

    def send(self, packed: bytes, script: Script | None) -> asyncio.Future[Any]:
        """Send a command that was packed before; see `call`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            settle(future, ConnectionError("the store is closed"))
            return future
        if self._problem is not None and (self._trips or self._loop.time() < self._paused_until):
            settle(future, self._problem)
            return future
        self._waiting.append(Call(packed, future, script))
        if not self._boarding:
            self._board()
        return future

    def run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> asyncio.Future[Any]:
        """Run a script; see `call`."""
        return self.send(script.packed(keys, arguments), script)

    async def aclose(self) -> None:
        """Wait for what is under way and close every connection."""
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
        else:
            self._problem = None
            for call, reply in zip(calls, replies, strict=True):
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
            return await Conversation.begin(self._connections.make_connection())  # type: ignore[no-untyped-call]  # redis-py

    async def _teach(self, conversation: Conversation, calls: list[Call], replies: list[Any]) -> None:
        """Load scripts again: Redis was restarted or flushed. The calls did not run, so they can't count twice."""
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        sources = {script.source for i in unknown if (script := calls[i].script)}
        again = [pack(("SCRIPT", "LOAD", source)) for source in sources] + [calls[i].packed for i in unknown]
        fresh = await conversation.ask(b"".join(again), len(again))
        for i, reply in zip(unknown, fresh[len(sources) :], strict=True):
            replies[i] = reply

    async def _leave_all(self) -> None:
        """Close every connection, also those that are being opened; one that is under way is closed when it is done."""
        self._epoch += 1
        openings, self._openings = self._openings, []
        idle, self._idle = self._idle, []
        for opening in openings:
            opening.cancel()
        opened = await asyncio.gather(*openings, return_exceptions=True)
        idle += [conversation for conversation in opened if isinstance(conversation, Conversation)]
        await asyncio.gather(*[conversation.aclose() for conversation in idle])


class OnRedis:
    """What every part of the store stands on."""

    def __init__(self, link: Link, clock: Callable[[], float] | None) -> None:
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


def settle(future: asyncio.Future[Any], reply: Any) -> None:
    """Hand a reply to its caller, if there still is one; any error becomes the one that ports know."""
    if future.done():
        return
    if isinstance(reply, BaseException):
        failure = StoreUnavailable("store_unavailable", detail=f"{type(reply).__name__}: {reply}")
        failure.__cause__ = reply
        future.set_exception(failure)
    else:
        future.set_result(reply)


def pack(arguments: Sequence[Argument]) -> bytes:
    """Write one command in RESP, the way Redis reads it.

    By hand, because redis-py's packer takes three times as long, on every request.
    """
    texts = [argument if isinstance(argument, str) else str(argument) for argument in arguments]
    whole = "".join([f"${len(text)}\r\n{text}\r\n" for text in texts])
    if whole.isascii():
        return f"*{len(texts)}\r\n{whole}".encode()
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"*%d\r\n" % len(encoded) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded])
