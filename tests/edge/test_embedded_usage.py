"""Counts that are written later: when, and what becomes of them when they can't be."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded.database import Database
from sidecar.edge.embedded.usage import UsageCounts
from tests.stores import NOON, PATIENT_S, FakeClock

NEVER = (None, None, None)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "sidecar.db")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def database(path: str) -> AsyncIterator[Database]:
    database = await Database.open(path, busy_timeout_s=0.01)
    yield database
    await database.aclose()


def use(usage: UsageCounts, clock: FakeClock) -> None:
    usage.count("acme", "key_a", clock.now, refused=False, write=True)


async def written(database: Database, requests: int) -> None:
    async with asyncio.timeout(PATIENT_S):
        while database.read("SELECT sum(requests) FROM usage") != [(requests,)]:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.005)


async def test_counts_are_written_after_a_while_and_again_after_the_next_use(
    database: Database, clock: FakeClock
) -> None:
    usage = UsageCounts(database, clock, flush_s=0.001)
    for requests in (1, 2):
        use(usage, clock)
        await written(database, requests)
    assert database.read("SELECT * FROM last_uses") == [("acme", "key_a", NOON, NOON, None)]
    await usage.aclose()


async def test_counts_that_cannot_be_written_are_kept_for_the_next_time(
    database: Database, path: str, clock: FakeClock
) -> None:
    usage = UsageCounts(database, clock)
    use(usage, clock)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await usage.flush()
    assert usage.uses("acme", "key_a", NEVER) == (NOON, NOON, None)
    connection.execute("ROLLBACK")
    connection.close()
    use(usage, clock)
    await usage.flush()
    assert database.read("SELECT requests, refused, writes FROM usage") == [(2, 0, 2)]


async def test_while_the_file_is_locked_it_is_tried_again_by_itself(
    database: Database, path: str, clock: FakeClock
) -> None:
    usage = UsageCounts(database, clock, flush_s=0.001)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    use(usage, clock)
    async with asyncio.timeout(PATIENT_S):
        with pytest.raises(StoreUnavailable):
            await database.write(lambda _: None)
    connection.execute("ROLLBACK")
    connection.close()
    await written(database, 1)
    await usage.aclose()


async def test_counts_that_cannot_be_written_do_not_pile_up_for_ever(
    database: Database, path: str, clock: FakeClock
) -> None:
    usage = UsageCounts(database, clock, max_unwritten=10)
    for i in range(11):
        usage.count("acme", f"key_{i}", clock.now, refused=True, write=False)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await usage.flush()
    connection.close()
    await usage.aclose()
    assert database.read("SELECT count(*) FROM usage") == [(0,)]


async def test_what_is_a_month_old_or_expired_goes(database: Database, clock: FakeClock) -> None:
    usage = UsageCounts(database, clock)
    use(usage, clock)
    await usage.flush()
    await database.write(lambda w: w.execute("INSERT INTO revoked_tokens VALUES ('t', ?), ('u', NULL)", (NOON + 9,)))
    clock.advance(31 * 86_400 + 3_600)
    use(usage, clock)
    await usage.flush()
    assert database.read("SELECT hour FROM usage") == [(int(clock.now) // 3_600,)]
    assert database.read("SELECT token_id FROM revoked_tokens") == [("u",)]
    await usage.aclose()


async def test_closing_waits_for_what_is_being_written_and_writes_the_rest(
    database: Database, path: str, clock: FakeClock
) -> None:
    usage = UsageCounts(database, clock, flush_s=0)
    use(usage, clock)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    use(usage, clock)
    await usage.aclose()
    assert database.read("SELECT requests FROM usage") == [(2,)]


async def test_what_is_counted_during_a_write_is_written_next(database: Database, clock: FakeClock) -> None:
    usage = UsageCounts(database, clock, flush_s=0.001)
    use(usage, clock)
    async with asyncio.timeout(PATIENT_S):
        while usage.uses("acme", "key_b", NEVER) == NEVER:
            await asyncio.sleep(0)
            if usage._being_written:
                usage.count("acme", "key_b", clock.now, refused=False, write=False)
    await written(database, 2)
    await usage.aclose()


async def test_a_fault_of_ours_while_writing_is_not_hushed_up(database: Database) -> None:
    def broken() -> float:
        raise ZeroDivisionError

    reported: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.set_result(context))
    usage = UsageCounts(database, broken, flush_s=0)
    use(usage, FakeClock())
    async with asyncio.timeout(PATIENT_S):
        assert isinstance((await reported)["exception"], ZeroDivisionError)
