"""Is an event passed on when it comes, or when more has come?"""

from __future__ import annotations

import http.client
import time
from functools import partial
from typing import Final

from tests.bench.calls import SLOW_CALL, event
from tests.bench.checks import CALL_HEADERS, check
from tests.bench.contenders.contender import Contender
from tests.bench.errors import WrongAnswer
from tests.bench.figures import Figures
from tests.bench.lineup import REFERENCES, Name, lined_up
from tests.bench.measuring import attempt
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import streaming_upstream

FIRST: Final = "first_event_ms"
_NAMES: Final[tuple[Name, ...]] = ("direct", "nginx", "haproxy", "envoy", "sidecar", "aiohttp")


def first_event(session: Session, scenario: str) -> list[Row]:
    """Time both events of an answer whose second comes half a second after its first."""
    with streaming_upstream(session.directory) as upstream, lined_up(session, _NAMES, upstream) as line_up:
        rows = [Row(scenario, contender.name, FIRST) for contender in line_up.contenders]
        for number in range(session.options.rounds):
            for row, contender in zip(rows, line_up.contenders, strict=True):
                attempt(session, row, number, partial(_time, contender))
    compare(rows, REFERENCES)
    return [*rows, *line_up.absent_rows(scenario, FIRST)]


def _time(contender: Contender) -> Figures:
    check(contender, SLOW_CALL)
    connection = http.client.HTTPConnection("127.0.0.1", contender.port, timeout=30)
    try:
        began = time.perf_counter()
        headers = dict((*CALL_HEADERS, *contender.credential))
        connection.request("POST", contender.path + SLOW_CALL.query, SLOW_CALL.body, headers)
        answer = connection.getresponse()
        first = answer.read1()
        first_s = time.perf_counter() - began
        if first != event(0):
            raise WrongAnswer(f"the first event came as {first[:100]!r}")
        answer.read()
        return {FIRST: first_s * 1000, "last_event_ms": (time.perf_counter() - began) * 1000}
    except (OSError, http.client.HTTPException) as error:
        raise WrongAnswer(f"no answer: {error!r}") from error
    finally:
        connection.close()
