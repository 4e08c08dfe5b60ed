"""A master of a cluster or under sentinels dies, hangs or moves: nobody is answered wrongly, and it is soon found."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import RedisStore
from sidecar.edge.redis.knowers import ASKING_S
from sidecar.model import Limit
from sidecar.records import Pin, Sighting
from tests.e2e.bed import Bed, assert_refused, request
from tests.e2e.conftest import Start
from tests.faults.test_redis import told_of
from tests.mcp_server import StubUpstream
from tests.redis_topologies import Cluster, Node, Sentinels, eventually
from tests.service import until
from tests.stores import PATIENT_S, ask, make_key

RECOVERY_S = 5.0
"""From the moment that the new master is known."""
FAILOVER_S = 20.0
LIMIT = Limit("account", 1_000_000, 3_600)
FAR = 4e9
Topology = Cluster | Sentinels
Fault = Callable[[Node], None]
Open = Callable[..., RedisStore]


def account_in(cluster: Cluster, number: int) -> str:
    """Return an account whose keys are on this master."""
    slots = [share[:2] for share in cluster.masters[0].ask("CLUSTER", "SLOTS")]
    first, last = sorted(slots)[number]
    return next(name for name in map(str, range(10_000)) if first <= key_slot(name.encode()) <= last)


@pytest.fixture(params=["sentinels", "cluster"])
def topology(request: pytest.FixtureRequest) -> Iterator[Topology]:
    """Run the test on a master with a replica and a sentinel, and on three masters of whom the first has a replica."""
    with Sentinels() if request.param == "sentinels" else Cluster(replicas=1) as topology:
        yield topology


@pytest.fixture
def account(topology: Topology) -> str:
    """Return an account on the master that fails."""
    return account_in(topology, 0) if isinstance(topology, Cluster) else "acme"


@pytest.fixture
async def stores() -> AsyncIterator[Open]:
    """Open stores that wait as long as one does in production, unless told otherwise."""
    opened: list[RedisStore] = []

    def open_store(url: str, timeout_s: float = 0.1) -> RedisStore:
        opened.append(RedisStore.from_url(url, timeout_s=timeout_s))
        return opened[-1]

    yield open_store
    for store in opened:
        await store.aclose()


def failing(topology: Topology) -> Node:
    return topology.masters[0] if isinstance(topology, Cluster) else topology.master


class Spending:
    """Spends units of one account, one after another, and keeps count of those that Redis may have counted."""

    def __init__(self, store: RedisStore, account: str) -> None:
        self._store = store
        self._account = account
        self.spent = 0
        self.in_doubt = 0
        """Units that were asked for in vain since the last that was granted."""
        self.refused = 0

    async def spend(self) -> bool:
        """Spend one unit if Redis can be reached; what it says must fit what was spent before."""
        try:
            verdict = await self._store.admit(ask(LIMIT, account=self._account, issued_at=FAR))
        except StoreUnavailable:
            self.in_doubt += 1
            self.refused += 1
            return False
        spent = LIMIT.requests - verdict.quotas[0].remaining
        assert self.spent + 1 <= spent <= self.spent + 1 + self.in_doubt
        self.spent, self.in_doubt = spent, 0
        return True

    async def until_granted(self, times: int = 1) -> None:
        async with asyncio.timeout(RECOVERY_S):
            for _ in range(times):
                while not await self.spend():  # noqa: ASYNC110 - somebody must ask
                    await asyncio.sleep(0.01)


async def another_is_named(topology: Topology, old_port: int, meanwhile: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(FAILOVER_S):
        while topology.named() == old_port:
            await meanwhile()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("fault", [Node.kill, Node.pause], ids=["killed", "hung"])
async def test_a_new_master_is_found_within_five_seconds_and_goes_on_where_the_old_one_was(
    topology: Topology, account: str, stores: Open, fault: Fault
) -> None:
    spending, old = Spending(stores(topology.url), account), failing(topology)
    await spending.until_granted(50)
    assert old.ask("WAIT", 1, 5_000) == 1  # what no replica has yet is lost with its master
    fault(old)
    await another_is_named(topology, old.port, spending.spend)
    await spending.until_granted(20)
    assert spending.spent >= 70
    old.resume()
    await spending.until_granted(100)
    assert spending.in_doubt == 0


async def test_a_master_that_comes_back_is_not_believed_although_nobody_asked_meanwhile(
    topology: Topology, account: str, stores: Open
) -> None:
    """It takes itself for the master still, and knows of no revocation that the new one was told of."""
    idle, other, old = stores(topology.url), stores(topology.url), failing(topology)
    admission = ask(LIMIT, account=account, issued_at=1_000.0)
    await asyncio.gather(*[granted(idle, admission) for _ in range(20)])
    assert old.ask("WAIT", 1, 5_000) == 1
    old.pause()
    await another_is_named(topology, old.port, lambda: asyncio.sleep(0))
    await until(lambda: succeeds(lambda: other.revoke_account(account, 2_000.0)))
    await asyncio.sleep(2)  # what is tested happens while nobody asks
    old.resume()
    for _ in range(50):
        try:
            assert (await idle.admit(admission)).standing == "revoked"
        except StoreUnavailable:
            await asyncio.sleep(0.01)


async def granted(store: RedisStore, admission: Any) -> None:
    await until(lambda: succeeds(lambda: store.admit(admission)))


async def succeeds(act: Callable[[], Awaitable[object]]) -> bool:
    try:
        await act()
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize("policy", ["deny", "local"])
async def test_calls_are_refused_as_the_policy_says_until_there_is_a_new_master_and_each_is_sent_once(
    start: Start, stub: StubUpstream, topology: Topology, account: str, redis_settings: dict[str, Any], policy: str
) -> None:
    redis_settings["store"] = {"url": topology.url}
    policies = [{"name": "account", "per": "account", "requests": 100_000, "window_s": 60}]
    bed = await start(**redis_settings, limits={"policies": policies, "on_store_failure": policy})
    old = failing(topology)
    hows = [{"key": await bed.key("mcp:full", account=account)}, {"token": bed.token(sub=account)}]
    counted: Counter[int] = Counter()

    async def call() -> bool:
        for how in hows:
            answer = await bed.post(request("ping", id=sum(counted.values())), **how)  # type: ignore[arg-type]  # a token or a key
            counted[answer.status_code] += 1
            if answer.status_code != 200:
                assert_refused(answer, 503, "STORE_UNAVAILABLE", id=sum(counted.values()) - 1)
        return counted[503] == 0

    assert await call()
    assert old.ask("WAIT", 1, 5_000) == 1
    old.kill()
    await another_is_named(topology, old.port, call)
    refused = counted[503]
    assert refused > 0 if policy == "deny" else refused == 0

    async def is_back() -> bool:
        counted[503] = 0
        return await call() and "sidecar_store_up 1.0" in (await bed.admin.get("/metrics")).text and bool(moves(bed))

    async with asyncio.timeout(RECOVERY_S):
        while not await is_back():  # noqa: ASYNC110 - somebody must ask
            await asyncio.sleep(0.02)
    sent = Counter(received.body for received in stub.received if b'"ping"' in received.body)
    assert sum(sent.values()) == counted[200]
    assert told_of(bed)["internal_error"] == 0
    assert moves(bed) == [[f"127.0.0.1:{port}" for port in masters_of(topology)]]


def moves(bed: Bed) -> list[list[str]]:
    return [sorted(record["masters"]) for record in bed.records() if record["event"] == "store_moved"]


def masters_of(topology: Topology) -> list[int]:
    """Return the ports of the masters as they are now."""
    if isinstance(topology, Sentinels):
        return [topology.named()]
    return sorted([topology.named(), *[node.port for node in topology.masters[1:]]])


async def test_whose_master_is_well_is_served_while_another_one_fails(stores: Open) -> None:
    with Cluster(1, "--cluster-require-full-coverage", "no") as cluster:
        store = stores(cluster.url, PATIENT_S)
        failed, *others = [Spending(store, account_in(cluster, number)) for number in range(3)]

        async def all_others_are_served() -> None:
            assert [await other.spend() for other in others] == [True, True]
            await failed.spend()

        await failed.until_granted(5)
        assert cluster.masters[0].ask("WAIT", 1, 5_000) == 1
        cluster.masters[0].kill()
        assert not await failed.spend()
        await another_is_named(cluster, cluster.masters[0].port, all_others_are_served)
        await store.ping()
        await failed.until_granted(5)


async def test_with_one_sentinel_dead_and_one_hung_the_master_is_found(stores: Open) -> None:
    with Sentinels(replicas=0, sentinels=3) as topology:
        hung, dead, _ = topology.sentinels
        hung.signal(signal.SIGSTOP)
        dead.signal(signal.SIGKILL)
        spending = Spending(stores(topology.url), "acme")
        await spending.until_granted(5)


async def test_a_majority_of_the_sentinels_decides_and_none_is_waited_for(stores: Open) -> None:
    with Sentinels(replicas=1, sentinels=3) as topology:
        topology.sentinels[2].signal(signal.SIGSTOP)
        spending, old = Spending(stores(topology.url), "acme"), topology.master
        await spending.until_granted(5)
        assert old.ask("WAIT", 1, 5_000) == 1
        old.kill()
        await another_is_named(topology, old.port, spending.spend)
        await spending.until_granted(20)


async def test_without_any_sentinel_the_master_goes_on_and_takes_new_connections(stores: Open) -> None:
    with Sentinels(replicas=0) as topology:
        store = stores(topology.url)
        spending = Spending(store, "acme")
        await spending.until_granted(5)
        topology.sentinels[0].signal(signal.SIGKILL)
        topology.master.ask("CLIENT", "KILL", "TYPE", "normal")
        await spending.until_granted(20)


async def test_a_replica_that_a_sentinel_takes_for_the_master_is_not_used(stores: Open) -> None:
    with Sentinels(replicas=0) as topology, Node() as other:
        topology.master.ask("REPLICAOF", "127.0.0.1", other.port)
        store = stores(topology.url)
        for _ in range(3):
            with pytest.raises(StoreUnavailable) as caught:
                await store.revoked_before("acme")
            await asyncio.sleep(ASKING_S)
        assert "127.0.0.1" not in str(caught.value.detail)


async def test_slots_that_move_while_many_ask_lose_nothing_and_count_nothing_twice(stores: Open) -> None:
    with Cluster(node_timeout_ms=60_000) as cluster:
        account = account_in(cluster, 0)
        store, slot = stores(cluster.url), key_slot(account.encode())
        spending = Spending(store, account)
        await spending.until_granted(20)
        moving = asyncio.create_task(asyncio.to_thread(moved_to_and_fro, cluster, slot))
        while not moving.done():
            await spending.spend()
            await asyncio.sleep(0.001)
        await moving
        await spending.until_granted(20)
        assert spending.in_doubt == 0


def moved_to_and_fro(cluster: Cluster, slot: int) -> None:
    source, target, _ = cluster.masters
    for _ in range(3):
        move(cluster, slot, source, target)
        move(cluster, slot, target, source)


def move(cluster: Cluster, slot: int, source: Node, target: Node) -> None:
    """Move a slot as `redis-cli --cluster reshard` does."""
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
    for node in (target, source, *[node for node in cluster.masters if node not in (source, target)]):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.ask("CLUSTER", "MYID"))
    eventually(lambda: len({seen_by(node) for node in cluster.masters}) == 1)


def seen_by(node: Node) -> frozenset[tuple[bytes, ...]]:
    """Return who has which slots and since which epoch, as this node sees it.

    A node that has not yet heard of another's last epoch may lose to it what it is given next.
    """
    lines = [line.split() for line in node.ask("CLUSTER", "NODES").splitlines()]
    return frozenset([(line[0], line[6], *[part for part in line[8:] if not part.startswith(b"[")]) for line in lines])


async def test_a_call_is_sent_on_to_where_its_slot_is_being_moved_to(stores: Open) -> None:
    """One key: it is not there yet and is asked for (ASK) at the node that it will be on."""
    with Cluster(node_timeout_ms=60_000) as cluster:
        account = account_in(cluster, 0)
        store, slot = stores(cluster.url, PATIENT_S), key_slot(account.encode())
        await granted(store, ask(LIMIT, account=account, issued_at=FAR))
        source, target, _ = cluster.masters
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
        for moment in (5.0, 6.0):  # its script is not known there yet, and then it is
            await store.revoke_account(account, moment)
        assert await store.revoked_before(account) == 6.0
        assert target.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
        # Several keys, and not all of them at one place: nobody can judge them, and nobody guesses.
        with pytest.raises(StoreUnavailable, match="store_unavailable") as caught:
            await store.admit(ask(LIMIT, account=account, issued_at=FAR))
        assert "TryAgain" in str(caught.value.detail)
        assert (await store.admit(ask(LIMIT, account=account_in(cluster, 1), issued_at=FAR))).admitted


async def test_a_cluster_that_is_down_refuses_and_is_asked_again_when_it_is_back(stores: Open) -> None:
    with Cluster(node_timeout_ms=60_000) as cluster:
        account = account_in(cluster, 0)
        spending = Spending(stores(cluster.url), account)
        await spending.until_granted(5)
        slot = key_slot(account.encode())
        for node in cluster.masters:
            node.ask("CLUSTER", "DELSLOTS", slot)
        eventually(lambda: b"cluster_state:fail" in cluster.masters[0].ask("CLUSTER", "INFO"))
        assert not await spending.spend()
        cluster.masters[0].ask("CLUSTER", "ADDSLOTS", slot)
        eventually(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in cluster.masters))
        await spending.until_granted(5)


async def test_one_node_of_those_that_are_named_is_enough_to_find_the_others(stores: Open) -> None:
    with Cluster(node_timeout_ms=60_000) as cluster:
        *_, known = cluster.url.removeprefix("redis+cluster://").split(",")
        store = stores(f"redis+cluster://127.0.0.1:1,{known}", PATIENT_S)
        for number in range(3):
            await granted(store, ask(LIMIT, account=account_in(cluster, number), issued_at=FAR))
        for number in range(30):
            assert await store.add(make_key(str(number), f"tenant{number}"), max_active=None, now=0)
        assert {account async for account in store.accounts()} == {f"tenant{number}" for number in range(30)}
        assert await store.warnings() == (
            "Redis keeps nothing on disk: its restart would lose all keys and revocations; set appendonly yes",
        )


@pytest.mark.parametrize("kind", ["sentinels", "cluster"])
async def test_where_nobody_listens_all_is_refused_at_once(stores: Open, kind: str) -> None:
    urls = {"sentinels": "redis+sentinel://127.0.0.1:1,127.0.0.1:2/m", "cluster": "redis+cluster://127.0.0.1:1"}
    store = stores(urls[kind])
    async with asyncio.timeout(RECOVERY_S):
        for _ in range(3):
            answers = await asyncio.gather(*[succeeds(lambda: store.admit(ask(LIMIT))) for _ in range(100)])
            assert not any(answers)
        assert not await succeeds(store.ping)
        assert not await succeeds(store.warnings)


GUIDE = (Path(__file__).parents[2] / "deploy" / "redis.md").read_text()
ACL = re.findall(r"[+~][\w|:*]+", GUIDE.split("ACL SETUSER", 1)[1].split("```", 1)[0])
"""What the guide says that our user must be allowed."""


@pytest.mark.parametrize("kind", ["one", "sentinels", "cluster"])
async def test_a_user_who_may_do_no_more_than_is_needed_is_served_everywhere(stores: Open, kind: str) -> None:
    with ExitStack() as stack:
        topology: Any = Node() if kind == "one" else Sentinels(replicas=0) if kind == "sentinels" else Cluster()
        stack.enter_context(topology)
        nodes: list[Node] = [topology] if kind == "one" else topology.nodes
        for node in nodes:
            node.ask("ACL", "SETUSER", "sidecar", "on", ">p@ss:w/rd", *ACL)
            node.ask("ACL", "SETUSER", "default", "-@all", "+acl", "+auth", "+ping", "+shutdown", "+info")
        url = f"redis://127.0.0.1:{topology.port}" if kind == "one" else topology.url
        store = stores(url.replace("://", "://sidecar:p%40ss%3Aw%2Frd@"), PATIENT_S)
        await until(lambda: succeeds(store.ping))
        key = make_key(expires_at=FAR)
        assert await store.add(key, max_active=3, now=0)
        assert await store.replace(make_key(version=2, expires_at=FAR), successor=make_key("b", expires_at=FAR))
        assert len(await store.page("acme", limit=5, after=None)) == 2
        assert [account async for account in store.accounts()] == ["acme"]
        assert await store.meet("t", "acme", FAR)
        await store.revoke_token("t")
        await store.revoke_account("acme", 5.0)
        assert (await store.changes("0-0"))[1] == frozenset({"acme"})
        assert (await store.admit(ask(LIMIT, issued_at=FAR))).admitted
        await store.count_refusal("acme", key.id)
        await store.record("192.0.2.1", LIMIT)
        await store.usage("acme", key.id, 0.0)
        pin = Pin("a", None, None, None, Sighting("d", None, "{}"), 0.0)
        assert await store.change_pins("u", 0, [("a", pin)], is_complete=True) == 1
        assert (await store.pinned("u")).pins == {"a": pin}
        assert await store.change_pins("u", 1, [("a", None)], is_complete=True) == 2
        assert await store.warnings()
        for wrong in ("sidecar:wrong-password", "nobody:wrong-password"):
            stranger = stores(url.replace("://", f"://{wrong}@"))
            with pytest.raises(StoreUnavailable) as caught:
                await stranger.ping()
            assert "wrong-password" not in f"{caught.value.detail} {caught.value!r} {stranger!r}"


async def test_sentinels_that_ask_for_a_password_are_given_that_of_the_master(stores: Open) -> None:
    with Sentinels(replicas=0) as topology:
        topology.sentinels[0].ask("SENTINEL", "SET", "mymaster", "auth-pass", "secret")
        topology.master.ask("CONFIG", "SET", "requirepass", "secret")
        topology.sentinels[0].ask("ACL", "SETUSER", "default", "resetpass", ">secret")
        store = stores(topology.url.replace("://", "://:secret@"))
        await granted(store, ask(LIMIT, issued_at=FAR))
        assert not await succeeds(stores(topology.url).ping)
