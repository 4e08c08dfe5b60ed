"""What is sent to Redis, and who waits for the reply."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from sidecar.denials import StoreUnavailable

Argument = str | int


class Script:
    """A Lua script that Redis keeps under its digest. `parts` are joined: shared functions first."""

    def __init__(self, *parts: str) -> None:
        directory = files("sidecar.edge.redis").joinpath("scripts")
        self.source = "".join(directory.joinpath(f"{part}.lua").read_text("utf-8") for part in parts)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def packed(self, keys: Sequence[str], arguments: Sequence[Argument]) -> bytes:
        """Write the command that runs it."""
        return pack(("EVALSHA", self.sha, len(keys), *keys, *arguments))


@dataclass(slots=True)
class Call:
    """One command on its way, and who waits for its reply."""

    packed: bytes
    future: asyncio.Future[Any]
    script: Script | None
    hops: int = 0
    """How often a node of a cluster has sent it on to another."""


def settle(future: asyncio.Future[Any], reply: Any) -> None:
    """Hand a reply to its caller, if there still is one; any error becomes the one that ports know."""
    if future.done():
        return
    if isinstance(reply, BaseException):
        failure = StoreUnavailable("store_unavailable", detail=f"{type(reply).__name__}: {reply}")
        failure.__cause__ = reply
        future.set_exception(failure)
    else:
        future.set_result(reply)


def pack(arguments: Sequence[Argument]) -> bytes:
    """Write one command in RESP, the way Redis reads it.

    By hand, because redis-py's packer takes three times as long, on every request.
    """
    texts = [argument if isinstance(argument, str) else str(argument) for argument in arguments]
    whole = "".join([f"${len(text)}\r\n{text}\r\n" for text in texts])
    if whole.isascii():
        return f"*{len(texts)}\r\n{whole}".encode()
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"*%d\r\n" % len(encoded) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded])
