"""What sentinels and nodes may say of the masters: the newest counts, and whatever makes no sense is nobody's word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.crc import key_slot

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import RedisStore, knowers
from sidecar.edge.redis.cluster import MAX_HOPS
from tests.stores import PATIENT_S

Say = Callable[[list[bytes]], bytes | None]
"""The reply to a command; None for none."""
OK = b"+OK\r\n"


def packed(value: Any) -> bytes:
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join([packed(each) for each in value])
    if isinstance(value, int):
        return b":%d\r\n" % value
    if value is None:
        return b"$-1\r\n"
    data = str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Peer:
    """What listens on a port and answers as it is told to."""

    def __init__(self) -> None:
        self.say: Say = lambda command: OK
        self.asked: list[list[bytes]] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        while head := await reader.readline():
            command = []
            for _ in range(int(head[1:])):
                length = int((await reader.readline())[1:])
                command.append((await reader.readexactly(length + 2))[:-2])
            self.asked.append(command)
            reply = OK if command[0] == b"CLIENT" else self.say(command)
            if reply is not None:
                writer.write(reply)
        writer.close()


@pytest.fixture
async def peers() -> AsyncIterator[list[Peer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Peer()) for _ in range(5)]


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[str], RedisStore]]:
    stores: list[RedisStore] = []

    def open_store(url: str) -> RedisStore:
        stores.append(RedisStore.from_url(url, timeout_s=PATIENT_S))
        return stores[-1]

    yield open_store
    for store in stores:
        await store.aclose()


Open = Callable[[str], RedisStore]


def sentinels(*peers: Peer) -> str:
    return "redis+sentinel://" + ",".join(f"127.0.0.1:{peer.port}" for peer in peers) + "/m"


def naming(master: Peer, epoch: int) -> Say:
    def say(command: list[bytes]) -> bytes:
        address = ["127.0.0.1", str(master.port)]
        return packed(["ip", "127.0.0.1", "config-epoch", epoch] if command[1] == b"MASTER" else address)

    return say


def redis(says: bytes, role: str = "master") -> Say:
    return lambda command: packed([role, 0, []]) if command[0] == b"ROLE" else says


async def test_the_sentinel_that_knows_of_the_last_failover_is_believed(peers: list[Peer], opened: Open) -> None:
    former, now, stale, fresh, hung = peers
    former.say, now.say = redis(packed("7")), redis(packed("8"))
    stale.say, fresh.say, hung.say = naming(former, 3), naming(now, 4), lambda command: None
    store = opened(sentinels(stale, hung, fresh))
    assert await store.revoked_before("acme") == 8.0


async def test_when_more_than_half_have_answered_the_others_are_not_waited_for(
    peers: list[Peer], opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowers, "ASKING_S", 3_600.0)
    master, *asked = peers
    master.say = redis(packed("8"))
    for each in asked[:3]:
        each.say = naming(master, 1)
    asked[3].say = lambda command: None
    assert await opened(sentinels(*asked)).revoked_before("acme") == 8.0


@pytest.mark.parametrize(
    "says",
    [
        OK,
        b":1\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b"-ERR No such master with that name\r\n",
        b"*2\r\n*0\r\n*0\r\n",
        b"?\r\n",
    ],
)
@pytest.mark.parametrize("scheme", ["sentinel", "cluster"])
async def test_what_makes_no_sense_is_nobodys_word(peers: list[Peer], opened: Open, scheme: str, says: bytes) -> None:
    peers[0].say = lambda command: says
    url = sentinels(peers[0]) if scheme == "sentinel" else f"redis+cluster://127.0.0.1:{peers[0].port}"
    store = opened(url)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="store_unavailable") as caught:
            await store.revoked_before("acme")
        assert "nobody says where the masters are" in str(caught.value.detail)


@pytest.mark.parametrize(
    "says", [packed(["slave", "h", 1, "connected", 1]), b"*0\r\n", OK, b"-LOADING Redis is loading\r\n", b"$-1\r\n"]
)
async def test_whoever_is_no_master_by_its_own_word_is_asked_nothing(
    peers: list[Peer], opened: Open, says: bytes
) -> None:
    master, sentinel, *_ = peers
    master.say, sentinel.say = (lambda command: says), naming(master, 1)
    with pytest.raises(StoreUnavailable):
        await opened(sentinels(sentinel)).revoked_before("acme")
    assert [command for command in master.asked if command[0] == b"GET"] == []


async def test_a_master_that_may_not_be_asked_what_it_is_is_used(peers: list[Peer], opened: Open) -> None:
    master, sentinel, *_ = peers
    master.say = lambda command: b"-NOPERM this user\r\n" if command[0] == b"ROLE" else packed("8")
    sentinel.say = naming(master, 1)
    assert await opened(sentinels(sentinel)).revoked_before("acme") == 8.0


def node(owner: Peer, says: bytes, *, host: str | None = "127.0.0.1", state: str = "ok", epoch: int = 1) -> Say:
    """Return what says that all slots are this one's, and `says` to whatever else."""

    def say(command: list[bytes]) -> bytes:
        if command == [b"CLUSTER", b"INFO"]:
            return packed(f"cluster_state:{state}\r\ncluster_current_epoch:{epoch}\r\n")
        return packed([[0, 16383, [host, owner.port, "id"]]]) if command[0] == b"CLUSTER" else says

    return say


def cluster(*peers: Peer) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{peer.port}" for peer in peers)


@pytest.mark.parametrize("host", [None, "", "?"])
async def test_a_node_that_does_not_know_its_own_address_is_where_it_was_asked(
    peers: list[Peer], opened: Open, host: str | None
) -> None:
    peers[0].say = node(peers[0], packed("8"), host=host)
    assert await opened(cluster(peers[0])).revoked_before("acme") == 8.0


@pytest.mark.parametrize(("state", "epoch"), [("ok", 3), ("fail", 9)])
async def test_the_newest_map_of_who_sees_a_majority_is_believed(
    peers: list[Peer], opened: Open, state: str, epoch: int
) -> None:
    former, now, stale, fresh, hung = peers
    former.say, now.say = redis(packed("7")), redis(packed("8"))
    stale.say, fresh.say = node(former, OK, state=state, epoch=epoch), node(now, OK, epoch=4)
    hung.say = lambda command: None
    assert await opened(cluster(stale, hung, fresh)).revoked_before("acme") == 8.0


async def test_nodes_that_send_a_call_to_and_fro_are_not_followed_for_ever(peers: list[Peer], opened: Open) -> None:
    one, other, *_ = peers
    one.say = node(one, b"-MOVED 1 127.0.0.1:%d\r\n" % other.port)
    other.say = node(one, b"-MOVED 1 127.0.0.1:%d\r\n" % one.port)
    with pytest.raises(StoreUnavailable) as caught:
        await opened(cluster(one)).revoked_before("acme")
    assert "Moved" in str(caught.value.detail)
    assert len([command for peer in (one, other) for command in peer.asked if command[0] == b"GET"]) == MAX_HOPS + 1


async def test_a_node_is_followed_although_the_map_says_otherwise_for_long(peers: list[Peer], opened: Open) -> None:
    """A map may lag behind; the way that was learnt from a node must not lead to a link that was given up."""
    behind, owner, *_ = peers
    behind.say = node(behind, moved_to(owner))
    owner.say = node(behind, packed("8"))
    store = opened(cluster(behind))
    async with asyncio.timeout(PATIENT_S):
        while behind.asked.count([b"CLUSTER", b"SLOTS"]) < 6:
            assert await store.revoked_before("acme") == 8.0
            await asyncio.sleep(0.01)


async def test_what_a_node_says_of_a_slot_is_remembered(peers: list[Peer], opened: Open) -> None:
    behind, owner, *_ = peers
    behind.say = node(behind, moved_to(owner))
    owner.say = node(owner, packed("8"), epoch=2)
    store = opened(cluster(behind))
    for _ in range(3):
        assert await store.revoked_before("acme") == 8.0
    assert len([command for command in behind.asked if command[0] == b"GET"]) == 1


def moved_to(owner: Peer) -> bytes:
    return b"-MOVED %d 127.0.0.1:%d\r\n" % (key_slot(b"acme"), owner.port)


NOWHERE = [
    b"-MOVED",
    b"-MOVED 1",
    b"-ASK x y:z",
    b"-MOVED 1 nobody",
    b"-MOVED 99999 h:1",
    b"-MOVED 1 h:0",
    b"-ASK 1 :1",
]
NOWHERE += [b"-MOVED 1 127.0.0.1:99999", b"-ASK 1 %b:1" % (b"a" * 70), b"-ASK 1 a..b:1", b"-ASK 1 \xff:1"]


@pytest.mark.parametrize("says", NOWHERE)
async def test_a_node_that_sends_nowhere_is_no_answer_and_disturbs_no_other_call(
    peers: list[Peer], opened: Open, says: bytes
) -> None:
    peers[0].say = node(peers[0], packed("8"))
    store = opened(cluster(peers[0]))
    await store.revoked_before("acme")
    well, ill = node(peers[0], packed("8")), node(peers[0], says + b"\r\n")
    peers[0].say = lambda command: (ill if b"{ill}" in command[1] else well)(command)
    async with asyncio.timeout(PATIENT_S / 2):
        answers = await asyncio.gather(
            store.revoked_before("ill"), store.revoked_before("acme"), return_exceptions=True
        )
    assert isinstance(answers[0], StoreUnavailable)
    assert answers[1] == 8.0


async def test_a_map_that_names_an_address_that_can_be_none_is_replaced_by_the_next(
    peers: list[Peer], opened: Open
) -> None:
    asked, master, *_ = peers
    asked.say = node(master, OK, host="\u2603" * 70)
    store = opened(cluster(asked))
    for _ in range(2):
        assert not await succeeds(lambda: store.revoked_before("acme"))
        await asyncio.sleep(0.1)
    master.say, asked.say = redis(packed("8")), node(master, OK)
    async with asyncio.timeout(PATIENT_S):
        while not await succeeds(lambda: store.revoked_before("acme")):  # noqa: ASYNC110 - somebody must ask
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("port", ["99999", "0", "-1"])
async def test_a_master_that_can_be_nowhere_is_not_found_until_it_is_elsewhere(
    peers: list[Peer], opened: Open, port: str
) -> None:
    sentinel, master, *_ = peers
    nowhere = [packed(["\u2603" * 70, port]), packed(["ip", "h", "config-epoch", 1])]
    sentinel.say = lambda command: nowhere[command[1] == b"MASTER"]
    store = opened(sentinels(sentinel))
    with pytest.raises(StoreUnavailable):
        await store.revoked_before("acme")
    master.say, sentinel.say = redis(packed("8")), naming(master, 2)
    async with asyncio.timeout(PATIENT_S):
        while not await succeeds(lambda: store.revoked_before("acme")):  # noqa: ASYNC110 - somebody must ask
            await asyncio.sleep(0.01)


async def succeeds(act: Callable[[], Awaitable[object]]) -> bool:
    try:
        await act()
    except StoreUnavailable:
        return False
    return True


async def test_a_call_that_is_sent_on_to_where_nobody_answers_ends_with_its_time(peers: list[Peer]) -> None:
    peers[0].say = node(peers[0], b"-ASK 1 127.0.0.1:%d\r\n" % peers[1].port)
    peers[1].say = lambda command: None
    store = RedisStore.from_url(cluster(peers[0]), timeout_s=0.1)
    async with asyncio.timeout(PATIENT_S):
        with pytest.raises(StoreUnavailable):
            await store.revoked_before("acme")
    await store.aclose()
