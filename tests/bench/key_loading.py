"""Puts API keys into Redis by the store's own script and in its own format, many at a time."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Iterable
from typing import Final

from sidecar.edge.redis import RedisStore, names
from sidecar.edge.redis.commands import pack
from sidecar.edge.redis.keys import ADD, written
from tests.bench.credentials import IssuedKey

_AT_ONCE: Final = 1000
_REPLY: Final = b"+OK\r\n:1\r\n"
"""The account's name was set, and the script has added the key."""


def load_keys(url: str, keys: Iterable[IssuedKey]) -> None:
    """Add the keys to the Redis behind this unix socket, and read one back as the sidecar would.

    Raises:
        RuntimeError: a key was not added, or is not what was added.
    """
    last: IssuedKey | None = None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(url.removeprefix("unix://"))
        connection.sendall(pack(("SCRIPT", "LOAD", ADD.source)))
        _read(connection, len(f"$40\r\n{ADD.sha}\r\n"))
        remaining = iter(keys)
        while batch := list(itertools.islice(remaining, _AT_ONCE)):
            connection.sendall(b"".join(map(_commands, batch)))
            if _read(connection, len(_REPLY) * len(batch)) != _REPLY * len(batch):
                raise RuntimeError("Redis did not take the keys")
            last = batch[-1]
    if last is not None and not asyncio.run(_is_there(url, last)):
        raise RuntimeError("the store does not find a key that was loaded")


def _commands(key: IssuedKey) -> bytes:
    record = key.record
    places = (
        names.record(record.account, record.id),
        names.key_list(record.account),
        names.active_keys(record.account),
    )
    arguments = (*written(record), "", repr(record.created_at))
    claim = pack(("SET", names.owner(record.id), record.account))
    return claim + pack(("EVALSHA", ADD.sha, len(places), *places, *arguments))


def _read(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = connection.recv(size - len(received))
        if not piece:
            raise RuntimeError(f"Redis has left: {bytes(received[-200:])!r}")
        received += piece
    return bytes(received)


async def _is_there(url: str, key: IssuedKey) -> bool:
    store = RedisStore.from_url(url, timeout_s=5)
    try:
        account = await store.account_of(key.record.id)
        stored = None if account is None else await store.get(account, key.record.id)
        return stored is not None and stored.record == key.record
    finally:
        await store.aclose()
