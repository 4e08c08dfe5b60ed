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
        self._report = report
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter
        self._sources = dict(sources)
        self._issuers = {issuer: self._keys_of(issuer, source) for issuer, source in sources.items()}
        self._keepers: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Begin to fetch. Returns at once: who asks for a key meanwhile waits for the fetch."""
        self._http.open()
        for issuer, keys in self._issuers.items():
            self._keep(issuer, keys)

    async def use(self, sources: Mapping[str, KeySource]) -> None:
        """Go by these sources from now on, once what is new among them was fetched, well or badly.

        An issuer whose source is as it was keeps its keys.
        """
        changed = {issuer: source for issuer, source in sources.items() if self._sources.get(issuer) != source}
        new = {issuer: self._keys_of(issuer, source) for issuer, source in changed.items()}
        await asyncio.gather(*[keys.fetch() for keys in new.values()])
        kept = {issuer: keys for issuer, keys in self._issuers.items() if issuer in sources and issuer not in new}
        gone = [keys for issuer, keys in self._issuers.items() if issuer not in kept]
        self._sources, self._issuers = dict(sources), kept | new
        for issuer in self._keepers.keys() - kept.keys():
            self._keepers.pop(issuer).cancel()
        for issuer, keys in new.items():
            self._keep(issuer, keys)
        if waited_for := [task for keys in gone for task in keys.fetching()]:
            await asyncio.wait(waited_for)

    async def aclose(self) -> None:
        """Stop fetching and let go of every connection."""
        tasks = [*self._keepers.values(), *[task for keys in self._issuers.values() for task in keys.fetching()]]
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

    def _keys_of(self, issuer: str, source: KeySource) -> FetchedKeys | _SharedSecret:
        if source.secret is not None:
            return _SharedSecret(source.secret)
        load = self._loader(issuer, source)
        return FetchedKeys(issuer, load, self._report, self._timeout_s, self._clock, self._jitter)

    def _keep(self, issuer: str, keys: FetchedKeys | _SharedSecret) -> None:
        if isinstance(keys, FetchedKeys):
            self._keepers[issuer] = asyncio.create_task(self._keep_fresh(keys))

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

    async def fetch(self) -> None:
        """There is nothing to fetch."""

    def fetching(self) -> list[asyncio.Task[None]]:
        return []
