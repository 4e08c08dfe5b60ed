"""Is the way a key is used unusual, and why? Pure arithmetic over what the store counts.

Four things are unusual: a key that nobody had used for long, one that was replaced and is still presented, many more
refusals than before, and many more requests than before. What is more than before is told by hours, each compared with
the *habit*: the busiest of the 24 hours before it, or an eighth of the busiest day before yesterday, whichever is more
(a day's work may be done in a third of a day). The last 24 hours are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sidecar.policy.apikeys import describe_count, rfc3339
from sidecar.records import KeyActivity, KeyRecord, StoredKey, Unusual, UnusualKind, Usage, UsageCount

KEEP_S: Final = 7 * 86_400.0
"""For how long what was unusual is shown."""
SHOWN_DAYS: Final = 7
"""So many days of use are shown with it."""
ALL: Final = ""
"""Stands for all keys of an account together."""
KINDS: Final[tuple[UnusualKind, ...]] = ("unseen", "replaced", "refusals", "burst")

_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400
_JUDGED_HOURS: Final = 24
_WORKING_DAY_HOURS: Final = 8
_FIRST_DUE: Final = 16


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What counts as unusual; see ``api_keys.unusual`` in ``config.yaml``."""

    unseen_days: int
    rise: int
    """How many times the habit an hour has to exceed."""
    min_requests: int
    min_refused: int
    """Fewer in an hour are never a rise."""


def is_due(count: int, least: int) -> bool:
    """Tell whether a key is to be looked at when it has been used so often this hour.

    At 1, 16, 32, 64 and so on, and at each multiple of what makes a rise at `least`.
    """
    return count == 1 or (count >= _FIRST_DUE and count & (count - 1) == 0) or count % least == 0


def of_key(
    stored: StoredKey, successor: StoredKey | None, usage: Usage, thresholds: Thresholds, now: float
) -> tuple[Unusual, ...]:
    """Return what is unusual about one key. `successor` is the key that replaced it, if one did."""
    found = (_unseen(stored, thresholds, now), _replaced(stored, successor))
    rises = _rises(usage, thresholds, begun_at=stored.record.created_at)
    return (*[each for each in found if each is not None], *rises)


def of_ended(record: KeyRecord, now: float) -> tuple[Unusual, ...]:
    """Return what is unusual about a key that has come to its end, and whose secret was presented."""
    if record.replaced_by is None:
        return ()
    return (Unusual("replaced", now, f"Presented after its end, though {record.replaced_by} replaced it"),)


def of_account(used: Sequence[tuple[StoredKey, Usage]], thresholds: Thresholds) -> tuple[Unusual, ...]:
    """Return what is unusual about all keys of an account together."""
    keys, usages = [key for key, _ in used], [usage for _, usage in used]
    if not keys:
        return ()
    return _rises(_added(usages), thresholds, begun_at=min([key.record.created_at for key in keys]))


def is_news(found: Unusual, kept: Unusual | None) -> bool:
    """Tell whether this is to be told of, given what was kept of the same kind: one of each in a day is enough."""
    return kept is None or found.since >= kept.since + _DAY_S


def describe(key: KeyActivity) -> dict[str, Any]:
    """Show to people and programs how a key is used."""
    return {
        "id": key.key_id,
        "days": [describe_count(count) for count in key.days],
        "unusual": [described(found) for found in key.unusual],
    }


def described(found: Unusual) -> dict[str, Any]:
    """Show to people and programs what is unusual."""
    return {"kind": found.kind, "since": rfc3339(found.since), "reason": found.reason}


def _unseen(stored: StoredKey, thresholds: Thresholds, now: float) -> Unusual | None:
    if stored.returned_at is None or now - stored.returned_at >= KEEP_S:
        return None
    silent_s = stored.silent_s
    is_first = silent_s is None
    if silent_s is None:
        silent_s = stored.returned_at - stored.record.created_at
    if silent_s < thresholds.unseen_days * _DAY_S:
        return None
    days = int(silent_s // _DAY_S)
    how = (
        f"Used for the first time, {days} days after it was made" if is_first else f"Used after {days} days of silence"
    )
    return Unusual("unseen", stored.returned_at, how)


def _replaced(stored: StoredKey, successor: StoredKey | None) -> Unusual | None:
    """Tell that a replaced key is used while its successor is."""
    begun_at = None if successor is None else successor.returned_at
    if begun_at is None or stored.last_used_at is None or stored.last_used_at <= begun_at:
        return None
    return Unusual("replaced", begun_at, f"Still used, though {stored.record.replaced_by} replaced it and is in use")


def _rises(usage: Usage, thresholds: Thresholds, *, begun_at: float) -> tuple[Unusual, ...]:
    refused = _rise(usage, "refused", thresholds.min_refused, thresholds.rise)
    requests = _rise(usage, "requests", thresholds.min_requests, thresholds.rise)
    found = []
    if refused is not None:
        start, count, usual = refused
        reason = f"{count} refused requests in the hour from {rfc3339(start)}; {usual:g} at most are usual"
        found.append(Unusual("refusals", start, reason))
    if requests is not None and requests[0] >= begun_at + _DAY_S:  # without a first day there are no habits
        start, count, usual = requests
        reason = f"{count} requests in the hour from {rfc3339(start)}; {usual:g} at most are usual"
        found.append(Unusual("burst", start, reason))
    return tuple(found)


def _rise(
    usage: Usage, member: Literal["refused", "requests"], minimum: int, times: int
) -> tuple[int, int, float] | None:
    """Return start, count and habit of the busiest hour that exceeds its habit, if any does."""
    hours: list[int] = [getattr(hour, member) for hour in usage.hours]
    of_days = max([getattr(day, member) for day in usage.days[:-2]]) / _WORKING_DAY_HOURS
    found = []
    for place in range(_JUDGED_HOURS, len(hours)):
        habit = max(of_days, *hours[place - _JUDGED_HOURS : place])
        if hours[place] >= minimum and hours[place] > times * habit:
            found.append((usage.hours[place].start, hours[place], habit))
    return max(found, key=lambda hour: hour[1], default=None)


def _added(usages: list[Usage]) -> Usage:
    return Usage(
        hours=tuple([_sum(counts) for counts in zip(*[usage.hours for usage in usages], strict=True)]),
        days=tuple([_sum(counts) for counts in zip(*[usage.days for usage in usages], strict=True)]),
    )


def _sum(counts: tuple[UsageCount, ...]) -> UsageCount:
    return UsageCount(
        counts[0].start,
        sum([count.requests for count in counts]),
        sum([count.refused for count in counts]),
        sum([count.writes for count in counts]),
    )
