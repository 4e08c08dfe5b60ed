"""Where people sign in, as the issuer's metadata says; asked when somebody wants to know, and then kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.edge.jwks.loaders import Http
from sidecar.policy import issuer_metadata, sign_in
from sidecar.policy.keysets import KeySetError
from sidecar.policy.sign_in import Endpoints

Report = Callable[[str, str], None]
"""Told of an issuer why it can't be asked."""
_TIMEOUT_S: Final = 3.0
_COOL_DOWN_S: Final = 10.0
"""Between two attempts that failed: strangers can ask for the page."""


class SignIn:
    """The endpoints of one issuer. They are fetched once for all who ask meanwhile, and stay until better are known."""

    def __init__(
        self, issuer: str, *, report: Report, clock: Callable[[], float], timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._issuer = issuer
        self._report = report
        self._clock = clock
        self._timeout_s = timeout_s
        self._known: Endpoints | None = None
        self._due_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def endpoints(self) -> Endpoints | None:
        """Return them, or None while they can't be had."""
        if self._clock() >= self._due_at:
            if self._fetching is None:
                self._fetching = asyncio.create_task(self._fetch())
                self._fetching.add_done_callback(self._forget_task)
            await asyncio.wait((self._fetching,))  # unlike awaiting it, this survives a caller that leaves
        return self._known

    def _forget_task(self, task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        http = Http()
        http.open()
        try:
            async with asyncio.timeout(self._timeout_s):
                self._known, lifetime_s = await self._ask(http)
            self._due_at = self._clock() + lifetime_s
        except (KeySetError, TimeoutError) as error:
            self._due_at = self._clock() + _COOL_DOWN_S
            self._report(self._issuer, str(error) or f"no answer within {self._timeout_s:g} s")
        finally:
            await http.close()

    async def _ask(self, http: Http) -> tuple[Endpoints, float]:
        failures = []
        for url in issuer_metadata.urls(self._issuer):
            try:
                document, cache_control = await http.get(url)
                return sign_in.endpoints(document, self._issuer), issuer_metadata.lifetime_s(cache_control)
            except KeySetError as error:
                failures.append(str(error))
        raise KeySetError("; ".join(failures))
