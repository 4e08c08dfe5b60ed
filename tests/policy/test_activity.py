"""What of a key's use is unusual, in figures that can be done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.policy.activity import (
    KEEP_S,
    Thresholds,
    describe,
    described,
    is_due,
    is_news,
    of_account,
    of_ended,
    of_key,
)
from sidecar.records import KeyActivity, KeyRecord, StoredKey, Unusual, Usage, UsageCount

DAY = 86_400
HOUR = 3_600
NOW = 1_790_000_000 - 1_790_000_000 % DAY + 12 * HOUR
MADE = NOW - 200 * DAY
THRESHOLDS = Thresholds(unseen_days=60, rise=10, min_requests=500, min_refused=50)
KEY = KeyRecord(
    id="key_old",
    account="acme",
    name="n",
    prefix="mcp_",
    scopes=("mcp:read",),
    secret_hash="h",
    created_at=MADE,
    created_by="cli",
    origin="cli",
    lifetime_s=900 * DAY,
    expires_at=MADE + 900 * DAY,
)
USED = StoredKey(KEY, NOW, MADE, None)


def usage(
    *, requests: dict[int, int] | None = None, refused: dict[int, int] | None = None, days: dict[int, int] | None = None
) -> Usage:
    """Count by hours and days ago; what happened days ago were requests and refusals alike."""
    requests, refused, days = requests or {}, refused or {}, days or {}
    hours = [UsageCount(NOW - ago * HOUR, requests.get(ago, 0), refused.get(ago, 0)) for ago in range(47, -1, -1)]
    by_day = [UsageCount(NOW - 12 * HOUR - ago * DAY, days.get(ago, 0), days.get(ago, 0)) for ago in range(29, -1, -1)]
    return Usage(tuple(hours), tuple(by_day))


def kinds(stored: StoredKey, successor: StoredKey | None, counted: Usage) -> list[str]:
    return [found.kind for found in of_key(stored, successor, counted, THRESHOLDS, float(NOW))]


QUIET = usage()


def test_a_key_that_is_used_as_ever_is_not_unusual() -> None:
    assert kinds(StoredKey(KEY, None), None, QUIET) == []
    assert kinds(USED, None, usage(requests=dict.fromkeys(range(48), 900), days=dict.fromkeys(range(30), 20_000))) == []


@pytest.mark.parametrize(
    ("silent_s", "expected"), [(60 * DAY - 1, []), (60 * DAY, ["unseen"]), (90.5 * DAY, ["unseen"])]
)
def test_a_use_after_long_silence_is(silent_s: float, expected: list[str]) -> None:
    assert kinds(replace(USED, returned_at=NOW - HOUR, silent_s=silent_s), None, QUIET) == expected


def test_a_first_use_long_after_the_key_was_made_is() -> None:
    (found,) = of_key(replace(USED, returned_at=NOW - 60.0), None, QUIET, THRESHOLDS, float(NOW))
    assert found == Unusual("unseen", NOW - 60.0, "Used for the first time, 199 days after it was made")
    assert kinds(replace(USED, returned_at=MADE + 60 * DAY - 1.0), None, QUIET) == []


def test_the_end_of_a_silence_is_old_news_after_a_week() -> None:
    back = replace(USED, returned_at=NOW - KEEP_S, silent_s=61.0 * DAY)
    assert kinds(back, None, QUIET) == []
    (found,) = of_key(replace(back, returned_at=NOW - KEEP_S + 1), None, QUIET, THRESHOLDS, float(NOW))
    assert found.reason == "Used after 61 days of silence"


def test_a_replaced_key_is_unusual_once_both_are_in_use() -> None:
    old = replace(USED, record=replace(KEY, replaced_by="key_new"), last_used_at=NOW - 10.0)
    new = StoredKey(replace(KEY, id="key_new"), None)
    assert kinds(old, None, QUIET) == []
    assert kinds(old, new, QUIET) == []
    assert kinds(old, replace(new, returned_at=NOW - 10.0), QUIET) == []
    assert kinds(replace(old, last_used_at=None), replace(new, returned_at=NOW - 11.0), QUIET) == []
    (found,) = of_key(old, replace(new, returned_at=NOW - 11.0), QUIET, THRESHOLDS, float(NOW))
    assert found == Unusual("replaced", NOW - 11.0, "Still used, though key_new replaced it and is in use")


def test_a_replaced_key_that_is_presented_after_its_end_is_unusual() -> None:
    assert of_ended(KEY, float(NOW)) == ()
    (found,) = of_ended(replace(KEY, replaced_by="key_new"), float(NOW))
    assert found == Unusual("replaced", float(NOW), "Presented after its end, though key_new replaced it")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({0: 499}, []),
        ({0: 500}, ["burst"]),
        ({0: 1_000, 24: 100}, []),
        ({0: 1_001, 24: 100}, ["burst"]),
        ({0: 501, 25: 100}, ["burst"]),
        ({23: 500, 24: 49}, ["burst"]),
        ({24: 500}, []),
    ],
)
def test_an_hour_of_the_last_day_far_above_the_24_before_it_is(counts: dict[int, int], expected: list[str]) -> None:
    assert kinds(USED, None, usage(requests=counts)) == expected


def test_a_weekly_run_is_a_habit() -> None:
    assert kinds(USED, None, usage(requests={0: 5_000}, days={7: 5_000})) == []
    assert kinds(USED, None, usage(requests={0: 5_000}, days={7: 3_999})) == ["burst"]
    assert kinds(USED, None, usage(requests={0: 5_000}, days={1: 5_000, 0: 5_000})) == ["burst"]


def test_a_rise_of_refusals_is() -> None:
    assert kinds(USED, None, usage(refused={1: 49})) == []
    found = of_key(USED, None, usage(refused={1: 60, 5: 55, 6: 2}), THRESHOLDS, float(NOW))
    assert [(each.kind, each.since) for each in found] == [("refusals", NOW - 5 * HOUR)]
    assert found[0].reason == "55 refused requests in the hour from 2026-09-21T07:00:00Z; 2 at most are usual"


def test_a_key_of_today_has_no_habit_of_requests_yet_but_may_be_refused_too_often() -> None:
    new = StoredKey(replace(KEY, created_at=NOW - 23.0 * HOUR), NOW, NOW - 23.0 * HOUR, None)
    busy = usage(requests={0: 5_000}, refused={0: 50})
    assert kinds(new, None, busy) == ["refusals"]
    assert kinds(replace(new, record=replace(KEY, created_at=NOW - 24.0 * HOUR)), None, busy) == ["refusals", "burst"]


def test_the_busiest_of_several_hours_is_named() -> None:
    found = of_key(USED, None, usage(requests={20: 600, 1: 9_000}), THRESHOLDS, float(NOW))
    assert [(each.kind, each.since) for each in found] == [("burst", NOW - HOUR)]


def test_an_account_is_judged_by_all_its_keys_together() -> None:
    half = usage(requests={0: 250}, refused={0: 25})
    assert of_account([], THRESHOLDS) == ()
    assert of_account([(USED, half)], THRESHOLDS) == ()
    assert [found.kind for found in of_account([(USED, half), (USED, half)], THRESHOLDS)] == ["refusals", "burst"]
    young = replace(USED, record=replace(KEY, created_at=NOW - 5.0))
    assert [found.kind for found in of_account([(young, half), (young, half)], THRESHOLDS)] == ["refusals"]


def test_the_same_is_news_again_after_a_day() -> None:
    kept = Unusual("burst", 1_000.0, "r")
    assert is_news(kept, None)
    assert not is_news(replace(kept, since=1_000.0 + DAY - 1), kept)
    assert is_news(replace(kept, since=1_000.0 + DAY), kept)


def test_a_key_is_looked_at_at_its_first_use_when_its_count_doubles_and_at_each_threshold() -> None:
    assert [count for count in range(1, 200) if is_due(count, 50)] == [1, 16, 32, 50, 64, 100, 128, 150]


def test_it_is_shown_in_words() -> None:
    shown = described(Unusual("burst", float(NOW), "Why"))
    assert shown == {"kind": "burst", "since": "2026-09-21T12:00:00Z", "reason": "Why"}


def test_a_keys_activity_is_its_days_and_what_is_unusual() -> None:
    shown = describe(KeyActivity("key_a", (UsageCount(NOW - NOW % DAY, 3, 2, 1),), (Unusual("burst", NOW, "Why"),)))
    assert shown == {
        "id": "key_a",
        "days": [{"start": "2026-09-21T00:00:00Z", "requests": 3, "refused": 2, "writes": 1}],
        "unusual": [{"kind": "burst", "since": "2026-09-21T12:00:00Z", "reason": "Why"}],
    }
