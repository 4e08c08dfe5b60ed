"""Many clients present API keys that were never seen, each of which costs a bcrypt check: who else notices?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from tests.bench.calls import SMALL_CALL
from tests.bench.checks import CALL_HEADERS, check
from tests.bench.contenders.sidecar import SidecarContender, sidecar
from tests.bench.credentials import IssuedKey
from tests.bench.errors import WrongAnswer
from tests.bench.figures import Figures, LoadReport
from tests.bench.key_loading import load_keys
from tests.bench.measuring import attempt
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import static_upstream
from tests.bench.wrk import Headers, Load
from tests.redis_server import RedisServer

P99: Final = "p99_ms"
QUIET: Final = "established, quiet"
STORM: Final = "established, in the storm"
IN_STEP: Final = "established, storm in step"
"""All of the storm come at the same moment and, told to wait for the same time, come back at the same moment."""
_STORMERS: Final = 200
_RETRY_MS: Final = 1000
"""What the sidecar asks those to wait for whom it has no time. Each client waits about so long before each key."""
_ESTABLISHED: Final = 16
_PAUSE_MS: Final = 10
"""Between two calls of an established client: the machine is not at its limit, so a stall shows as one."""


def storm(session: Session, scenario: str) -> list[Row]:
    """Measure callers whose keys are known, without the storm and in it, in turns."""
    per_run = round(_STORMERS * (session.scale.storm_s + 4))
    keys = list(session.issuer.api_keys(1 + 2 * per_run * session.options.rounds))
    rows = [Row(scenario, name, P99) for name in (QUIET, STORM, IN_STEP)]
    settings = {"trusted_proxies": ["127.0.0.0/8"]}
    with (
        static_upstream(session.programs.nginx(), session.directory) as upstream,
        RedisServer() as store,
    ):
        load_keys(store.url, keys)
        with sidecar(session.directory, upstream, session.issuer, store, settings=settings) as started:
            contender = started.for_key(keys[0])
            fresh = iter(keys[1:])
            for number in range(session.options.rounds):
                attempt(session, rows[0], number, partial(_quiet, session, contender))
                for row in rows[1:]:
                    stormers = list(itertools.islice(fresh, per_run))
                    raging = partial(_in_the_storm, session, contender, stormers, in_step=row.contender == IN_STEP)
                    attempt(session, row, number, raging)
    compare(rows, [QUIET])
    return rows


def _quiet(session: Session, contender: SidecarContender) -> Figures:
    check(contender, SMALL_CALL)
    return _figures(session.wrk.run(_established(contender, session.scale.storm_s)))


def _in_the_storm(session: Session, contender: SidecarContender, fresh: list[IssuedKey], *, in_step: bool) -> Figures:
    check(contender, SMALL_CALL)
    load = Load(
        contender.url(SMALL_CALL),
        SMALL_CALL.body,
        CALL_HEADERS,
        _STORMERS,
        session.scale.storm_s + 2,
        list(_presented(fresh)),
        _RETRY_MS,
        pause_varies=not in_step,
    )
    with ThreadPoolExecutor(1) as beside:
        raging = beside.submit(session.wrk.run, load)
        figures = _figures(session.wrk.run(_established(contender, session.scale.storm_s)))
        report = raging.result()
    check(contender, SMALL_CALL)
    if report.requests < _STORMERS:
        raise WrongAnswer(f"only {report.requests} fresh keys were answered: that is no storm")
    return {
        **figures,
        "storm_presented_per_s": report.requests_per_s,
        "storm_served": report.requests - report.refused,
        "storm_told_to_wait": report.refused,
        "storm_broken_off": report.broken,
    }


def _presented(keys: list[IssuedKey]) -> Iterator[Headers]:
    """Each client has an address of its own, so that none is refused for what others did."""
    for number, key in enumerate(keys):
        client = number % _STORMERS
        yield (("X-API-Key", key.text), ("X-Forwarded-For", f"198.18.0.{client + 1}"))


def _established(contender: SidecarContender, duration_s: float) -> Load:
    headers = (*CALL_HEADERS, *contender.credential)
    url = contender.url(SMALL_CALL)
    return Load(url, SMALL_CALL.body, headers, _ESTABLISHED, duration_s, pause_ms=_PAUSE_MS)


def _figures(report: LoadReport) -> Figures:
    if report.refused or report.broken or not report.requests:
        raise WrongAnswer(f"established callers: {report.refused} errors, {report.broken} broken off")
    return {
        "requests_per_s": report.requests_per_s,
        "p50_ms": report.p50_us / 1000,
        P99: report.p99_us / 1000,
        "max_ms": report.max_us / 1000,
    }
