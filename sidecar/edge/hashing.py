"""Hashes secrets with bcrypt, in a few threads of its own and with a bounded queue before them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final, ParamSpec, TypeVar

import bcrypt

from sidecar.denials import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

_HASH: Final = re.compile(r"\$2b\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}")
"""What `hash` writes. A cost beyond 16 would hold a thread for minutes, so such a hash is nobody's."""


class BcryptHasher:
    """`ports.SecretHasher` on bcrypt. One core is left to the event loop. `cost` may be changed while it is in use."""

    def __init__(self, cost: int, *, threads: int | None = None, max_waiting: int = 64) -> None:
        workers = threads or max(1, (os.cpu_count() or 1) - 1)
        self.cost = cost
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="bcrypt")
        self._room = BoundedSemaphore(workers + max_waiting)

    async def hash(self, secret: str) -> str:
        """Hash a secret with a new salt.

        Raises:
            Overloaded: when too many are waiting.
        """
        return (await self._run(_hash, _digest(secret), self.cost)).decode("ascii")

    async def verify(self, secret: str, secret_hash: str) -> bool:
        """Tell whether the secret made this hash; a hash that is none of ours was made by nothing.

        Raises:
            Overloaded: when too many are waiting.
        """
        if not _HASH.fullmatch(secret_hash):
            return False
        return await self._run(_verify, _digest(secret), secret_hash.encode("ascii"))

    async def aclose(self) -> None:
        """Finish what was begun and let go of the threads; whoever comes later is turned away."""
        await asyncio.to_thread(self._executor.shutdown)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # Room is given back when the job ends and not when its caller does: a caller that leaves frees no thread.
        if not self._room.acquire(blocking=False):
            raise Overloaded("hash_queue_full", retry_after_s=1)
        try:
            job = self._executor.submit(work, *args, **kwargs)
        except RuntimeError as error:
            self._room.release()
            raise Overloaded("hash_queue_closed", retry_after_s=1) from error
        job.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(job)


def _digest(secret: str) -> bytes:
    # bcrypt reads no more than 72 bytes and no NUL; this has 44 of the base64 alphabet, whatever the secret.
    return b64encode(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest())


def _hash(digest: bytes, cost: int) -> bytes:
    return bcrypt.hashpw(digest, bcrypt.gensalt(cost))


def _verify(digest: bytes, secret_hash: bytes) -> bool:
    try:
        return bcrypt.checkpw(digest, secret_hash)
    except ValueError:
        return False
