"""Calls and answers that are not small: 64 KiB of either, and an answer of many events."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.bench.calls import EVENTS_CALL, LARGE_ANSWER_CALL, LARGE_CALL, Call
from tests.bench.lineup import REFERENCES, Name, lined_up
from tests.bench.measuring import CPU, Work, interleaved
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import Upstream, static_upstream, streaming_upstream

_NAMES: tuple[Name, ...] = ("direct", "nginx", "haproxy", "envoy", "sidecar", "aiohttp")
_CONNECTIONS = 32


def large_call(session: Session, scenario: str) -> list[Row]:
    """Measure a call of 64 KiB."""
    return _measure(session, scenario, LARGE_CALL)


def large_answer(session: Session, scenario: str) -> list[Row]:
    """Measure an answer of 64 KiB."""
    return _measure(session, scenario, LARGE_ANSWER_CALL)


def events(session: Session, scenario: str) -> list[Row]:
    """Measure an answer that is a stream of events."""
    return _measure(session, scenario, EVENTS_CALL)


def _measure(session: Session, scenario: str, call: Call) -> list[Row]:
    with upstream_for(session, call) as upstream, lined_up(session, _NAMES, upstream) as line_up:
        work = Work(call, _CONNECTIONS)
        rows = interleaved(session, scenario, [(contender, work) for contender in line_up.contenders])
    compare(rows, REFERENCES)
    return [*rows, *line_up.absent_rows(scenario, CPU)]


@contextlib.contextmanager
def upstream_for(session: Session, call: Call) -> Iterator[Upstream]:
    """Run the upstream that can answer the call."""
    if call.upstream == "static":
        with static_upstream(session.programs.nginx(), session.directory) as upstream:
            yield upstream
    else:
        with streaming_upstream(session.directory) as upstream:
            yield upstream
