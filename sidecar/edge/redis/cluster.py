"""Many masters, each with some of the 16384 slots: a link to each, and the map that says whose a key is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis.addresses import Address, Place
from sidecar.edge.redis.commands import Argument, Call, Script, pack, settle
from sidecar.edge.redis.conversation import Conversation
from sidecar.edge.redis.deadline import Deadline
from sidecar.edge.redis.knowers import Knowers, Watch
from sidecar.edge.redis.link import PAUSE_S, Link, Way
from sidecar.edge.redis.opening import opened

MAX_HOPS: Final = 5
"""A call that is sent from node to node more often than that is given up."""
ASKED_AT_ONCE: Final = 5
"""So many nodes are asked for the map, however many there are."""
PROBES: Final = 4096
"""So many names are tried to find one for each master."""

Share = tuple[int, int, Address]
"""The first and the last of some slots, and their master."""


class Cluster(Way):
    """Sends each call to the master of its slot, and on to another when that one says so.

    What a node sends on it has not done, so nothing is done twice; everything else that fails is not tried again.
    """

    def __init__(
        self,
        place: Place,
        timeout_s: float,
        note_trip: Callable[[float], None],
        note_move: Callable[[Sequence[str]], None],
    ) -> None:
        self._seeds = place.addresses
        self._access = place.access
        self._timeout_s = timeout_s
        self._note_trip = note_trip
        self._note_move = note_move
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(self._learn)
        question: tuple[tuple[Argument, ...], ...] = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
        self._knowers = Knowers(place.access, place.access, question, _shares)
        self._shares: tuple[Share, ...] = ()
        self._links: dict[Address, Link] = {}
        self._owners: list[Link | None] = []
        """By slot; empty until somebody has told."""
        self._corrected = False
        """Whether nodes have told otherwise since."""
        self._learning: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._problem: Exception | None = None
        self._paused_until = 0.0

    def send(self, packed: bytes, script: Script | None, key: str) -> asyncio.Future[Any]:
        """See `link.Way`."""
        call = Call(packed, self._loop.create_future(), script)
        slot = key_slot(key.encode("utf-8", "surrogatepass"))
        if self._owners:
            self._take(call, slot)
        else:
            self._spawn(self._learn_and_take(call, slot))
        return call.future

    async def masters(self) -> Sequence[Way]:
        """See `link.Way`."""
        if not self._owners:
            await self._learn_first()
        return [self._link(address) for address in _masters(self._shares)]

    async def probe(self, name: str, lives_ms: int) -> None:
        """See `link.Way`. One master that takes it is enough: the others' accounts are their own matter."""
        if not self._owners:
            await self._learn_first()
        probes = [self.call("SET", each, "1", "PX", lives_ms) for each in self._probes(name)]
        results = await asyncio.gather(*probes, return_exceptions=True)
        problems = [result for result in results if isinstance(result, BaseException)]
        if len(problems) == len(results):
            raise problems[0] if problems else StoreUnavailable("store_unavailable", detail="no master has any slot")

    async def aclose(self) -> None:
        """See `link.Way`."""
        await self._watch.aclose()
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*[link.aclose() for link in self._links.values()])
        await self._knowers.aclose()

    def _take(self, call: Call, slot: int) -> None:
        link = self._owners[slot]
        if link is None:
            self._watch.hurry()
            settle(call.future, ClusterDownError(f"nobody has slot {slot}"))
        else:
            link.take(call)

    async def _learn_and_take(self, call: Call, slot: int) -> None:
        began = self._loop.time()
        try:
            await self._learn_first()
        except StoreUnavailable as error:
            settle(call.future, error.__cause__ or error)
        else:
            self._bound(call, self._timeout_s - (self._loop.time() - began))
            self._take(call, slot)

    async def _learn_first(self) -> None:
        """Learn who has what, within the deadline of a trip; after a failure nobody tries for a moment.

        Raises:
            StoreUnavailable: nobody says it.
        """
        if self._problem is None or self._loop.time() >= self._paused_until:
            self._watch.begin()
            if self._learning is None or self._learning.done():
                self._learning = asyncio.create_task(self._learn())
                self._learning.add_done_callback(lambda learning: learning.cancelled() or learning.exception())
            try:
                async with Deadline(self._timeout_s):
                    await asyncio.shield(self._learning)
            except (RedisError, OSError) as error:
                self._problem = error
                self._paused_until = self._loop.time() + PAUSE_S
            else:
                return
        problem = f"{type(self._problem).__name__}: {self._problem}"
        raise StoreUnavailable("store_unavailable", detail=problem) from self._problem

    async def _learn(self) -> None:
        known = list(dict.fromkeys((*self._links, *self._seeds)))
        shares = await self._knowers.newest(random.sample(known, min(len(known), ASKED_AT_ONCE)))
        self._problem = None
        masters, before = _masters(shares), _masters(self._shares)
        if before and set(masters) != set(before):
            self._note_move([str(master) for master in masters])
        if shares != self._shares or self._corrected:
            self._shares, self._corrected = shares, False
            self._owners = [None] * REDIS_CLUSTER_HASH_SLOTS
            for first, last, address in shares:
                self._owners[first : last + 1] = [self._link(address)] * (last + 1 - first)
        for address in [address for address in self._links if address not in masters]:
            self._spawn(self._links.pop(address).aclose())

    def _link(self, address: Address) -> Link:
        if address not in self._links:
            access = self._access

            async def connect() -> Conversation:
                return await opened(address, access)

            self._links[address] = Link(
                connect,
                self._timeout_s,
                self._note_trip,
                troubled=self._watch.hurry,
                elsewhere=lambda call, reply, left_s: self._elsewhere(address, call, reply, left_s),
            )
        return self._links[address]

    def _elsewhere(self, here: Address, call: Call, reply: Any, left_s: float) -> bool:
        if isinstance(reply, ClusterDownError | TryAgainError):
            self._watch.hurry()
        if not isinstance(reply, AskError) or call.hops >= MAX_HOPS or left_s <= 0:
            return False
        slot = int(reply.slot_id)
        if not 0 <= slot < REDIS_CLUSTER_HASH_SLOTS:
            return False
        link = self._link(Address(str(reply.host) or here.host, int(reply.port)))
        if isinstance(reply, MovedError):
            self._owners[slot], self._corrected = link, True
            self._watch.hurry()
        else:
            done = self._loop.create_future()
            done.set_result(None)
            link.take(Call(pack(("ASKING",)), done, None))
        self._bound(call, left_s)
        call.hops += 1
        link.take(call)
        return True

    def _bound(self, call: Call, left_s: float) -> None:
        """Have a call that has waited already wait for the rest of its time alone."""
        late = TimeoutError(f"no answer within {self._timeout_s:g} s")
        self._loop.call_later(left_s, settle, call.future, late)

    def _probes(self, name: str) -> list[str]:
        """Return a name for each master, in one of its slots."""
        found: dict[Link, str] = {}
        missing = len(_masters(self._shares))
        for number in range(PROBES):
            probe = f"{name}:{number}"
            owner = self._owners[key_slot(probe.encode())]
            if owner is not None:
                found.setdefault(owner, probe)
            if len(found) == missing:
                break
        return list(found.values())

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _masters(shares: tuple[Share, ...]) -> list[Address]:
    return list(dict.fromkeys([address for _, _, address in shares]))


def _shares(node: Address, replies: list[Any]) -> tuple[int, tuple[Share, ...]]:
    """Read a node's map, and how new it is. One that sees no majority of the masters is behind all that do."""
    info = dict(line.split(":", 1) for line in replies[0].decode().splitlines() if ":" in line)
    shares = []
    for first, last, master, *_ in replies[1]:
        if not 0 <= first <= last < REDIS_CLUSTER_HASH_SLOTS:
            raise ValueError("a slot that there is not")
        # Without a name of its own a node is where it was asked.
        host = (master[0] or b"").decode()
        shares.append((first, last, Address(node.host if host in ("", "?") else host, int(master[1]))))
    if not shares:
        raise ValueError("nobody has any slot")
    epoch = int(info["cluster_current_epoch"])
    return (epoch if info["cluster_state"] == "ok" else -1), tuple(sorted(shares))
