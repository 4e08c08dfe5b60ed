"""Opening a connection to a Redis, a sentinel or a node of a cluster, and greeting it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from redis.exceptions import RedisError

from sidecar.edge.redis.addresses import Access, Address
from sidecar.edge.redis.commands import Argument, pack
from sidecar.edge.redis.conversation import Conversation

_NAME: Final[tuple[Argument, ...]] = ("CLIENT", "SETNAME", "mcp-sidecar")


async def opened(address: Address, access: Access) -> Conversation:
    """Connect, with TLS where `access` says so, and say who we are, all in one round trip.

    Raises:
        RedisError, OSError: it can't be had, or does not know us.
    """
    try:
        if address.port is None:
            _, writer = await asyncio.open_unix_connection(address.host)
        else:
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=access.tls)
    except (UnicodeError, OverflowError) as error:  # others name addresses too, and may name what is none
        raise ConnectionError(f"there can be no such address: {error}") from error
    conversation = Conversation(writer)
    try:
        greeting = _greeting(access)
        replies = await conversation.ask(b"".join([pack(command) for command in greeting]), len(greeting))
        refused = [reply for reply in replies[:-1] if isinstance(reply, RedisError)]
        if refused:
            raise refused[0]
    except BaseException:
        conversation.close()
        raise
    return conversation


async def told(conversation: Conversation, *commands: tuple[Argument, ...]) -> list[Any]:
    """Send commands in one batch and return their replies; see `Conversation.ask`."""
    return await conversation.ask(b"".join([pack(command) for command in commands]), len(commands))


def _greeting(access: Access) -> list[tuple[Argument, ...]]:
    """Our name comes last: who may not give it, or has been asked by something older, is served all the same."""
    greeting: list[tuple[Argument, ...]] = []
    if access.user is not None:
        greeting.append(("AUTH", access.user, access.password or ""))
    elif access.password is not None:
        greeting.append(("AUTH", access.password))
    if access.database:
        greeting.append(("SELECT", access.database))
    return [*greeting, _NAME]
