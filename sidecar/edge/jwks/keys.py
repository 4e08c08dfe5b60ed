"""The key sets of all issuers, each fetched off the hot path and kept until something good replaces it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sidecar.edge.jwks.freshness import FetchedKeys, Report, Status
from sidecar.edge.jwks.loaders import FileLoader, Http, HttpLoader, Load
from sidecar.model import KeySetState, VerificationKey
from sidecar.policy import keysets

_MIN_PAUSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where an issuer's keys are. At most one of these; none of them means: discover it from the issuer."""

    url: str | None = None
    file: str | None = None
    secret: bytes | None = field(default=None, repr=False)
    """For HS256, 32 bytes or more."""


def _spread() -> float:
    return random.uniform(0.9, 1.0)  # noqa: S311 - spreads the load of many replicas; nothing secret hangs on it


class KeySets:
    """`ports.VerificationKeys` over HTTP and files: one background task for each issuer keeps its set fresh.

    A set is fetched again at 80 % of its lifetime, and on a token whose key it does not hold: once for all who ask,
    and at most once per 10 s. A fetch takes `timeout_s` at most; one that fails changes nothing and is tried again
    after 1 s, then twice that, up to 60 s.

    Raises:
        KeySetError: a shared secret that is none.
    """

    def __init__(
        self,
        sources: Mapping[str, KeySource],
        *,
        report: Report,
        timeout_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = _spread,
    ) -> None:
        self._http = Http()
        self._sleep = sleep
        self._clock = clock
        self._issuers: dict[str, FetchedKeys | _SharedSecret] = {}
        for issuer, source in sources.items():
            if source.secret is not None:
                self._issuers[issuer] = _SharedSecret(source.secret)
            else:
                load = self._loader(issuer, source)
                self._issuers[issuer] = FetchedKeys(issuer, load, report, timeout_s, clock, jitter)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to fetch. Returns at once: who asks for a key meanwhile waits for the fetch."""
        self._http.open()
        fetched = [keys for keys in self._issuers.values() if isinstance(keys, FetchedKeys)]
        self._tasks = [asyncio.create_task(self._keep_fresh(keys)) for keys in fetched]

    async def aclose(self) -> None:
        """Stop fetching and let go of every connection."""
        tasks = self._tasks + [task for keys in self._issuers.values() for task in keys.fetching()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.close()

    def generation(self, issuer: str) -> int:
        """Return a number that changes whenever the issuer's key set does; 0 before it was ever loaded."""
        keys = self._issuers.get(issuer)
        return 0 if keys is None else keys.generation

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the issuer's key for such a token, or None; an issuer that is not configured has none.

        Raises:
            IssuerUnavailable: when there is no key set to go by.
        """
        keys = self._issuers.get(issuer)
        return None if keys is None else await keys.find(kid, algorithm)

    def status(self) -> dict[str, Status]:
        """Tell of each issuer whether its keys are fresh, outlive their lifetime for want of better, or are missing."""
        return {issuer: keys.status() for issuer, keys in self._issuers.items()}

    def states(self) -> dict[str, KeySetState]:
        """Tell of each issuer whose keys are fetched how they are doing."""
        return {issuer: keys.state() for issuer, keys in self._issuers.items() if isinstance(keys, FetchedKeys)}

    async def _keep_fresh(self, keys: FetchedKeys) -> None:
        while True:
            if self._clock() >= keys.due_at:
                await keys.fetch()
            await self._sleep(max(keys.due_at - self._clock(), _MIN_PAUSE_S))

    def _loader(self, issuer: str, source: KeySource) -> Load:
        if source.file is not None:
            return FileLoader(Path(source.file)).load
        return HttpLoader(self._http, issuer, source.url).load


class _SharedSecret:
    """An issuer that signs with a secret it shares with us. A key id in its tokens means nothing here."""

    generation: Final = 1

    def __init__(self, secret: bytes) -> None:
        self._keys = (keysets.shared_secret(secret),)

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        return keysets.find(self._keys, None, algorithm)

    def status(self) -> Status:
        return "ok"

    def fetching(self) -> list[asyncio.Task[None]]:
        return []
