"""The audit of a process that serves: in order, bounded, signed, and loud when it can't be written."""

from __future__ import annotations

import asyncio
import json
import resource
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sidecar.denials import Overloaded
from sidecar.edge import audit_trail
from sidecar.edge.audit_file import AuditFile, lines_of
from sidecar.edge.audit_trail import AuditTrail
from sidecar.model import IdentityKey
from sidecar.policy.audit import Recorder, Scribe
from sidecar.policy.audit_allowance import OWN_BURST, SHARED_BURST
from tests.edge.test_audit_file import KEY, kinds, opened, proof_of

BURST = OWN_BURST + SHARED_BURST
WHO = {"reason": "key_unknown", "client": "192.0.2.1"}


class Kept:
    """A trail, what it wrote and what it reported."""

    def __init__(self, path: Path, **rules: Any) -> None:
        self.path = path
        self.registry = CollectorRegistry()
        self.reports: list[tuple[str | None, int]] = []
        file = AuditFile(str(path), Scribe(KEY), about={"process": "test"}, chain_id=lambda: "a")
        self.trail = AuditTrail(
            file,
            Recorder("full", ()),
            self.registry,
            lambda problem, waiting: self.reports.append((problem, waiting)),
            **{"flush_s": 0.001, "retry_s": 0.01, **rules},
        )

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in lines_of(str(self.path))]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"sidecar_audit_{name}", labels)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - a file can only be looked at
                await asyncio.sleep(0.002)


Keep = Callable[..., Awaitable[Kept]]


@pytest.fixture
async def keep(tmp_path: Path) -> AsyncIterator[Keep]:
    async with AsyncExitStack() as stack:

        async def keep(**rules: Any) -> Kept:
            kept = Kept(tmp_path / "audit.log", **rules)
            await kept.trail.start()
            stack.push_async_callback(kept.trail.aclose)
            return kept

        yield keep


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Let no file of this process grow beyond what this one is now."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refuse(kept: Kept, *, is_known: bool = False, size: int = 0) -> None:
    kept.trail.refusal("refusal", WHO, arguments=None, size=size, is_known=is_known)


async def test_what_it_is_told_is_written_in_order_and_soon(keep: Keep) -> None:
    kept = await keep()
    for number in range(100):
        kept.trail.act("write", {"number": number}, arguments={"n": number})
    await kept.until(lambda: len(kept.records()) == 101)
    await kept.until(lambda: kept.metric("records_total", kind="write") == 100)
    assert [one["number"] for one in kept.records()[1:]] == [*range(100)]
    assert kept.records()[7]["arguments"] == {"n": 6}
    assert kept.metric("waiting") == 0


async def test_its_end_is_written_with_all_that_still_waits(keep: Keep, tmp_path: Path) -> None:
    kept = await keep(flush_s=60.0)
    kept.trail.act("management", {"act": "create_key"})
    refuse(kept)
    await kept.trail.aclose()
    assert kinds(kept.path) == ["start", "management", "refusal", "end"]
    assert (proof_of(kept.path).problems, proof_of(kept.path).notes) == ([], [])


async def test_a_signature_is_due_also_when_nothing_happens(keep: Keep) -> None:
    kept = await keep(checkpoint_s=0.01)
    await kept.until(lambda: kinds(kept.path).count("checkpoint") >= 3)
    assert [found.what for found in proof_of(kept.path).notes] == ["open"]


async def test_another_key_can_sign_from_now_on(keep: Keep) -> None:
    kept = await keep()
    kept.trail.sign_with(IdentityKey("k2", "hmac-sha256", bytes(32)))
    await kept.trail.aclose()
    assert [one["keyid"] for one in kept.records()] == ["k1", "k2"]


async def test_of_a_storm_of_refusals_the_first_are_recorded_and_the_others_counted(keep: Keep) -> None:
    kept = await keep()
    for _ in range(BURST + 500):
        refuse(kept)
    refuse(kept, is_known=True)
    await kept.until(lambda: "dropped" in kinds(kept.path))
    (dropped,) = (one for one in kept.records() if one["kind"] == "dropped")
    recorded = sum(one["kind"] == "refusal" for one in kept.records())
    assert dropped["reasons"] == {"key_unknown": dropped["count"]}
    assert (dropped["known_callers"], recorded + dropped["count"]) == (False, BURST + 501)
    assert dropped["count"] == kept.metric("dropped_total")
    assert dropped["count"] >= 400


async def test_who_is_refused_all_the_time_hides_nobody_elses_refusals(keep: Keep) -> None:
    kept = await keep()
    for is_known, name in ((True, "account"), (False, "client")):
        for caller in ["mallory"] * (BURST + 500) + ["bob"] * 3:
            members = {name: caller, "reason": "insufficient_scope"}
            kept.trail.refusal("refusal", members, arguments=None, size=0, is_known=is_known)
    await kept.trail.aclose()
    assert [one.get("account") for one in kept.records()].count("bob") == 3
    assert [one.get("client") for one in kept.records()].count("bob") == 3


async def test_how_many_were_left_out_is_told_once_a_second_and_in_the_end(keep: Keep) -> None:
    kept = await keep()
    for burst in range(1, 6):
        for _ in range(BURST):
            refuse(kept)
        asked = burst * BURST
        await kept.until(lambda asked=asked: _refused(kept) + (kept.metric("dropped_total") or 0) == asked)  # type: ignore[misc]
    await kept.trail.aclose()
    told = [one["count"] for one in kept.records() if one["kind"] == "dropped"]
    assert 1 <= len(told) <= 3
    assert sum(told) == kept.metric("dropped_total")


def _refused(kept: Kept) -> int:
    return sum(one["kind"] == "refusal" for one in kept.records())


async def test_while_nothing_can_be_written_records_wait_and_come_in_order_when_it_can(keep: Keep) -> None:
    kept = await keep()
    with full_disk(kept.path):
        for number in range(5):
            kept.trail.act("write", {"number": number})
        await kept.until(lambda: (kept.metric("failures_total") or 0) >= 3)
        assert kept.trail.is_failing
        assert kept.metric("waiting") == 5
    await kept.until(lambda: not kept.trail.is_failing)
    assert [one["number"] for one in kept.records()[1:]] == [*range(5)]
    (problem, _), recovered = kept.reports
    assert problem is not None
    assert "File too large" in problem
    assert recovered == (None, 0)


async def test_nothing_is_let_through_whose_record_finds_no_room_and_refusals_take_but_half_of_it(keep: Keep) -> None:
    kept = await keep(max_waiting=6)
    with full_disk(kept.path):
        for _ in range(5):
            refuse(kept)
        assert kept.metric("waiting") == 3
        for _ in range(3):
            kept.trail.require_room()
            kept.trail.act("write", {})
        with pytest.raises(Overloaded, match="audit_full"):
            kept.trail.require_room()
    await kept.until(lambda: kept.metric("waiting") == 0)
    kept.trail.require_room()
    assert kinds(kept.path).count("write") == 3


async def test_arguments_wait_up_to_a_number_of_bytes_as_text(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_trail, "MAX_WAITING_BYTES", 1000)
    kept = await keep()
    kept.trail.act("write", {"number": 1}, arguments="x" * 898)
    kept.trail.require_room(100)
    with pytest.raises(Overloaded):
        kept.trail.require_room(101)
    refuse(kept, size=101)
    kept.trail.act("write", {"number": 2}, arguments="x" * 99)
    await kept.until(lambda: kept.metric("waiting") == 0)
    kept.trail.require_room(1000)
    assert [one["arguments"] for one in kept.records()[1:3]] == ["x" * 898, "[too much waited to be recorded]"]
    assert kept.metric("dropped_total") == 1


async def test_what_waits_for_a_full_disk_counts_too(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_trail, "MAX_WAITING_BYTES", 1000)
    kept = await keep()
    with full_disk(kept.path):
        kept.trail.act("write", {}, arguments="x" * 898)
        await kept.until(lambda: (kept.metric("failures_total") or 0) >= 2)
        with pytest.raises(Overloaded):
            kept.trail.require_room(101)
    await kept.until(lambda: kept.metric("waiting") == 0)
    kept.trail.require_room(1000)


async def test_parsed_arguments_are_not_kept_until_they_are_hashed(keep: Keep) -> None:
    """Parsed, they take up to thirty times the memory of their text."""

    class Counted(dict[str, Any]):
        pass

    kept = await keep(flush_s=60.0)
    arguments = Counted(a=["ab"] * 1000)
    held = weakref.ref(arguments)
    kept.trail.act("write", {}, arguments=arguments)
    kept.trail.refusal("refusal", WHO, arguments=arguments, size=10, is_known=True)
    del arguments
    assert held() is None
    await kept.trail.aclose()
    assert [len(one["arguments"]["a"]) for one in kept.records()[1:3]] == [1000, 1000]


async def test_what_is_done_while_there_is_no_room_waits_up_to_as_much_again_and_is_then_counted(keep: Keep) -> None:
    kept = await keep(max_waiting=3)
    with full_disk(kept.path):
        for _ in range(10):
            kept.trail.act("management", {"act": "revoke_key"})
        assert kept.metric("waiting") == 6
    await kept.until(lambda: "dropped" in kinds(kept.path))
    assert kinds(kept.path).count("management") == 6
    (dropped,) = (one for one in kept.records() if one["kind"] == "dropped")
    assert dropped["reasons"] == {"revoke_key": 4}


async def test_a_disk_that_lost_what_was_written_is_told(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: AuditFile) -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(AuditFile, "sync", fail)
    kept = await keep(checkpoint_s=0.01)
    kept.trail.act("write", {})
    await kept.until(lambda: kept.trail.is_failing)
    monkeypatch.undo()
    await kept.until(lambda: not kept.trail.is_failing)
    assert kinds(kept.path).count("write") == 1
    assert kept.reports[0][0] == "Input/output error"


async def test_what_can_not_be_written_at_the_end_is_told_as_lost(keep: Keep) -> None:
    kept = await keep()
    with full_disk(kept.path):
        kept.trail.act("write", {})
        await kept.trail.aclose()
    problem, waiting = kept.reports[-1]
    assert problem is not None
    assert waiting == 1
    assert proof_of(kept.path).problems == []


async def test_a_file_that_can_not_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "nowhere" / "audit.log")
    with pytest.raises(FileNotFoundError):
        await kept.trail.start()
    await kept.trail.aclose()


async def test_others_that_write_to_the_file_are_no_hindrance(keep: Keep) -> None:
    kept = await keep()
    opened(kept.path).close()
    kept.trail.act("write", {})
    await kept.trail.aclose()
    proof = proof_of(kept.path)
    assert (proof.problems, proof.notes) == ([], [])
