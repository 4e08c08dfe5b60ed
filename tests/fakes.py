"""Hand-written stand-ins behind ports, for what the real thing can't be made to do on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from sidecar.denials import StoreUnavailable
from sidecar.model import Admission, Headers, Verdict


class Clock:
    """Time that passes when told to."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


class CannedAnswer:
    """An upstream's answer that is all here."""

    def __init__(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self.closed = False

    def complete(self) -> bytes | None:
        return self._body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def pieces(self, pause_s: float) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self, limit: int, hold: Callable[[int], None] | None = None) -> bytes:
        return self._body

    def close(self) -> None:
        self.closed = True


class ScriptedUpstream:
    """Answers each request by a function of its method and message, and remembers them all."""

    def __init__(self, answer: Callable[[str, dict[str, Any], dict[str, str]], CannedAnswer]) -> None:
        self._answer = answer
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answers: list[CannedAnswer] = []

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes | None,
        *,
        account: str = "",
        idle_timeout_s: float | None = None,
    ) -> CannedAnswer:
        message = orjson.loads(body) if body else {}
        lines = {name.decode().lower(): value.decode() for name, value in headers}
        self.requests.append((method, message, lines))
        answer = self._answer(method, message, lines)
        self.answers.append(answer)
        return answer

    async def reachable(self) -> bool:
        return True


class SwitchableAdmissions:
    """An admission store that admits everything, or is away."""

    def __init__(self) -> None:
        self.up = True
        self.verdict = Verdict("good", 0.0)
        self.admissions: list[Admission] = []
        self.refusals: list[tuple[str, str]] = []

    async def admit(self, admission: Admission) -> Verdict:
        self._require_up()
        self.admissions.append(admission)
        return self.verdict

    async def count_refusal(self, account: str, key_id: str) -> None:
        self._require_up()
        self.refusals.append((account, key_id))

    def _require_up(self) -> None:
        if not self.up:
            raise StoreUnavailable("store_unavailable")


class Ticks:
    """A sleep that ends when told to, and knows for how long it was asked to last."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self._go = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.asked.put_nowait(seconds)
        await self._go.acquire()

    def end(self) -> None:
        self._go.release()
