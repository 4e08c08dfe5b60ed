"""What becomes of requests while the store is away."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.denials import StoreUnavailable
from sidecar.edge.embedded import MemoryLimits
from sidecar.model import Admission, Limit, Verdict
from sidecar.offline import ResilientAdmissions
from tests.fakes import Clock, SwitchableAdmissions

ACCOUNT = Limit("account", 4, 60)
BURST = Limit("burst", 2, 60, per="credential")


def token(account: str = "a", credential: str = "c", limits: tuple[Limit, ...] = (ACCOUNT,)) -> Admission:
    return Admission(account, credential, 0.0, limits)


def key(key_id: str = "key_1") -> Admission:
    return Admission("a", key_id, 0.0, (ACCOUNT,), key_id=key_id, key_version=1)


class Bed:
    def __init__(self, on_failure: Any = "local", share: float = 1.0, *, admits_by_writing: bool = True) -> None:
        self.clock, self.monotonic, self.store = Clock(), Clock(7.0), SwitchableAdmissions()
        self.reports: list[bool] = []
        self.admissions = ResilientAdmissions(
            self.store,
            MemoryLimits(self.clock),
            on_failure=on_failure,
            local_share=share,
            offline_grace_s=60,
            clock=self.clock,
            monotonic=self.monotonic,
            admits_by_writing=admits_by_writing,
            report=lambda problem: self.reports.append(problem is None),
        )


async def test_while_the_store_answers_its_word_counts() -> None:
    bed = Bed()
    bed.store.verdict = Verdict("revoked", 7.0)

    assert await bed.admissions.admit(token()) is bed.store.verdict
    assert bed.reports == [True]


async def test_a_verdict_that_took_no_write_says_only_that_its_own_failures_are_over() -> None:
    """Whoever found out by writing that the store takes none is not contradicted."""
    bed = Bed("allow", admits_by_writing=False)
    await bed.admissions.admit(token())
    assert bed.reports == []
    for bed.store.up in (False, False, True, True):
        await bed.admissions.admit(token())
    assert bed.reports == [False, False, True]


async def test_deny_refuses_with_a_fault_of_ours() -> None:
    bed = Bed("deny")
    bed.store.up = False

    with pytest.raises(StoreUnavailable) as refused:
        await bed.admissions.admit(token())

    assert refused.value.retry_after_s is not None
    assert bed.reports == [False]


async def test_allow_admits_without_limits() -> None:
    bed = Bed("allow")
    bed.store.up = False

    verdict = await bed.admissions.admit(token())

    assert verdict.admitted
    assert verdict.quotas == ()


async def test_local_keeps_a_share_of_each_limit_in_this_process() -> None:
    bed = Bed(share=0.5)
    bed.store.up = False

    assert [(await bed.admissions.admit(token())).admitted for _ in range(3)] == [True, True, False]
    assert (await bed.admissions.admit(token("b"))).admitted


async def test_local_limits_per_credential_are_counted_apart() -> None:
    bed = Bed(share=0.5)
    bed.store.up = False

    assert (await bed.admissions.admit(token(credential="c", limits=(BURST,)))).admitted
    assert not (await bed.admissions.admit(token(credential="c", limits=(BURST,)))).admitted
    assert (await bed.admissions.admit(token(credential="d", limits=(BURST,)))).admitted


@pytest.mark.parametrize("on_failure", ["local", "allow"])
async def test_a_key_passes_only_while_the_store_vouched_for_it_a_moment_ago(on_failure: str) -> None:
    bed = Bed(on_failure)
    await bed.admissions.admit(key())
    bed.store.up = False

    assert (await bed.admissions.admit(key())).admitted
    with pytest.raises(StoreUnavailable):
        await bed.admissions.admit(key("key_2"))
    bed.monotonic.pass_(60)
    with pytest.raises(StoreUnavailable):
        await bed.admissions.admit(key())


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_setting_the_clock_makes_the_grace_neither_longer_nor_shorter(step: float) -> None:
    bed = Bed()
    await bed.admissions.admit(key())
    bed.store.up = False
    bed.clock.pass_(step)

    bed.monotonic.pass_(59)
    assert (await bed.admissions.admit(key())).now == bed.clock()
    bed.monotonic.pass_(1)
    with pytest.raises(StoreUnavailable):
        await bed.admissions.admit(key())


async def test_a_key_that_the_store_no_longer_vouches_for_has_no_grace() -> None:
    bed = Bed()
    await bed.admissions.admit(key())
    bed.store.verdict = Verdict("key_changed", 0.0)
    await bed.admissions.admit(key())
    bed.store.up = False

    with pytest.raises(StoreUnavailable):
        await bed.admissions.admit(key())


async def test_refusals_are_counted_while_somebody_counts() -> None:
    bed = Bed()
    await bed.admissions.count_refusal("a", "key_1")
    bed.store.up = False
    await bed.admissions.count_refusal("a", "key_1")

    assert bed.store.refusals == [("a", "key_1")]


async def test_a_shorter_grace_holds_for_what_was_vouched_for_before() -> None:
    bed = Bed()
    await bed.admissions.admit(key())
    bed.store.up = False
    await bed.admissions.admit(key())
    bed.admissions.offline_grace_s = 0
    with pytest.raises(StoreUnavailable):
        await bed.admissions.admit(key())
