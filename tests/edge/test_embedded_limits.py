"""Limits in memory: that they stay bounded. What they count is in the contract suite."""

from __future__ import annotations

from sidecar.edge.embedded import MemoryLimits
from sidecar.model import Limit
from tests.stores import FakeClock

LIMIT = Limit("account", 2, 60)


def test_holders_are_counted_apart() -> None:
    limits = MemoryLimits(FakeClock())
    assert [limits.spend([(LIMIT, holder)])[0].remaining for holder in ("a", "a", "a", ("a", "b"))] == [1, 0, 0, 1]


def test_several_new_logs_of_one_request_are_all_kept() -> None:
    limits = MemoryLimits(FakeClock())
    asked = [(Limit(f"limit{i}", 1, 60), "a") for i in range(5)]
    assert all(quota.retry_s == 0 for quota in limits.spend(asked))
    assert all(quota.retry_s == 60 for quota in limits.spend(asked))


def test_looking_and_refusing_leave_nothing_behind() -> None:
    limits = MemoryLimits(FakeClock())
    assert limits.peek(LIMIT, "a").remaining == 2
    limits.spend([(LIMIT, "a"), (Limit("full", 0, 60), "a")])
    assert len(limits) == 0


def test_logs_that_no_longer_count_are_cleared_as_new_ones_come() -> None:
    clock = FakeClock()
    limits = MemoryLimits(clock)
    for i in range(10_000):
        limits.spend([(LIMIT, i)])
        clock.advance(1)
        assert len(limits) <= 130


def test_logs_of_long_windows_do_not_keep_those_of_short_ones() -> None:
    clock = FakeClock()
    limits = MemoryLimits(clock)
    for i in range(2_000):
        limits.spend([(Limit("day", 9, 86_400), i % 50), (Limit("second", 9, 1), i)])
        clock.advance(1)
    assert len(limits) <= 50 + 110


def test_a_clock_set_back_keeps_no_log_for_ever() -> None:
    clock = FakeClock()
    limits = MemoryLimits(clock)
    for i in range(100):
        limits.spend([(LIMIT, i)])
    clock.advance(-86_400)
    for i in range(500):
        limits.spend([(LIMIT, ("later", i))])
        clock.advance(1)
    assert len(limits) <= 160


def test_there_are_never_more_logs_than_allowed() -> None:
    limits = MemoryLimits(FakeClock(), max_logs=100)
    for i in range(1_000):
        limits.spend([(LIMIT, i)])
        assert len(limits) <= 100
    assert limits.peek(LIMIT, 999).remaining == 1
