"""bcrypt, off the event loop and bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.denials import Overloaded
from sidecar.edge.hashing import BcryptHasher

SLOW = 10  # tens of milliseconds: long enough that a queue forms


@asynccontextmanager
async def hashing(cost: int = 4, *, threads: int = 1, max_waiting: int = 64) -> AsyncIterator[BcryptHasher]:
    hasher = BcryptHasher(cost, threads=threads, max_waiting=max_waiting)
    try:
        yield hasher
    finally:
        await hasher.aclose()


async def test_a_secret_matches_its_own_hash_only() -> None:
    async with hashing() as hasher:
        made = await hasher.hash("s" * 28)
        assert await hasher.verify("s" * 28, made)
        assert not await hasher.verify("s" * 27 + "t", made)


async def test_the_same_secret_never_hashes_to_the_same_text() -> None:
    async with hashing() as hasher:
        assert await hasher.hash("secret") != await hasher.hash("secret")


async def test_the_hash_carries_the_configured_cost() -> None:
    async with hashing(5) as hasher:
        assert (await hasher.hash("secret")).startswith("$2b$05$")


@pytest.mark.parametrize("secret", ["", "\x00", "x" * 73, "x" * 10_000, "\u00fc\u2615", "\ud800"])
async def test_any_secret_can_be_hashed(secret: str) -> None:
    """bcrypt 5 raises above 72 bytes, and C libraries stop at NUL."""
    async with hashing() as hasher:
        made = await hasher.hash(secret)
        assert await hasher.verify(secret, made)
        assert not await hasher.verify(secret + "x", made)


async def test_secrets_are_told_apart_beyond_the_72_bytes_that_bcrypt_reads() -> None:
    async with hashing() as hasher:
        assert not await hasher.verify("x" * 72 + "b", await hasher.hash("x" * 72 + "a"))


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "secret",
        "$2b$04$",
        "$2b$04$" + "!" * 53,
        "$2b$04$" + "a" * 52,
        "$2b$04$" + "a" * 54,
        "$2b$04$" + "a" * 53,
        "$2b$04$" + "z" * 53,
        "$2b$31$" + "a" * 53,
        "$2b$00$" + "a" * 53,
        "$1$salt$hash",
        "$2b$04$" + "a" * 53 + "\n",
        "\ud800",
    ],
)
async def test_a_malformed_hash_matches_nothing_and_raises_nothing(stored: str) -> None:
    async with hashing() as hasher:
        assert not await hasher.verify("secret", stored)


async def test_more_than_may_wait_are_turned_away() -> None:
    async with hashing(SLOW, max_waiting=2) as hasher:
        async with asyncio.timeout(30):
            results = await asyncio.gather(*(hasher.hash("s") for _ in range(6)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, Overloaded)]
        assert len(refused) == 3  # one works, two wait
        assert {(denial.reason, denial.retry_after_s) for denial in refused} == {("hash_queue_full", 1)}
        assert await hasher.verify("s", await hasher.hash("s"))


async def test_a_caller_that_leaves_the_queue_gives_its_place_back() -> None:
    async with hashing(SLOW, max_waiting=1) as hasher:
        working, waiting = (asyncio.ensure_future(hasher.hash("s")) for _ in range(2))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await hasher.hash("s")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await hasher.hash("s")
        assert await working


async def test_the_event_loop_turns_while_a_secret_is_hashed() -> None:
    async with hashing(SLOW) as hasher:
        hashed = asyncio.ensure_future(hasher.hash("s"))
        turns = 0
        while not hashed.done() and turns < 3:
            await asyncio.sleep(0)
            turns += 1
        assert turns == 3
        assert await hashed


async def test_who_comes_after_closing_is_turned_away() -> None:
    hasher = BcryptHasher(4)
    made = await hasher.hash("s")
    await hasher.aclose()
    await hasher.aclose()
    with pytest.raises(Overloaded):
        await hasher.verify("s", made)
