"""When to fetch one issuer's key set, and what its answer changes. Where it comes from is not known here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, Literal

from sidecar.denials import IssuerUnavailable
from sidecar.edge.jwks.loaders import Load
from sidecar.model import KeySetState, VerificationKey
from sidecar.policy import keysets
from sidecar.policy.keysets import Keys, KeySetError

Status = Literal["ok", "stale", "unavailable"]
"""Fresh; kept beyond its lifetime for want of a better one; never loaded."""
Report = Callable[[str, str, str], None]
"""Told of an issuer what happened (``keys_changed``, ``keys_recovered``, ``keys_left_out``, ``keys_unavailable`` or
``keys_given_up``) and the details."""

_COOL_DOWN_S: Final = 10
"""Between two fetches that unknown key ids ask for."""
_REFRESH_AFTER: Final = 0.8
"""Share of a set's lifetime after which it is fetched again."""
_MAX_BACKOFF_DOUBLINGS: Final = 6
_MAX_BACKOFF_S: Final = 60.0
MAX_STALE_S: Final = 86_400.0
"""For so long beyond its lifetime a set stays in use while it can't be fetched: longer than outages last, and shorter
than somebody who blocks our way to the issuer should profit from a key that it has withdrawn."""
_MOST_NAMED: Final = 5
"""Of the keys that were left out; a set may hold thousands."""


class FetchedKeys:
    """One issuer's key set. What is good stays until something good replaces it, for a day beyond its lifetime."""

    def __init__(
        self,
        issuer: str,
        load: Load,
        report: Report,
        timeout_s: float,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self.generation = 0
        self.due_at = -math.inf
        self._issuer = issuer
        self._load = load
        self._report = report
        self._timeout_s = timeout_s
        self._clock = clock
        self._jitter = jitter
        self._keys: Keys = ()
        self._left_out: tuple[str, ...] = ()
        self._fetched_at = -math.inf
        self._fresh_until = -math.inf
        self._cool_until = -math.inf
        self._failures = 0
        self._fetches = self._failed_fetches = 0
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        if not keysets.is_known(self._keys, kid, algorithm):
            await self._fetch_for_unknown()
        found = keysets.find(self._keys, kid, algorithm)
        if found is None and (not self._keys or (self._failures and not keysets.is_known(self._keys, kid, algorithm))):
            # The key may be a new one that could not be fetched: that is not the token's fault.
            raise IssuerUnavailable(
                "issuer_unavailable",
                detail=f"the key set of {self._issuer} can't be fetched",
                retry_after_s=math.ceil(min(max(self.due_at - self._clock(), 1.0), _MAX_BACKOFF_S)),
            )
        return found

    def status(self) -> Status:
        if not self._keys:
            return "unavailable"
        return "ok" if self._clock() < self._fresh_until else "stale"

    def state(self) -> KeySetState:
        """Tell those who watch how it is doing."""
        now, was_fetched = self._clock(), self._fetches > 0
        return KeySetState(
            keys=len(self._keys),
            age_s=now - self._fetched_at if was_fetched else None,
            stale_s=max(0.0, now - self._fresh_until) if was_fetched else 0.0,
            fetches=self._fetches,
            failed_fetches=self._failed_fetches,
        )

    def fetching(self) -> list[asyncio.Task[None]]:
        return [] if self._fetching is None else [self._fetching]

    async def fetch(self) -> None:
        """Fetch the set, once for all who ask meanwhile; return when that is done, well or badly."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._forget_task)
        await asyncio.wait((self._fetching,))  # unlike awaiting it, this survives a caller that leaves

    async def _fetch_for_unknown(self) -> None:
        if self._fetching is None:
            if self._clock() < self._cool_until:
                return
            self._cool_until = self._clock() + _COOL_DOWN_S
        await self.fetch()

    def _forget_task(self, task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                loaded = await self._load()
        except TimeoutError:
            self._retry_later(f"no answer within {self._timeout_s:g} s")
        except KeySetError as error:
            self._retry_later(str(error))
        else:
            self._accept(*loaded)

    def _accept(self, keys: Keys, left_out: tuple[str, ...], lifetime_s: float) -> None:
        self._fetches += 1
        now = self._fetched_at = self._clock()
        self._fresh_until = now + lifetime_s
        self.due_at = now + lifetime_s * _REFRESH_AFTER * self._jitter()
        failures, self._failures = self._failures, 0
        if keys != self._keys:
            self._keys = keys
            self.generation += 1
            self._report(self._issuer, "keys_changed", f"{len(keys)} usable")
        elif failures:
            self._report(self._issuer, "keys_recovered", f"after {failures} failed fetches")
        if left_out != self._left_out:
            self._left_out = left_out
            self._report(self._issuer, "keys_left_out", _shortened(left_out) or "none any more")

    def _retry_later(self, why: str) -> None:
        doublings = min(self._failures, _MAX_BACKOFF_DOUBLINGS)
        self._failures += 1
        self._failed_fetches += 1
        self.due_at = self._clock() + min(2.0**doublings, _MAX_BACKOFF_S) * self._jitter()
        if self._keys and self._clock() > self._fresh_until + MAX_STALE_S:
            self._keys, self.generation = (), self.generation + 1
            self._report(self._issuer, "keys_given_up", f"those of {self._clock() - self._fetched_at:.0f} s ago")
        elif self._keys:
            why = f"{why}; keys of {self._clock() - self._fetched_at:.0f} s ago stay in use"
        self._report(self._issuer, "keys_unavailable", why)


def _shortened(left_out: tuple[str, ...]) -> str:
    more = len(left_out) - _MOST_NAMED
    return "; ".join((*left_out[:_MOST_NAMED], *((f"and {more} more",) if more > 0 else ())))
