"""One run after the other, the contenders in turn, each checked before, while and after it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.bench.accounting import cpu_us, rss_bytes
from tests.bench.calls import Call
from tests.bench.checks import CALL_HEADERS, Checked, check
from tests.bench.contenders.contender import Contender
from tests.bench.errors import NotStarted, WrongAnswer
from tests.bench.figures import Figures, LoadReport, per_request
from tests.bench.results import Row
from tests.bench.session import Session
from tests.bench.wrk import Headers, Load

MIB: Final = 1 << 20
CPU: Final = "cpu_us_per_request"
_OTHERS: Final = 16
"""How many requests may be counted with those of a run: the checking one, and what proxies ask for themselves."""
_LONGEST_WARM_UP_S: Final = 90
_MARGIN: Final = 1.3
_SETTLE_S: Final = 0.2
"""What was under way when the warm-up ended has then come to its end, and is not counted with the run."""
_FRAMING: Final = 3
"""An answer with its head and its framing is at most so many times its body and 2000 bytes."""


@dataclass(frozen=True)
class Work:
    """What a run consists of."""

    call: Call
    connections: int
    in_turn: Sequence[Headers] = ()
    """Credentials to use one after the other, instead of the contender's own."""
    pause_ms: int = 0


def interleaved(
    session: Session, scenario: str, turns: Sequence[tuple[Contender, Work]], *, compared_by: str = CPU
) -> list[Row]:
    """Give each contender its turn, and then each again, for as many rounds as were asked for."""
    rows = [Row(scenario, contender.name, compared_by) for contender, _ in turns]
    for number in range(session.options.rounds):
        for row, (contender, work) in zip(rows, turns, strict=True):
            attempt(session, row, number, partial(measure, session, contender, work))
    return rows


def attempt(session: Session, row: Row, number: int, run: Callable[[], Figures]) -> None:
    """Add the figures of one round to the row, or what was wrong; a contender that was wrong has no further turns."""
    if row.problem:
        return
    try:
        figures = run()
    except (WrongAnswer, NotStarted) as problem:
        row.problem = f"WRONG: {problem}"
        shown = row.problem
    else:
        row.rounds.append(figures)
        shown = ", ".join(f"{name} {value:.5g}" for name, value in figures.items())
    session.say(f"{row.scenario}, round {number + 1}, {row.contender}: {shown}")


def measure(session: Session, contender: Contender, work: Work) -> Figures:
    """Measure one run.

    Raises:
        WrongAnswer: any answer was not as it should be, or the caller's limit was not charged for all of them.
    """
    credential = work.in_turn[0] if work.in_turn else None
    contender.forget_counts()
    before = check(contender, work.call, credential=credential)
    _warm_up(session, contender, work)
    contender.forget_counts()
    counted, reached = contender.counted(), contender.upstream.requests()
    cpu, store_cpu = _cpu(contender.pid), _cpu(contender.store_pid)
    looked = partial(check, contender, work.call, credential=credential)
    report = session.wrk.run(_load(contender, work, session.scale.run_s), meanwhile=looked)
    cpu, store_cpu = _cpu(contender.pid) - cpu, _cpu(contender.store_pid) - store_cpu
    _require_right(report, before)
    _require_all(report, "reached the upstream", reached, contender.upstream.requests(), work.connections)
    _require_all(report, "counted against the limit", counted, contender.counted(), work.connections)
    contender.require_falling(before.headers, check(contender, work.call, credential=credential).headers)
    figures = {
        "requests_per_s": report.requests_per_s,
        "p50_ms": report.p50_us / 1000,
        "p99_ms": report.p99_us / 1000,
    }
    if contender.pid is not None:
        figures[CPU] = per_request(cpu, report.requests)
        figures["rss_mib"] = rss_bytes(contender.pid) / MIB
    if contender.store_pid is not None:
        figures["store_cpu_us_per_request"] = per_request(store_cpu, report.requests)
    return figures


def _warm_up(session: Session, contender: Contender, work: Work) -> None:
    """Run until every credential was used, at the pace of those that are used for the first time."""
    report = session.wrk.run(_load(contender, work, session.scale.warm_up_s))
    if report.requests < len(work.in_turn):
        needed_s = _MARGIN * len(work.in_turn) / max(1.0, report.requests_per_s)
        session.wrk.run(_load(contender, work, min(needed_s, _LONGEST_WARM_UP_S)))
    time.sleep(_SETTLE_S)


def _load(contender: Contender, work: Work, duration_s: float) -> Load:
    headers = CALL_HEADERS if work.in_turn else (*CALL_HEADERS, *contender.credential)
    return Load(
        contender.url(work.call), work.call.body, headers, work.connections, duration_s, work.in_turn, work.pause_ms
    )


def _cpu(pid: int | None) -> int:
    return 0 if pid is None else cpu_us(pid)


def _require_right(report: LoadReport, checked: Checked) -> None:
    if report.refused or report.broken or not report.requests:
        raise WrongAnswer(f"of {report.requests} answers {report.refused} were errors and {report.broken} broke off")
    per_answer = report.received_bytes / report.requests
    if not checked.body_bytes <= per_answer <= _FRAMING * checked.body_bytes + 2000:
        raise WrongAnswer(f"answers had {per_answer:.0f} bytes, the checked one's body {checked.body_bytes}")


def _require_all(report: LoadReport, what: str, before: int | None, after: int | None, connections: int) -> None:
    """Require that a counter went up for every answer, once; for requests under way at the end it may have too."""
    if before is None or after is None:
        return
    if not report.requests <= after - before <= report.requests + connections + _OTHERS:
        raise WrongAnswer(f"{report.requests} requests were answered and {after - before} {what}")
