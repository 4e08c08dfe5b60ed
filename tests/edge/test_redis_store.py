"""What only the store on Redis must stand: its server away, hung, emptied or set up in a hostile way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import RedisStore
from sidecar.edge.redis.commands import Script
from sidecar.edge.redis.deadline import Deadline
from sidecar.edge.redis.link import MAX_TRIPS
from sidecar.edge.redis.names import owner
from sidecar.model import Admission, Limit
from tests.redis_server import RedisServer
from tests.stores import PATIENT_S, ask, ask_with, make_key, redis_client

LIMIT = Limit("account", 1000, 60)
FAR = 4e9
"""An expiry that Redis's own clock has not reached."""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    async with redis_client(server.url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def store(server: RedisServer, client: Redis) -> AsyncIterator[RedisStore]:
    store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
    yield store
    await store.aclose()


@pytest.fixture
async def hasty(server: RedisServer) -> AsyncIterator[RedisStore]:
    """Waits as long as one does in production."""
    store = RedisStore.from_url(server.url)
    yield store
    await store.aclose()


async def refused(store: RedisStore, admission: Admission | None = None) -> None:
    async with asyncio.timeout(PATIENT_S):
        with pytest.raises(StoreUnavailable) as caught:
            await store.admit(admission or ask(LIMIT))
    assert caught.value.reason == "store_unavailable"
    assert caught.value.detail


async def names(client: Redis, pattern: str) -> list[bytes]:
    found: Any = await client.keys(pattern)
    return list(found)


async def answers_again(store: RedisStore, call: Callable[[], Awaitable[object]] | None = None) -> None:
    """Whatever a busy test machine makes of the first tries."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            try:
                await (call() if call is not None else store.admit(ask(LIMIT)))
            except StoreUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


async def test_a_killed_server_is_told_at_once_and_a_restarted_one_is_found(
    server: RedisServer, hasty: RedisStore
) -> None:
    await answers_again(hasty)
    server.kill()
    try:
        for _ in range(3):
            await refused(hasty)
        with pytest.raises(StoreUnavailable):
            await hasty.ping()
    finally:
        server.start()
    await answers_again(hasty)


async def test_a_hung_server_is_given_up_within_the_deadline(server: RedisServer, hasty: RedisStore) -> None:
    await answers_again(hasty)
    server.pause()
    try:
        async with asyncio.timeout(PATIENT_S):
            answers = await asyncio.gather(*[hasty.admit(ask(LIMIT)) for _ in range(20)], return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        await refused(hasty)
    finally:
        server.resume()
    await answers_again(hasty)


async def test_an_address_where_nobody_listens_is_unavailable() -> None:
    store = RedisStore.from_url("redis://127.0.0.1:1/0")
    await refused(store)
    await store.aclose()


async def test_a_wrong_password_is_unavailable_and_told_to_nobody(server: RedisServer) -> None:
    store = RedisStore.from_url(server.url.replace("unix://", "unix://:hunter2@"))
    with pytest.raises(StoreUnavailable) as caught:
        await store.ping()
    assert "hunter2" not in f"{caught.value.detail} {caught.value!r} {store!r}"
    await store.aclose()


async def test_forgotten_scripts_are_loaded_again_and_nothing_counts_twice(store: RedisStore, client: Redis) -> None:
    assert (await store.admit(ask(LIMIT))).quotas[0].remaining == 999
    await client.script_flush()
    verdicts = await asyncio.gather(*[store.admit(ask(LIMIT)) for _ in range(10)])
    assert sorted(verdict.quotas[0].remaining for verdict in verdicts) == list(range(989, 999))


async def test_scripts_forgotten_in_the_middle_of_a_batch_are_loaded_again(store: RedisStore) -> None:
    await store.admit(ask(LIMIT))
    flush = [asyncio.ensure_future(store.admit(ask(LIMIT))), store._link.call("SCRIPT", "FLUSH")]
    verdicts = await asyncio.gather(*flush, *[store.admit(ask(LIMIT)) for _ in range(3)])
    del verdicts[1]
    assert sorted(verdict.quotas[0].remaining for verdict in verdicts) == [995, 996, 997, 998]


async def test_a_cancelled_caller_disturbs_nobody(store: RedisStore) -> None:
    await store.admit(ask(LIMIT))
    tasks = [asyncio.create_task(store.admit(ask(LIMIT))) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(store.admit(ask(LIMIT))) for _ in range(5)]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, False] * 5 + [False] * 5
    assert (await store.admit(ask(LIMIT))).quotas[0].remaining == 983


async def test_a_key_of_a_wrong_type_is_unavailable_to_its_account_and_to_no_other(
    store: RedisStore, client: Redis
) -> None:
    await client.rpush("sidecar:{acme}:limit:account:second", "x")
    asked = ask(LIMIT, Limit("second", 5, 60))
    broken, sound = await asyncio.gather(refused(store, asked), store.admit(ask(LIMIT, account="other")))
    assert broken is None
    assert sound.admitted
    assert (await store.admit(ask(LIMIT))).quotas[0].remaining == 999


@pytest.mark.parametrize("name", ["limit:account:account", "revoked_before"])
async def test_a_corrupt_value_never_reads_as_permission(store: RedisStore, client: Redis, name: str) -> None:
    await client.set("sidecar:{acme}:" + name, "corrupt")
    await refused(store)


async def test_a_corrupt_usage_count_spends_nothing(store: RedisStore, client: Redis) -> None:
    key = make_key(expires_at=FAR)
    await store.add(key, max_active=None, now=0)
    await store.admit(ask_with(key, LIMIT))
    (usage,) = await names(client, "sidecar:{acme}:usage:*")
    await client.set(usage, "x")
    await refused(store, ask_with(key, LIMIT))
    assert (await store.admit(ask(LIMIT))).quotas[0].remaining == 998


async def test_a_corrupt_record_is_unavailable(store: RedisStore, client: Redis) -> None:
    key = make_key()
    await store.add(key, max_active=None, now=0)
    for record in ("", "[]", "{}", '{"scopes": 1}', '{"scopes": [], "more": 1}'):
        await client.hset(f"sidecar:{{acme}}:key:{key.id}", "record", record)
        with pytest.raises(StoreUnavailable):
            await store.get("acme", key.id)


@pytest.mark.parametrize(("setting", "value", "usual"), [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")])
async def test_a_server_that_refuses_writes_is_unavailable(
    store: RedisStore, client: Redis, setting: str, value: str, usual: str
) -> None:
    await store.admit(ask(LIMIT))
    await client.config_set(setting, value)
    try:
        await refused(store)
    finally:
        await client.config_set(setting, usual)
    assert (await store.admit(ask(LIMIT))).quotas[0].remaining == 998


async def test_a_replica_is_unavailable(store: RedisStore, client: Redis) -> None:
    await client.replicaof("127.0.0.1", "1")
    try:
        await refused(store)
    finally:
        await client.replicaof("NO", "ONE")


class Address:
    """What stands in for a Redis and says the same to every command; what it is told to say, new connections say."""

    def __init__(self, directory: Path) -> None:
        self._socket = str(directory / "redis")
        self.says = b"+OK\r\n"
        self.answers = asyncio.Event()
        self.answers.set()
        self.connections = 0

    async def __aenter__(self) -> RedisStore:
        self._server = await asyncio.start_unix_server(self._serve, self._socket)
        self._store = RedisStore.from_url(f"unix://{self._socket}", timeout_s=PATIENT_S)
        return self._store

    async def __aexit__(self, *raised: object) -> None:
        await self._store.aclose()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        says = self.says
        self.connections += 1
        while head := await reader.readline():
            command = []
            for _ in range(int(head[1:])):
                length = int((await reader.readline())[1:])
                command.append((await reader.readexactly(length + 2))[:-2])
            await self.answers.wait()
            writer.write(b"+OK\r\n" if command[0] == b"CLIENT" else says)
        writer.close()


NOT_THE_MASTER = [
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-ERR Error running script (call to f_6): @user_script:1: @user_script: 1: -READONLY You can't write.\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
]


@pytest.mark.parametrize("says", NOT_THE_MASTER, ids=["read-only", "read-only-in-a-script", "loading", "master-down"])
async def test_connections_to_what_is_no_longer_the_master_are_left(tmp_path: Path, says: bytes) -> None:
    """Behind the same address there may be another by now, which only a new connection reaches."""
    address = Address(tmp_path)
    address.says = says
    async with address as store:
        address.answers.clear()
        calls = [asyncio.ensure_future(store.ping())]
        await failed_at_once(calls[0])  # it is on its way, and the next one takes a connection of its own
        calls.append(asyncio.ensure_future(store.ping()))
        async with asyncio.timeout(PATIENT_S):
            while address.connections < 2:  # noqa: ASYNC110 - the connections are made by others
                await asyncio.sleep(0.001)
        address.says = b"+OK\r\n"
        address.answers.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 2
        await answers_again(store, store.ping)
        await asyncio.gather(*[store.ping() for _ in range(3)])
        assert address.connections > 2


async def test_all_keys_of_an_account_share_one_slot(store: RedisStore, client: Redis) -> None:
    account = "tenant|7:x@y.z/+=-"
    key, successor = make_key("a", account, expires_at=FAR), make_key("b", account, expires_at=FAR)
    await store.add(key, max_active=9, now=0)
    await store.meet("t", account, FAR)
    await store.revoke_token("t")
    await store.admit(ask_with(key, LIMIT, Limit("burst", 9, 1, per="credential"), write=True))
    await store.replace(make_key("a", account, version=2), successor=successor)
    await store.revoke_account(account, 1.0)
    of_account = await names(client, "sidecar:{" + account + "}:*")
    assert len(of_account) == 9
    assert len({key_slot(name) for name in of_account}) == 1
    assert {key_slot(name) for name in await names(client, "sidecar:{token t}:*")} == {key_slot(b"token t")}


async def test_time_is_that_of_redis_and_what_is_over_expires(store: RedisStore, client: Redis) -> None:
    before, after = (await client.time())[0], (await store.admit(ask())).now
    assert before <= after <= (await client.time())[0] + 1
    key = make_key(expires_at=FAR)
    await store.add(key, max_active=None, now=0)
    await store.meet("t", "acme", after + 60)
    await store.revoke_token("t")
    await store.admit(ask_with(key, LIMIT, Limit("exact", 5, 60)))
    await store.record("192.0.2.1", LIMIT)
    lasting = (
        f"sidecar:{{acme}}:key:{key.id}",
        "sidecar:{acme}:keys",
        "sidecar:{acme}:active",
        f"sidecar:key:{key.id}",
        "sidecar:changes",
    )
    passing = [name.decode() for name in await names(client, "*") if name.decode() not in lasting]
    assert len(passing) == 7
    for name in passing:
        pttl = await client.pttl(name)
        most_s = 31 * 86_400 if ":usage:" in name else 3_660 if "token" in name else 61
        assert 0 < pttl <= most_s * 1000


async def test_accounts_are_found_among_many_other_keys(store: RedisStore, client: Redis) -> None:
    await client.mset({f"sidecar:{{filler{i}}}:revoked_before": "1" for i in range(5_000)})
    for i in range(5):
        await store.add(make_key(str(i), f"acme{i}"), max_active=None, now=0)
    assert sorted([account async for account in store.accounts()]) == [f"acme{i}" for i in range(5)]


async def test_a_flag_for_a_token_never_met_stays_until_it_is(store: RedisStore, client: Redis) -> None:
    await store.revoke_token("t")
    assert await client.pttl("sidecar:{token t}:revoked") == -1
    assert not await store.meet("t", "acme", (await store.admit(ask())).now + 60)
    assert 0 < await client.pttl("sidecar:{token t}:revoked") <= 3_660_000


async def test_what_is_under_way_is_finished_before_closing(server: RedisServer, client: Redis) -> None:
    store = RedisStore.from_url(server.url, timeout_s=PATIENT_S)
    await store.admit(ask(LIMIT))
    tasks = [asyncio.create_task(store.admit(ask(LIMIT))) for _ in range(600)]
    await asyncio.sleep(0)
    await store.aclose()
    assert [(await task).admitted for task in tasks] == [True] * 600
    await refused(store)


def test_a_url_that_is_none_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ValueError, match="redis://"):
        RedisStore.from_url("http://localhost")


def test_every_script_is_shipped_and_has_a_digest() -> None:
    assert len(Script("window", "admit").sha) == 40


async def test_a_key_that_was_not_added_leaves_nothing_behind_for_long(store: RedisStore, client: Redis) -> None:
    kept, refused = make_key("a", expires_at=FAR), make_key("b", expires_at=FAR)
    assert await store.add(kept, max_active=1, now=0)
    assert not await store.add(refused, max_active=1, now=0)
    assert await client.ttl(owner(kept.id)) == -1
    assert 0 < await client.ttl(owner(refused.id)) <= 60


async def test_a_revoked_token_is_refused_by_a_redis_that_can_no_longer_write(store: RedisStore, client: Redis) -> None:
    await store.revoke_token("t")
    await client.config_set("maxmemory", 1)
    try:
        assert not await store.meet("t", "acme", FAR)
        with pytest.raises(StoreUnavailable):
            await store.meet("u", "acme", FAR)
    finally:
        await client.config_set("maxmemory", 0)


async def test_for_a_moment_after_a_failure_nobody_waits_for_redis_again(
    hasty: RedisStore, server: RedisServer
) -> None:
    await hasty.ping()
    server.pause()
    with pytest.raises(StoreUnavailable):
        await hasty.admit(ask(LIMIT))
    server.resume()
    with pytest.raises(StoreUnavailable):  # Redis would answer, and is not asked
        await hasty.admit(ask(LIMIT))
    async with asyncio.timeout(PATIENT_S):
        while not await _admits(hasty):  # noqa: ASYNC110 - what is waited for is time
            await asyncio.sleep(0.01)


async def test_then_one_caller_finds_out_and_the_others_do_not_wait(hasty: RedisStore, server: RedisServer) -> None:
    await hasty.ping()
    server.pause()
    with pytest.raises(StoreUnavailable):
        await hasty.ping()
    async with asyncio.timeout(PATIENT_S):
        while (scout := asyncio.ensure_future(hasty.ping())) and await failed_at_once(scout):  # noqa: ASYNC110 - time
            await asyncio.sleep(0.01)
    others = [asyncio.ensure_future(hasty.ping()) for _ in range(3)]
    assert [await failed_at_once(other) for other in others] == [True] * 3
    server.resume()
    await scout


async def test_who_waits_for_room_learns_of_a_failure_at_once(hasty: RedisStore, server: RedisServer) -> None:
    """Else it would begin to wait for Redis when others have given up, and wait twice as long."""
    await hasty.ping()
    server.pause()
    try:
        calls = []
        for _ in range(MAX_TRIPS + 2):
            calls.append(hasty._link.call("PING"))
            await failed_at_once(calls[-1])
        aboard, waiting = calls[:MAX_TRIPS], calls[MAX_TRIPS:]
        await asyncio.wait(aboard, return_when=asyncio.FIRST_COMPLETED)
        assert [call.done() for call in waiting] == [True, True]
        assert {type(call.exception()) for call in waiting} == {StoreUnavailable}
        await asyncio.wait(aboard)
        await failed_at_once(aboard[0])
        assert all(call.exception() for call in aboard)
    finally:
        server.resume()
    await answers_again(hasty)


async def test_what_is_here_when_we_come_late_to_look_counts() -> None:
    """Else a busy moment of ours would be taken for an absence of Redis, and limits would be decided without it."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()
    async with Deadline(0.01):
        time.sleep(0.03)  # noqa: ASYNC251 - the loop does not turn: that is what is tested
        loop.call_soon(loop.call_soon, arrived.set_result, None)
        await arrived


async def test_what_does_not_come_is_not_waited_for() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(0.01):
            await asyncio.Event().wait()


async def failed_at_once(asked: asyncio.Future[None]) -> bool:
    """Let the call take its place; tell whether it was refused instead."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return asked.done() and isinstance(asked.exception(), StoreUnavailable)


async def _admits(store: RedisStore) -> bool:
    try:
        return (await store.admit(ask(LIMIT))).admitted
    except StoreUnavailable:
        return False


@pytest.mark.parametrize(
    ("maxmemory", "policy", "dangerous"),
    [("100mb", "volatile-lru", True), ("100mb", "allkeys-lru", True), ("100mb", "noeviction", False)],
)
async def test_a_redis_that_evicts_is_warned_of(
    store: RedisStore, client: Redis, maxmemory: str, policy: str, dangerous: bool
) -> None:
    """What it evicts first has an expiry, and revocations have one."""
    await client.config_set("maxmemory", maxmemory)
    await client.config_set("maxmemory-policy", policy)
    try:
        assert any("evicts" in warning for warning in await store.warnings()) is dangerous
    finally:
        await client.config_set("maxmemory", 0)
        await client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    ("setting", "value", "usual", "forgets"),
    [("maxmemory", "0", "0", True), ("save", "3600 1", "", False), ("appendonly", "yes", "no", False)],
)
async def test_a_redis_that_keeps_nothing_on_disk_is_warned_of(
    store: RedisStore, client: Redis, setting: str, value: str, usual: str, forgets: bool
) -> None:
    """Its restart would bring revoked tokens back, and lose all keys."""
    await client.config_set(setting, value)
    try:
        assert any("on disk" in warning for warning in await store.warnings()) is forgets
    finally:
        await client.config_set(setting, usual)


@pytest.mark.parametrize("forbidden", ["config", "info"])
async def test_settings_that_may_not_be_asked_for_are_not_warned_of(
    server: RedisServer, client: Redis, forbidden: str
) -> None:
    await client.acl_setuser(
        "asker", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", f"-{forbidden}"]
    )
    store = RedisStore.from_url(f"{server.url}?username=asker&password=secret", timeout_s=PATIENT_S)
    try:
        if forbidden == "config":
            assert await store.warnings() == ()
        else:
            with pytest.raises(StoreUnavailable):
                await store.warnings()
    finally:
        await store.aclose()
        await client.acl_deluser("asker")
