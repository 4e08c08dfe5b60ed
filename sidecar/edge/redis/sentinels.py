"""One master at a time, whose address its sentinels know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from redis.exceptions import NoPermissionError, RedisError

from sidecar.edge.redis.addresses import Address, Place
from sidecar.edge.redis.conversation import Conversation
from sidecar.edge.redis.knowers import Knowers, Watch
from sidecar.edge.redis.link import Link
from sidecar.edge.redis.opening import opened, told


class SentinelLink(Link):
    """Asks the sentinels before each connection, and once a second; leaves the old master when they name another.

    Nothing is sent to a new master that was sent to the old one: whether it was done there nobody knows.
    """

    def __init__(
        self,
        place: Place,
        timeout_s: float,
        note_trip: Callable[[float], None],
        note_move: Callable[[Sequence[str]], None],
    ) -> None:
        self._watch = Watch(self._find)
        super().__init__(self._to_master, timeout_s, note_trip, troubled=self._watch.hurry)
        self._note_move = note_move
        self._sentinels = place.addresses
        self._access = place.access
        without_login = replace(place.access, user=None, password=None, database=0)
        self._knowers = Knowers(
            without_login,
            replace(place.access, database=0),
            (("SENTINEL", "GET-MASTER-ADDR-BY-NAME", place.master), ("SENTINEL", "MASTER", place.master)),
            _master,
        )
        self._master: Address | None = None

    async def aclose(self) -> None:
        """See `link.Way`."""
        await self._watch.aclose()
        await super().aclose()
        await self._knowers.aclose()

    async def _find(self) -> Address:
        master = await self._knowers.newest(self._sentinels)
        if master != self._master:
            moved, self._master = self._master is not None, master
            if moved:
                self.leave()
                self._note_move([str(master)])
        return master

    async def _to_master(self) -> Conversation:
        self._watch.begin()
        try:
            address = await self._find()
        except OSError:
            if self._master is None:
                raise
            address = self._master  # its sentinels are away, and it may well be there
        conversation = await opened(address, self._access)
        try:
            [role] = await told(conversation, ("ROLE",))
            if isinstance(role, NoPermissionError):
                role = [b"master"]  # if it is not, it will refuse to be written to
            if isinstance(role, RedisError):
                raise role
            if role[0] != b"master" or address != self._master:
                raise ConnectionError("this is the master no more")
        except BaseException:
            conversation.close()
            raise
        return conversation


def _master(sentinel: Address, replies: list[Any]) -> tuple[int, Address]:
    """Read the address, and the epoch of the failover that it is from.

    The first reply names the new master as soon as it is one, the second one only when its replicas follow it.
    """
    (host, port), fields = replies
    details = dict(zip(fields[::2], fields[1::2], strict=True))
    return int(details[b"config-epoch"]), Address(host.decode(), int(port))
