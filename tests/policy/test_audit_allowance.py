"""Refusals are recorded so that no caller hides another's and none fills the disk."""

from __future__ import annotations

from sidecar.policy.audit_allowance import DAY_BYTES, OWN_BURST, SHARED_BURST, Allowance

HOUR_S, DAY_S = 3600, 86_400


def taken(allowance: Allowance, caller: str, times: int, now: float, size: int = 500) -> int:
    return sum(allowance.take(caller, size, now) for _ in range(times))


def test_so_many_refusals_of_a_caller_are_recorded_at_once_and_then_so_many_an_hour_and_those_that_all_share() -> None:
    allowance = Allowance()
    assert taken(allowance, "mallory", 5000, 100.0) == OWN_BURST + SHARED_BURST
    assert taken(allowance, "mallory", 5000, 110.0) == 10
    assert taken(allowance, "mallory", 5000, 100.0 + 2 * HOUR_S) == OWN_BURST + SHARED_BURST


def test_nobodys_refusals_hide_those_of_another() -> None:
    allowance = Allowance()
    for second in range(DAY_S):
        taken(allowance, "mallory", 3, float(second))
    assert taken(allowance, "bob", OWN_BURST, DAY_S) == OWN_BURST


def test_all_callers_together_take_so_many_bytes_and_as_many_again_in_a_day() -> None:
    allowance = Allowance()
    size = 10_000
    first = sum(taken(allowance, f"caller {number}", OWN_BURST, 0.0, size) for number in range(200))
    assert first == DAY_BYTES // size
    assert taken(allowance, "bob", 1, 0.0, size) == 0
    later = sum(taken(allowance, f"caller {number}", OWN_BURST, DAY_S, size) for number in range(200))
    assert later == DAY_BYTES // size


def test_a_caller_that_never_stops_leaves_most_of_the_day_to_others() -> None:
    allowance = Allowance()
    recorded = sum(taken(allowance, "mallory", 3, float(second)) for second in range(DAY_S))
    assert recorded < 100_000
    assert recorded * 500 < DAY_BYTES


def test_no_more_than_so_many_callers_are_remembered() -> None:
    allowance = Allowance()
    taken(allowance, "first", 1, 0.0, 0)
    for number in range(20_000):
        allowance.take(str(number), 0, 0.0)
    assert len(allowance._own) == 10_000


def test_what_was_left_out_is_told_once_by_reason() -> None:
    allowance = Allowance()
    for reason in ("key_unknown", "key_unknown", "token_expired"):
        allowance.omit(reason)
    assert allowance.told() == {"key_unknown": 2, "token_expired": 1}
    assert allowance.told() == {}
