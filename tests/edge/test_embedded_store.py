"""What only the embedded store must stand: other processes at its file, a crash, a file that can't be used."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded import EmbeddedStore, database
from sidecar.edge.embedded.schema import MIGRATIONS
from sidecar.model import Limit
from tests.stores import NOON, PATIENT_S, FakeClock, ask, ask_with, make_key

LIMIT = Limit("account", 3, 60)

WRITER = """
import asyncio, sys
from sidecar.edge.embedded import EmbeddedStore
from tests.stores import NOON, make_key

async def main(path, run):
    store = await EmbeddedStore.open(path, clock=lambda: NOON)
    for i in range(100_000):
        key = make_key(f"{run}x{i}")
        assert await store.add(key, max_active=None, now=NOON)
        print(key.id, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "data" / "sidecar.db")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(path: str, clock: FakeClock) -> AsyncIterator[EmbeddedStore]:
    store = await EmbeddedStore.open(path, clock=clock, busy_timeout_s=0.01)
    yield store
    await store.aclose()


@pytest.fixture
async def other(path: str, store: EmbeddedStore, clock: FakeClock) -> AsyncIterator[EmbeddedStore]:
    """The command, at work on the same file; it was made by `store`."""
    other = await EmbeddedStore.open(path, clock=clock)
    yield other
    await other.aclose()


async def test_the_file_and_its_directory_are_private(store: EmbeddedStore, path: str) -> None:
    modes = [stat.S_IMODE(file.stat().st_mode) for file in (Path(path).parent, Path(path), Path(path + "-wal"))]
    assert [oct(mode) for mode in modes] == ["0o700", "0o600", "0o600"]


async def test_a_key_changed_by_another_is_seen_by_the_next_request(store: EmbeddedStore, other: EmbeddedStore) -> None:
    key = make_key()
    assert (await store.admit(ask_with(key))).standing == "key_changed"
    await other.add(key, max_active=None, now=NOON)
    assert (await store.admit(ask_with(key))).standing == "good"
    revoked = replace(key, revoked_at=NOON, version=2)
    await other.replace(revoked)
    verdict = await store.admit(ask_with(key))
    assert (verdict.standing, verdict.key) == ("key_changed", revoked)


async def test_a_revocation_by_another_is_seen_by_the_next_request(store: EmbeddedStore, other: EmbeddedStore) -> None:
    assert await store.meet("t", "acme", NOON + 60)
    assert (await store.admit(ask(token_id="t"))).standing == "good"
    await other.revoke_token("t")
    assert (await store.admit(ask(token_id="t"))).standing == "revoked"
    assert (await store.admit(ask())).standing == "good"
    await other.revoke_account("acme", NOON + 1)
    assert (await store.admit(ask())).standing == "revoked"


async def test_a_change_past_the_store_is_seen_by_the_next_request(store: EmbeddedStore, path: str) -> None:
    """Triggers count the changes, so that no writer can forget to."""
    key = make_key()
    await store.add(key, max_active=None, now=NOON)
    assert (await store.admit(ask_with(key))).standing == "good"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM keys")
    connection.close()
    assert (await store.admit(ask_with(key))).standing == "key_changed"


async def test_usage_of_two_processes_adds_up(
    path: str, store: EmbeddedStore, other: EmbeddedStore, clock: FakeClock
) -> None:
    key = make_key()
    await store.add(key, max_active=None, now=NOON)
    await store.admit(ask_with(key))
    clock.advance(1)
    await other.admit(ask_with(key))
    await other.aclose()
    assert (await store.usage("acme", key.id, clock.now)).days[-1].requests == 2
    assert [stored.last_used_at for stored in await store.page("acme", limit=9, after=None)] == [NOON + 1]
    third = await EmbeddedStore.open(path, clock=clock)
    assert (await third.usage("acme", key.id, clock.now)).days[-1].requests == 1
    await store.aclose()
    assert (await third.usage("acme", key.id, clock.now)).days[-1].requests == 2
    await third.aclose()


def killed_writer(path: str, run: int) -> list[str]:
    """Let another process add keys, kill it after some, and return those that it had acknowledged."""
    acknowledged = list[str]()
    command = [sys.executable, "-c", WRITER, path, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            acknowledged.append(line.decode().strip())
            if len(acknowledged) == 40:
                writer.send_signal(signal.SIGKILL)
    return acknowledged


async def test_a_writer_killed_in_the_middle_loses_no_key_that_it_had_acknowledged(path: str) -> None:
    acknowledged = list[str]()
    for run in range(3):
        acknowledged += killed_writer(path, run)
        store = await EmbeddedStore.open(path, clock=FakeClock())
        missing = [key_id for key_id in acknowledged if await store.get("acme", key_id) is None]
        await store.aclose()
        assert not missing
    assert len(acknowledged) >= 120


async def test_several_processes_may_open_a_new_file_at_once(path: str) -> None:
    opened = await asyncio.gather(*[EmbeddedStore.open(path, clock=FakeClock()) for _ in range(6)])
    assert await opened[0].add(make_key(), max_active=None, now=NOON)
    for store in opened:
        assert await store.get("acme", make_key().id) is not None
        await store.aclose()


async def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable) as caught:
        await EmbeddedStore.open(str(tmp_path / "file" / "sidecar.db"), clock=FakeClock())
    assert caught.value.reason == "store_unavailable"
    assert str(tmp_path) in (caught.value.detail or "")


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "sidecar.db").write_text("this is no database" * 100)
    with pytest.raises(StoreUnavailable):
        await EmbeddedStore.open(str(tmp_path / "sidecar.db"), clock=FakeClock())


async def test_a_file_of_a_newer_program_is_left_alone(store: EmbeddedStore, path: str) -> None:
    await store.aclose()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable) as caught:
        await EmbeddedStore.open(path, clock=FakeClock())
    assert "99" in (caught.value.detail or "")


async def test_a_file_of_an_older_program_is_brought_up_to_date(path: str, clock: FakeClock) -> None:
    Path(path).parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as older:
        for statement in MIGRATIONS[0]:
            older.execute(statement)
        older.execute("INSERT INTO revoked_accounts VALUES ('acme', 5)")
        older.execute("PRAGMA user_version = 1")
        older.commit()
    store = await EmbeddedStore.open(path, clock=clock)
    try:
        assert await store.revoked_before("acme") == 5
        reached, _ = await store.changes(None)
        await store.revoke_account("acme", 6)
        assert (await store.changes(reached))[1] == frozenset({"acme"})
        assert await store.revoked_before("acme") == 6
    finally:
        await store.aclose()


async def test_a_file_that_another_keeps_locked_is_unavailable_for_changes_only(
    store: EmbeddedStore, path: str, clock: FakeClock
) -> None:
    key = make_key()
    await store.add(key, max_active=None, now=NOON)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    for change in (store.add(make_key("b"), max_active=None, now=NOON), store.revoke_token("t"), store.ping()):
        with pytest.raises(StoreUnavailable):
            await change
    assert (await store.admit(ask_with(key, LIMIT))).admitted
    assert (await store.usage("acme", key.id, clock.now)).days[-1].requests == 1
    connection.execute("ROLLBACK")
    connection.close()
    assert await store.add(make_key("b"), max_active=None, now=NOON)


async def test_whether_the_file_takes_changes_is_told_before_a_change_would_give_up(path: str) -> None:
    """Nobody who looks after the process waits as long for an answer as a change may."""
    patient = await EmbeddedStore.open(path, clock=FakeClock(), busy_timeout_s=PATIENT_S)
    await patient.ping()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    changing = asyncio.ensure_future(patient.revoke_token("t"))
    with pytest.raises(StoreUnavailable, match="store_unavailable"):
        await patient.ping()
    assert not changing.done()
    connection.execute("ROLLBACK")
    connection.close()
    await changing
    await patient.ping()
    await patient.aclose()


async def test_however_many_wait_for_a_locked_file_all_are_told_when_the_first_is(path: str) -> None:
    """One after another they would wait forty times as long."""
    store = await EmbeddedStore.open(path, clock=FakeClock(), busy_timeout_s=0.25)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    async with asyncio.timeout(PATIENT_S):
        changes = [store.revoke_token(f"t{n}") for n in range(40)]
        told = await asyncio.gather(*changes, return_exceptions=True)
    assert [type(problem) for problem in told] == [StoreUnavailable] * 40
    connection.execute("ROLLBACK")
    connection.close()
    await store.revoke_token("t")
    await store.aclose()


async def test_a_change_that_does_not_end_is_given_up(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that hangs. What comes of it nobody can say."""
    monkeypatch.setattr(database, "GIVEN_UP_AFTER_S", 0.05)
    hung, goes_on = await database.Database.open(path, busy_timeout_s=1), threading.Event()
    for change in (hung.write(lambda _: goes_on.wait(PATIENT_S)), hung.read_later("SELECT 1")):
        with pytest.raises(StoreUnavailable):
            await change
    goes_on.set()
    assert await hung.read_later("SELECT 1") == [(1,)]
    await hung.aclose()


async def test_a_change_that_fails_leaves_nothing_behind(store: EmbeddedStore, path: str) -> None:
    """As when the disk is full in the middle."""
    key = make_key()
    await store.add(key, max_active=None, now=NOON)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER full BEFORE INSERT ON keys BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(StoreUnavailable):
        await store.replace(replace(key, version=2), successor=make_key("b"))
    connection.execute("DROP TRIGGER full")
    connection.close()
    assert (await store.admit(ask_with(key))).standing == "good"
    assert await store.replace(replace(key, version=2), successor=make_key("b"))


async def test_a_damaged_file_is_unavailable(store: EmbeddedStore, path: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE revoked_accounts")
    connection.close()
    with pytest.raises(StoreUnavailable):
        await store.admit(ask(LIMIT))


async def test_a_closed_store_is_unavailable_and_closes_twice(store: EmbeddedStore) -> None:
    await store.aclose()
    await store.aclose()
    for call in (store.ping(), store.add(make_key(), max_active=None, now=NOON), store.revoked_before("acme")):
        with pytest.raises(StoreUnavailable):
            await call


async def test_a_caller_that_gives_up_disturbs_nobody(store: EmbeddedStore) -> None:
    tasks = [asyncio.create_task(store.add(make_key(str(i)), max_active=None, now=NOON)) for i in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    async with asyncio.timeout(PATIENT_S):
        added = await asyncio.gather(*tasks, return_exceptions=True)
    assert added[1::2] == [True, True, True]
