"""Tells a chat tool, or whatever listens at the operator's URL, of each call that waits for an approval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp

from sidecar.policy import webhooks
from sidecar.records import Confirmation

MAX_WAITING: Final = 1000
"""Deliveries under way; beyond that a call is not told of. It waits all the same."""
AT_ONCE: Final = 8
ATTEMPT_S: Final = 5.0
CLOSING_S: Final = 2.0

Report = Callable[[str, str, str | None], None]
"""Hears of an approval's id what became of its delivery: *delivered*, *failed* or *dropped*, or *retried* when the
first attempt was in vain and more are made; and of one that did not come through the last problem."""


class Webhook:
    """Delivers in the background, and holds nobody up."""

    def __init__(self, url: str, secret: bytes, *, public_url: str, clock: Callable[[], float], report: Report) -> None:
        self._url = url
        self._secret = secret
        self._public_url = public_url
        self._clock = clock
        self._report = report
        self._deliveries: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    def announce(self, approval: Confirmation) -> None:
        """Tell of a call that has begun to wait."""
        if len(self._deliveries) >= MAX_WAITING:
            self._report(approval.id, "dropped", None)
            return
        delivery = asyncio.create_task(self._deliver(approval), name=approval.id)
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    async def finish(self) -> None:
        """Return when every delivery has come through or was given up."""
        while self._deliveries:
            await asyncio.wait(self._deliveries)

    async def aclose(self) -> None:
        """Let those that are being sent come through for a moment, and give up the others."""
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=CLOSING_S)
        for delivery in (left := tuple(self._deliveries)):
            delivery.cancel()
            self._report(delivery.get_name(), "dropped", "the sidecar stopped")
        await asyncio.gather(*left, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _deliver(self, approval: Confirmation) -> None:
        body = webhooks.message(approval, self._public_url, self._clock())
        attempts = 0
        while True:
            async with self._places:
                verdict, problem = await self._attempt(approval.id, body)
            attempts += 1
            if verdict == "delivered":
                self._report(approval.id, "delivered", None)
                return
            pause_s = webhooks.next_attempt(attempts, self._clock(), approval.expires_at)
            if verdict == "refused" or pause_s is None:
                self._report(approval.id, "failed", problem)
                return
            if attempts == 1:
                self._report(approval.id, "retried", problem)
            await asyncio.sleep(pause_s)

    async def _attempt(self, message_id: str, body: bytes) -> tuple[webhooks.Verdict, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        headers = webhooks.headers(self._secret, message_id, body, self._clock())
        try:
            async with (
                asyncio.timeout(ATTEMPT_S),
                self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return webhooks.verdict(response.status), f"HTTP {response.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return "again", type(error).__name__
