"""From nothing to ready, and what is in memory then."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from tests.bench.accounting import rss_bytes
from tests.bench.calls import SMALL_CALL
from tests.bench.checks import check
from tests.bench.errors import WrongAnswer
from tests.bench.figures import Figures
from tests.bench.lineup import REFERENCES, Name, lined_up
from tests.bench.measuring import MIB, attempt
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import Upstream, static_upstream

READY: Final = "ready_ms"
_NAMES: Final[tuple[Name, ...]] = ("nginx", "haproxy", "envoy", "sidecar", "aiohttp", "fastmcp")
_IDLE_S: Final = 2.0


def start(session: Session, scenario: str) -> list[Row]:
    """Start each anew in every round. Ready is: it listens, and where it says by itself that it is ready, that."""
    rows = [Row(scenario, name, READY) for name in _NAMES]
    with static_upstream(session.programs.nginx(), session.directory) as upstream:
        for number in range(session.options.rounds):
            for row, name in zip(rows, _NAMES, strict=True):
                attempt(session, row, number, partial(_measure, session, row, name, upstream))
    compare(rows, REFERENCES)
    return rows


def _measure(session: Session, row: Row, name: Name, upstream: Upstream) -> Figures:
    with lined_up(session, [name], upstream) as line_up:
        if name in line_up.absent:
            row.problem = line_up.absent[name]
            return {}
        (contender,) = line_up.contenders
        if contender.process is None:
            raise WrongAnswer("there is no process to measure")
        figures = {READY: contender.process.ready_after_s * 1000}
        check(contender, SMALL_CALL)
        time.sleep(_IDLE_S)
        figures["rss_mib"] = rss_bytes(contender.process.pid) / MIB
        return figures
