"""The watch over open streams goes on, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from sidecar.denials import Denial, InsufficientScope, InvalidToken, StoreUnavailable
from sidecar.edge.http.streams import LOOK_S, LOOKS_A_ROUND, SLICE, OpenStreams
from sidecar.model import Action, Principal, Progress
from tests.fakes import Clock, Ticks

WHO = Principal("acme", "alice", "jwt", "jwt:1", (), 0, 4e9)


class Exchange:
    """What a stream's watch looks at."""

    is_endless = True
    valid_for_s = 1000.0

    def __init__(self, principal: Principal = WHO) -> None:
        self.progress = Progress(principal=principal, action=Action("stream"))
        self.ended_by: str | None = None

    def abandon(self) -> None:
        raise AssertionError("its client reads")


class Answer:
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def close(self) -> None:
        self.closed.set()


class Changes:
    """Answers each question as told, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.asked_since: list[str | None] = []

    async def changes(self, since: str | None) -> tuple[str, frozenset[str] | None]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        self.asked_since.append(since)
        return str(len(self.asked_since)), answer


class Events:
    def __init__(self) -> None:
        self.names: list[str] = []

    def event(self, name: str, **_: Any) -> None:
        self.names.append(name)


def refuse(denial: Denial) -> Callable[[Principal], Awaitable[Principal]]:
    async def recheck(_: Principal) -> Principal:
        raise denial

    return recheck


async def watched(*answers: Any, denial: Denial | None = None) -> tuple[Exchange, Events]:
    """Open a stream, let the watch look as often as there are answers, and wait until it ends the stream."""
    changes: Any = Changes(*answers)
    ticks, events, exchange, answer = Ticks(), Events(), Exchange(), Answer()
    observer: Any = events
    streams = OpenStreams(
        changes, refuse(denial or InvalidToken("token_revoked")), observer, offline_grace_s=60.0, sleep=ticks
    )
    watch = asyncio.ensure_future(streams.watch())
    stream: Any = exchange
    upstream: Any = answer
    with streams.open(stream, upstream):
        async with asyncio.timeout(5):
            for _ in answers:
                await ticks.asked.get()
                ticks.end()
            await answer.closed.wait()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    return exchange, events


@asynccontextmanager
async def watching(streams: OpenStreams, exchanges: Iterable[Any]) -> AsyncIterator[None]:
    """Watch over these, each with an answer of its own."""
    answer: Any
    watch = asyncio.ensure_future(streams.watch())
    with ExitStack() as stack:
        for exchange in exchanges:
            answer = Answer()
            stack.enter_context(streams.open(exchange, answer))
        async with asyncio.timeout(5):
            yield
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def passed(ticks: Ticks, looks: int) -> None:
    """Return when the watch has looked so often and sleeps again."""
    for _ in range(looks):
        assert await ticks.asked.get() == LOOK_S
        ticks.end()
    ticks.asked.put_nowait(await ticks.asked.get())


async def test_what_changed_before_the_first_look_is_looked_at_too() -> None:
    """The record of changes begins at the first look; the stream was admitted before."""
    exchange, _ = await watched(frozenset())
    assert exchange.ended_by == "revoked"


async def test_neither_a_store_that_is_away_nor_an_unforeseen_fault_ends_the_watch() -> None:
    exchange, events = await watched(StoreUnavailable("store_unavailable"), ValueError("odd"), None)
    assert exchange.ended_by == "revoked"
    assert events.names == ["streams_unwatched"]


async def test_what_changed_while_the_upstream_held_its_head_is_looked_at_when_the_stream_opens() -> None:
    """The change was told of before the stream was there, because another stream kept the record open."""
    exchange, _ = await watched(frozenset({"other"}))
    assert exchange.ended_by == "revoked"


async def test_any_refusal_ends_a_stream() -> None:
    """Not only what calls the credential itself bad: the same request would be refused now."""
    scope = InsufficientScope("no", required="mcp:read", granted=())
    exchange, _ = await watched(None, denial=scope)
    assert exchange.ended_by == "revoked"


async def test_a_revocation_that_nobody_told_of_ends_its_stream_within_a_round_of_looks() -> None:
    """A notice may be lost on its way, or be dropped from a record that is full."""
    changes: Any = Changes(frozenset())
    observer: Any = Events()
    ticks, revoked, looked_at = Ticks(), set[Principal](), list[Principal]()

    async def recheck(principal: Principal) -> Principal:
        looked_at.append(principal)
        if principal in revoked:
            raise InvalidToken("token_revoked")
        return principal

    streams = OpenStreams(changes, recheck, observer, sleep=ticks, offline_grace_s=60.0)
    exchanges: list[Any] = [Exchange(replace(WHO, account=f"acme{number}")) for number in range(120)]
    async with watching(streams, exchanges):
        await passed(ticks, 1)
        revoked.add(exchanges[77].progress.principal)
        looked_at.clear()
        await passed(ticks, LOOKS_A_ROUND)
        assert [exchange for exchange in exchanges if exchange.ended_by] == [exchanges[77]]
        assert len(looked_at) < 2 * len(exchanges)


async def test_looking_at_many_streams_leaves_turns_to_others() -> None:
    """The embedded store answers without waiting for anything."""
    changes: Any = Changes(None)
    observer: Any = Events()
    ticks, looked_at, turns = Ticks(), list[Principal](), [0]

    async def recheck(principal: Principal) -> Principal:
        looked_at.append(principal)
        return principal

    async def others() -> None:
        while True:
            turns.append(len(looked_at))
            await asyncio.sleep(0)

    streams = OpenStreams(changes, recheck, observer, sleep=ticks, offline_grace_s=60.0)
    async with watching(streams, [Exchange() for _ in range(1_000)]):
        busy = asyncio.ensure_future(others())
        await passed(ticks, 1)
        busy.cancel()
    assert len(looked_at) == 1_000
    assert max(after - before for before, after in pairwise(turns)) <= SLICE


async def test_what_could_not_be_looked_at_is_asked_for_again() -> None:
    """Else the stream, which is not new, would outlive its revocation: a change is told of once."""
    changes, looks = Changes(frozenset(), frozenset({"acme"})), [None, StoreUnavailable("store_unavailable"), None]

    async def recheck(principal: Principal) -> Principal:
        problem = looks.pop(0)
        if problem is not None:
            raise problem
        return principal

    record: Any = changes
    observer: Any = Events()
    stream: Any = Exchange()
    upstream: Any = Answer()
    ticks = Ticks()
    streams = OpenStreams(record, recheck, observer, sleep=ticks, offline_grace_s=60.0)
    watch = asyncio.ensure_future(streams.watch())
    with streams.open(stream, upstream):
        async with asyncio.timeout(5):
            for _ in range(3):
                await ticks.asked.get()
                ticks.end()
            await ticks.asked.get()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    assert changes.asked_since == [None, "1", "1"]
    assert looks == []


async def test_a_client_that_leaves_while_its_credential_is_revoked_has_left() -> None:
    """Nobody is there to be refused."""
    changes: Any = Changes(None)
    observer: Any = Events()
    exchange: Any = Exchange()
    ticks, waiting = Ticks(), asyncio.Event()

    async def recheck(_: Principal) -> Principal:
        handler.cancel()
        raise InvalidToken("token_revoked")

    streams = OpenStreams(changes, recheck, observer, sleep=ticks, offline_grace_s=60.0)

    async def handle() -> None:
        with streams.begin(exchange):
            waiting.set()
            await asyncio.Event().wait()

    handler = asyncio.ensure_future(handle())
    await waiting.wait()
    async with watching(streams, []):
        await passed(ticks, 1)
        with pytest.raises(asyncio.CancelledError):
            await handler
    assert exchange.ended_by == "revoked"


async def test_a_request_that_was_answered_is_watched_no_longer() -> None:
    changes: Any = Changes(None)
    observer: Any = Events()
    exchange: Any = Exchange()
    ticks = Ticks()
    streams = OpenStreams(changes, refuse(InvalidToken("token_revoked")), observer, offline_grace_s=60.0, sleep=ticks)
    with streams.begin(exchange):
        pass
    async with watching(streams, []):
        await passed(ticks, 2)
    assert changes.asked_since == []


AWAY = StoreUnavailable("store_unavailable")


@pytest.mark.parametrize(
    ("answers", "ended"),
    [
        pytest.param([AWAY] * 3, [None, None, "unconfirmed"], id="away"),
        pytest.param([AWAY, frozenset(), AWAY], [None, None, None], id="away twice"),
        pytest.param([frozenset(), AWAY, AWAY], [None, None, None], id="away since it was asked last"),
    ],
)
async def test_streams_of_keys_end_when_the_store_has_not_answered_for_the_grace_time(
    answers: list[Any], ended: list[str | None]
) -> None:
    """A revocation would not be heard of. Tokens are proved without the store, and go on."""
    changes: Any = Changes(*answers)
    observer: Any = Events()
    ticks, clock = Ticks(), Clock()

    async def recheck(principal: Principal) -> Principal:
        return principal

    streams = OpenStreams(changes, recheck, observer, offline_grace_s=60, clock=clock, sleep=ticks)
    key, token = Exchange(replace(WHO, kind="api_key")), Exchange()
    async with watching(streams, [key, token]):
        for so_far in ended:
            await passed(ticks, 1)
            assert key.ended_by == so_far
            clock.pass_(30.1)
    assert token.ended_by is None


async def test_a_stream_that_cannot_be_looked_at_keeps_nobody_else_from_being_looked_at() -> None:
    changes: Any = Changes(frozenset())
    observer: Any = Events()
    damaged, other, ticks = Exchange(replace(WHO, account="damaged")), Exchange(), Ticks()
    is_damaged = False

    async def recheck(principal: Principal) -> Principal:
        if is_damaged and principal.account == "damaged":
            raise StoreUnavailable("store_unavailable")
        if is_damaged:
            raise InvalidToken("token_revoked")
        return principal

    streams = OpenStreams(changes, recheck, observer, sleep=ticks, offline_grace_s=60.0)
    async with watching(streams, [damaged, other]):
        await passed(ticks, 1)
        is_damaged = True
        await passed(ticks, 2)
    assert (damaged.ended_by, other.ended_by) == (None, "revoked")


async def test_an_endless_stream_that_begins_after_the_end_of_all_ends_at_once() -> None:
    changes: Any = Changes()
    observer: Any = Events()
    streams = OpenStreams(changes, refuse(InvalidToken("token_revoked")), observer, offline_grace_s=60.0)
    streams.end_endless()
    exchange, answer = Exchange(), Answer()
    exchange.is_endless = True
    stream: Any = exchange
    upstream: Any = answer
    with streams.open(stream, upstream):
        assert answer.closed.is_set()
    assert exchange.ended_by == "shutdown"
