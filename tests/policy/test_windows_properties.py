"""Several limits at once against a plain list of what was admitted."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import Limit
from sidecar.policy.windows import EXACT_UP_TO, US_PER_S, SpendLog, peek, spend

NOW = 1_790_000_000 * US_PER_S


@dataclass
class Counted:
    """A limit, its log, and in the model the moments at which a unit of it was spent."""

    limit: Limit
    log: SpendLog = field(default_factory=SpendLog)
    spent: list[int] = field(default_factory=list)

    @property
    def window_us(self) -> int:
        return self.limit.window_s * US_PER_S

    def counting(self, now: int) -> list[int]:
        """Return what still counts: a unit comes back a whole window after it was spent."""
        return [at for at in self.spent if at + self.window_us > now]

    def state(self) -> tuple[list[int], list[int], int]:
        return list(self.log.slots), list(self.log.counts), self.log.spent


sizes = st.sampled_from([0, 1, 2, 3, 7])
windows_s = st.sampled_from([1, 2, 5, 60])
limits = st.lists(st.builds(Limit, st.just("l"), sizes, windows_s), min_size=1, max_size=4)
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 999_999, US_PER_S, US_PER_S + 1, 5 * US_PER_S]) | st.integers(0, 3 * US_PER_S),
        st.integers(1, 15),  # which of the limits this request spends from, as bits
    ),
    max_size=60,
)


def asked_by(counted: list[Counted], bits: int) -> list[Counted]:
    return [one for place, one in enumerate(counted) if bits >> place & 1]


@given(limits, steps)
def test_exact_limits_admit_together_exactly_what_the_list_of_the_admitted_allows(
    asked: list[Limit], steps: list[tuple[int, int]]
) -> None:
    counted, now = [Counted(limit) for limit in asked], NOW
    for step, bits in steps:
        now += step
        wanted = asked_by(counted, bits)
        admitted = all(len(one.counting(now)) < one.limit.requests for one in wanted)

        quotas = spend([(one.limit, one.log) for one in wanted], now)

        assert all(quota.retry_s == 0 for quota in quotas) == admitted
        for one in wanted if admitted else ():
            one.spent.append(now)
        for one, quota in zip(wanted, quotas, strict=True):
            counting = one.counting(now)
            assert len(counting) <= one.limit.requests
            assert quota.remaining == one.limit.requests - len(counting)
            assert quota.reset_s == ((counting[0] + one.window_us - now) / US_PER_S if counting else 0.0)


@given(limits, steps)
def test_a_refusal_and_a_look_spend_nothing_of_any_limit(asked: list[Limit], steps: list[tuple[int, int]]) -> None:
    counted, now = [Counted(limit) for limit in asked], NOW
    for step, bits in steps:
        now += step
        for one in counted:
            peek(one.limit, one.log, now)  # settles the log at this moment, so that only spending changes it
        before = [one.state() for one in counted]
        quotas = spend([(one.limit, one.log) for one in asked_by(counted, bits)], now)

        if any(quota.retry_s > 0 for quota in quotas):
            assert [one.state() for one in counted] == before
        for one in counted:
            peek(one.limit, one.log, now)
        assert sum(one.log.spent for one in counted) <= sum(spent for *_, spent in before) + len(quotas)


@given(
    st.tuples(st.integers(1, 5), st.integers(EXACT_UP_TO - 2, EXACT_UP_TO + 40)),
    st.lists(st.tuples(st.integers(0, 2 * US_PER_S), st.integers(1, 60)), max_size=30),
)
def test_no_window_of_any_limit_holds_more_whether_its_log_is_exact_or_in_slots(
    requests: tuple[int, int], steps: list[tuple[int, int]]
) -> None:
    few, many = Counted(Limit("few", requests[0], 1)), Counted(Limit("many", requests[1], 10))
    now = NOW
    for step, times in steps:
        now += step
        for turn in range(times):
            wanted = [few, many] if turn % 7 == 0 else [many]
            if all(quota.retry_s == 0 for quota in spend([(one.limit, one.log) for one in wanted], now)):
                for one in wanted:
                    one.spent.append(now)
        for one in (few, many):
            assert len(one.counting(now)) <= one.limit.requests


@given(limits, steps, st.integers(0, 70 * US_PER_S))
def test_what_is_announced_comes_true_if_nobody_else_spends(
    asked: list[Limit], steps: list[tuple[int, int]], wait: int
) -> None:
    counted, now = [Counted(limit) for limit in asked if limit.requests], NOW
    for step, _ in steps:
        now += step
        spend([(one.limit, one.log) for one in counted], now)
    quotas = spend([(one.limit, one.log) for one in counted], now)
    until = max((round(quota.retry_s * US_PER_S) for quota in quotas), default=0)

    again = spend([(one.limit, one.log) for one in counted], now + wait)

    if until:
        assert all(quota.retry_s == 0 for quota in again) == (wait >= until)
