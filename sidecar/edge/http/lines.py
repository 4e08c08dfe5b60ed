"""The one line that a request leaves, whatever became of it."""

from __future__ import annotations

import time
from typing import Final

from sidecar.edge.http.exchange import Exchange
from sidecar.edge.http.streams import SHUTDOWN
from sidecar.policy import shadow
from sidecar.policy.redaction import redacted
from sidecar.ports import Observer

CLIENT_CLOSED: Final = "client_closed"


def record(
    observer: Observer,
    exchange: Exchange,
    label: str,
    outcome: str,
    status: int | None,
) -> None:
    """Take note of a finished request: its line in the log, and what is counted of it. A refusal is the outcome."""
    facts, progress = exchange.facts, exchange.progress
    principal, denial = progress.principal, exchange.denial
    outcome = outcome if denial is None else denial.error_type.lower()
    seconds = time.perf_counter() - exchange.started
    own_s = seconds if exchange.own_s is None else exchange.own_s
    members = {
        "request_id": facts.request_id,
        "account": None if principal is None else principal.account,
        "principal": None if principal is None else principal.subject,
        "route": label,
        "era": facts.era,
        **exchange.asked_for(),
        "outcome": outcome,
        "reason": exchange.ended_by if denial is None else denial.reason,
        "status": status,
        "duration_ms": _ms(seconds),
        "upstream_ms": None if exchange.upstream_s is None else _ms(exchange.upstream_s),
    }
    if exchange.spans and exchange.spans[0].trace_id:
        members["trace_id"] = exchange.spans[0].trace_id
    if denial is not None and denial.detail is not None:
        members["detail"] = redacted(denial.detail)
    shadowed: tuple[str, ...] = ()
    if progress.shadows:
        members |= shadow.members(progress.shadows)
        shadowed = tuple([note.rule for note in progress.shadows])
    observer.request(
        members,
        route=label,
        outcome=outcome,
        era=facts.era,
        seconds=seconds,
        upstream_seconds=exchange.upstream_s,
        quotas=progress.quotas,
        own_seconds=own_s - exchange.body_s,
        upstream_status=exchange.upstream_status,
        shadowed=shadowed,
    )


def left(exchange: Exchange, outcome: str) -> str:
    """Return the outcome of a request that ended before its answer was whole, and note why."""
    because = exchange.request.abandoned_because
    if because == SHUTDOWN:
        return SHUTDOWN
    is_over = exchange.ended_by is not None or exchange.streamed_status is not None
    exchange.ended_by = exchange.ended_by or because or (CLIENT_CLOSED if is_over else None)
    return outcome if is_over else CLIENT_CLOSED


def _ms(seconds: float) -> float:
    """Return milliseconds, to the microsecond."""
    return round(seconds * 1_000_000) / 1000
