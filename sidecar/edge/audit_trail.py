"""`ports.Auditor`: records wait in memory for a moment and are written together, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.denials import Overloaded
from sidecar.edge.audit_file import AuditFile
from sidecar.faults import place_of
from sidecar.model import IdentityKey
from sidecar.policy.audit import (
    CATALOGUE,
    DROPPED,
    MANAGEMENT,
    MOST_ARGUMENT_BYTES,
    REFUSAL,
    WRITE,
    Recorder,
    Scribe,
    moment,
)
from sidecar.policy.audit_allowance import Allowance

MAX_WAITING: Final = 10_000
"""Records that wait while they can't be written; refusals take no more than half."""
MAX_WAITING_BYTES: Final = 33_554_432
"""Arguments of all that waits, as text."""
_LINKS_BYTES: Final = 400
"""What a line has besides its members: links, time, kind and a digest, rounded up."""
_TELLS_EACH_S: Final = 1.0
_TOO_MUCH: Final = b'"[too much waited to be recorded]"'

Report = Callable[[str | None, int], None]
"""Hears why records can't be written, None once they can be again, and how many wait."""


@dataclass(frozen=True, slots=True)
class _Entry:
    record: Mapping[str, Any]
    arguments: bytes | None = field(default=None, repr=False)


class AuditTrail:
    """Writes what it is told to the file, at most `flush_s` later, and a signed record each `checkpoint_s`.

    While the file can't be written, records wait in order and are tried again each `retry_s`; then nothing is let
    through whose record would find no room.
    """

    def __init__(
        self,
        file: AuditFile,
        recorder: Recorder,
        registry: CollectorRegistry,
        report: Report,
        *,
        flush_s: float = 0.05,
        retry_s: float = 1.0,
        checkpoint_s: float = 60.0,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._file = file
        self._recorder = recorder
        self._report = report
        self._flush_s = flush_s
        self._retry_s = retry_s
        self._checkpoint_s = checkpoint_s
        self._max_waiting = max_waiting
        self._queue: list[_Entry] = []
        self._queue_bytes = 0
        self._batch_bytes = 0
        """Of what was taken from the queue and is being written."""
        self._ready: list[dict[str, Any]] = []
        """Hashed and not yet written; the thread's own."""
        self._ready_bytes = 0
        self._waiting = 0
        self._allowances = {is_known: Allowance() for is_known in (True, False)}
        self._omits = False
        self._tells_at = -math.inf
        """From when on, on the loop's clock, what was left out may be told again."""
        self._wake, self._closing = asyncio.Event(), asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._writing: asyncio.Task[None] | None = None
        self.is_failing = False
        self._counts = _Counts(registry)
        waiting = Gauge("sidecar_audit_waiting", "Audit records not yet written.", registry=registry)
        waiting.set_function(lambda: self._waiting)

    async def start(self) -> None:
        """Begin the chain of this process.

        Raises:
            OSError: the file can't be written.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._file.open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._writing = asyncio.create_task(self._write())

    def sign_with(self, key: IdentityKey) -> None:
        """Have another key sign from now on."""
        self._file.scribe = Scribe(key)

    async def aclose(self) -> None:
        """Write what waits, and end the chain. May be called twice."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self._closing.set()
            self._wake.set()
            await writing
            await self._flush(self._close)
        self._thread.shutdown(wait=False)

    def refusal(self, kind: str, members: Mapping[str, Any], *, arguments: Any, size: int, is_known: bool) -> None:
        """Record a refusal, unless there are too many of them: then it is counted."""
        allowance, caller = self._allowances[is_known], str(members.get("account" if is_known else "client"))
        kept = min(size, MOST_ARGUMENT_BYTES) if self._recorder.form == "full" else 0
        on_disk = _LINKS_BYTES + len(orjson.dumps(members)) + kept
        has_room = self._waiting < self._max_waiting // 2 and self._fits(size)
        if has_room and allowance.take(caller, on_disk, time.monotonic()):
            self._put(kind, members, None if arguments is None else self._recorder.render(arguments))
        else:
            self._omit(allowance, str(members["reason"]))

    def act(self, kind: str, members: Mapping[str, Any], *, arguments: Any = None) -> None:
        """Record what was let through or done; what was done although there was no room, up to as much again."""
        if self._waiting >= 2 * self._max_waiting:
            self._omit(self._allowances[True], str(members.get("act", kind)))
            return
        text = None if arguments is None else self._recorder.render(arguments)
        self._put(kind, members, text if text is None or self._fits(len(text)) else _TOO_MUCH)

    def require_room(self, size: int = 0) -> None:
        """Return if what is about to be done can be recorded.

        Raises:
            Overloaded: records can't be written, and as many wait as may.
        """
        if self._waiting >= self._max_waiting or not self._fits(size):
            raise Overloaded("audit_full", detail=f"{self._waiting} audit records wait to be written")

    def _fits(self, size: int) -> bool:
        return self._queue_bytes + self._batch_bytes + self._ready_bytes + size <= MAX_WAITING_BYTES

    def _omit(self, allowance: Allowance, reason: str) -> None:
        allowance.omit(reason)
        self._counts.dropped += 1
        if not self._omits:
            self._omits = True
            self._wake.set()

    def _put(self, kind: str, members: Mapping[str, Any], arguments: bytes | None = None) -> None:
        self._queue.append(_Entry({"time": moment(time.time()), "kind": kind, **members}, arguments))
        self._queue_bytes += 0 if arguments is None else len(arguments)
        self._waiting += 1
        self._wake.set()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        due_at = loop.time() + self._checkpoint_s
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(due_at, self._tells_at) if self._omits else due_at):
                    await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._retry_s if self.is_failing else self._flush_s):
                    await self._closing.wait()
            self._wake.clear()
            is_due = loop.time() >= due_at
            if await self._flush(self._checkpoint if is_due else self._append) and is_due:
                due_at = loop.time() + self._checkpoint_s

    async def _flush(self, add: Callable[[], None]) -> bool:
        """Have everything written that waits; tell whether it is."""
        loop = asyncio.get_running_loop()
        if self._omits and not self.is_failing and (loop.time() >= self._tells_at or self._closing.is_set()):
            self._tells_at = loop.time() + _TELLS_EACH_S
            self._tell_omitted()
        batch, self._queue = self._queue, []
        self._batch_bytes, self._queue_bytes = self._queue_bytes, 0
        try:
            written, problem = await loop.run_in_executor(self._thread, self._write_batch, batch, add)
        except Exception as fault:  # whatever it is, the audit has stopped, and that is told
            self._failed(str(fault) if isinstance(fault, OSError) else place_of(fault))
            return False
        finally:
            self._batch_bytes = 0
        self._waiting -= written.total()
        self._counts.records.update(written)
        if problem is not None:
            self._failed(problem)
        elif self.is_failing:
            self.is_failing = False
            self._report(None, self._waiting)
        return True

    def _failed(self, problem: str) -> None:
        self._counts.failures += 1
        self._wake.set()
        if not self.is_failing or self._closing.is_set():
            self._report(problem, self._waiting)
        self.is_failing = True

    def _tell_omitted(self) -> None:
        self._omits = False
        for is_known, allowance in self._allowances.items():
            reasons = allowance.told()
            if reasons:
                members = {"known_callers": is_known, "count": sum(reasons.values()), "reasons": reasons}
                self._put(DROPPED, members)

    def _write_batch(self, batch: list[_Entry], add: Callable[[], None]) -> tuple[Counter[str], str | None]:
        """Run in the thread: return how many records of each kind were written, and why they may not last."""
        for entry in batch:
            about = self._recorder.about(entry.arguments)
            self._ready.append({**entry.record, **about})
            if "arguments" in about:
                self._ready_bytes += min(len(entry.arguments or b""), MOST_ARGUMENT_BYTES)
        add()
        written = Counter(str(record["kind"]) for record in self._ready)
        self._ready.clear()
        self._ready_bytes = 0
        try:
            if add == self._checkpoint:
                self._file.sync()
        except OSError as problem:
            return written, str(problem)
        return written, None

    def _append(self) -> None:
        if self._ready:
            self._file.append(self._ready)

    def _checkpoint(self) -> None:
        self._file.append(self._ready, checkpoint=True)

    def _close(self) -> None:
        self._file.close(self._ready)


class _Counts(Collector):
    """What became of records, for Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.records = Counter(dict.fromkeys((REFUSAL, WRITE, MANAGEMENT, CATALOGUE, DROPPED), 0))
        self.failures = 0
        self.dropped = 0
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        records = Metric("sidecar_audit_records", "Audit records written.", "counter")
        for kind, count in self.records.items():
            records.add_sample("sidecar_audit_records_total", {"kind": kind}, float(count))
        yield records
        for name, text, count in (
            ("sidecar_audit_failures", "Attempts to write audit records that failed.", self.failures),
            (
                "sidecar_audit_dropped",
                "Refusals, and acts beyond all room, that were counted and not recorded one by one.",
                self.dropped,
            ),
        ):
            metric = Metric(name, text, "counter")
            metric.add_sample(f"{name}_total", {}, float(count))
            yield metric
