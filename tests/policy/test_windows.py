from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import Limit
from sidecar.policy.windows import US_PER_S, SpendLog, peek, spend

NOW = 1_790_000_000 * US_PER_S
WINDOW = 10 * US_PER_S


def limit(requests: int, window_s: int = 10) -> Limit:
    return Limit("l", requests, window_s)


def admits(asked: Limit, log: SpendLog, now_us: int) -> bool:
    return spend([(asked, log)], now_us)[0].retry_s == 0


def slot_of(asked: Limit) -> int:
    return 1 if asked.requests <= 128 else asked.window_s * US_PER_S // 100


def test_two_hits_exactly_one_window_apart_are_not_in_one_window() -> None:
    log = SpendLog()
    assert admits(limit(1), log, NOW)
    assert not admits(limit(1), log, NOW + WINDOW - 1)
    assert admits(limit(1), log, NOW + WINDOW)


def test_a_quota_tells_what_is_left_and_when_the_next_unit_returns() -> None:
    log = SpendLog()
    assert (peek(limit(2), log, NOW).remaining, peek(limit(2), log, NOW).reset_s) == (2, 0.0)
    first = spend([(limit(2), log)], NOW)[0]
    assert (first.remaining, first.reset_s, first.retry_s) == (1, 10.0, 0.0)
    second = spend([(limit(2), log)], NOW + 3 * US_PER_S)[0]
    assert (second.remaining, second.reset_s, second.retry_s) == (0, 7.0, 0.0)
    third = spend([(limit(2), log)], NOW + 4 * US_PER_S)[0]
    assert (third.remaining, third.reset_s, third.retry_s) == (0, 6.0, 6.0)


def test_one_refusal_spends_nothing_of_the_other_limits() -> None:
    wide, narrow = SpendLog(), SpendLog()
    spend([(limit(5), wide), (limit(1), narrow)], NOW)
    quotas = spend([(limit(5), wide), (limit(1), narrow)], NOW)
    assert [(quota.remaining, quota.retry_s) for quota in quotas] == [(4, 0.0), (0, 10.0)]
    assert wide.spent == 1


def test_a_lowered_limit_waits_for_more_than_one_unit() -> None:
    log = SpendLog()
    for second in range(5):
        spend([(limit(5), log)], NOW + second * US_PER_S)
    refused = spend([(limit(2), log)], NOW + 5 * US_PER_S)[0]
    assert (refused.remaining, refused.reset_s, refused.retry_s) == (0, 5.0, 8.0)
    assert not admits(limit(2), log, NOW + 13 * US_PER_S - 1)
    assert admits(limit(2), log, NOW + 13 * US_PER_S)


def test_a_limit_of_nothing_admits_nothing() -> None:
    quota = spend([(limit(0), SpendLog())], NOW)[0]
    assert (quota.remaining, quota.reset_s, quota.retry_s) == (0, 0.0, 10.0)


@pytest.mark.parametrize(("before", "after"), [(60, 6000), (6000, 60), (200, 6000)])
def test_a_limit_configured_anew_forgets_nothing_early(before: int, after: int) -> None:
    log = SpendLog()
    for i in range(50):
        spend([(limit(before), log)], NOW + i * 1000)
    assert peek(limit(after), log, NOW + 50_000).remaining == after - 50
    assert peek(limit(after), log, NOW + WINDOW - 1).remaining == after - 50
    assert peek(limit(after), log, NOW + WINDOW + 300_000).remaining == after


@pytest.mark.parametrize("requests", [1, 128, 129, 6000])
def test_the_log_stays_small_whatever_the_traffic(requests: int) -> None:
    log = SpendLog()
    for i in range(20_000):
        spend([(limit(requests), log)], NOW + i * 1_100)
        assert len(log.slots) <= min(requests, 128)


@pytest.mark.parametrize("step_s", [1, 9, 100, 86_400])
def test_a_clock_set_back_neither_admits_more_nor_wedges(step_s: int) -> None:
    log, asked = SpendLog(), limit(3)
    for i in range(3):
        assert admits(asked, log, NOW + i)
    back = NOW - step_s * US_PER_S
    assert not admits(asked, log, back)
    assert not admits(asked, log, back + WINDOW - step_s * US_PER_S - 1)
    assert admits(asked, log, back + WINDOW)


@given(
    requests=st.sampled_from([1, 2, 5, 128, 129, 150]),
    steps=st.lists(st.one_of(st.integers(0, 300_000), st.integers(0, 3 * WINDOW)), max_size=400),
)
def test_no_true_window_ever_holds_more_and_nothing_is_refused_without_cause(requests: int, steps: list[int]) -> None:
    log, asked, admitted = SpendLog(), limit(requests), list[int]()
    for now in itertools.accumulate(steps, initial=NOW):
        late = slot_of(asked) - 1
        if admits(asked, log, now):
            admitted.append(now)
            assert sum([hit > now - WINDOW for hit in admitted]) <= requests
        else:
            assert sum([hit > now - WINDOW - late for hit in admitted]) >= requests


@given(
    requests=st.sampled_from([1, 2, 5, 129]),
    steps=st.lists(st.tuples(st.integers(0, WINDOW), st.sampled_from([0, 0, 0, 1, 5_000_000, 3600 * US_PER_S]))),
)
def test_however_often_the_clock_is_set_back_no_true_window_holds_more(
    requests: int, steps: list[tuple[int, int]]
) -> None:
    log, asked, admitted = SpendLog(), limit(requests), list[int]()
    true, offset = NOW, 0
    for passed, set_back in steps:
        true, offset = true + passed, offset - set_back
        if admits(asked, log, true + offset):
            admitted.append(true)
            assert sum([hit > true - WINDOW for hit in admitted]) <= requests
    assert admits(asked, log, true + offset + WINDOW + slot_of(asked))


@given(
    requests=st.sampled_from([1, 3, 129]),
    steps=st.lists(st.integers(0, 4 * US_PER_S), max_size=200),
    lowered=st.integers(1, 129),
)
def test_a_retry_is_admitted_when_announced_and_not_before(requests: int, steps: list[int], lowered: int) -> None:
    log, now = SpendLog(), NOW
    for now in itertools.accumulate(steps, initial=NOW):
        spend([(limit(requests), log)], now)
    asked = limit(min(requests, lowered))
    retry_us = round(spend([(asked, log)], now)[0].retry_s * US_PER_S)
    if retry_us:
        assert peek(asked, log, now + retry_us - 1).remaining == 0
        assert admits(asked, log, now + retry_us)
