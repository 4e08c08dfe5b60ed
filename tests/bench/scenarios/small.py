"""A small call: what does a request cost, and how much later is its answer?"""

from __future__ import annotations

from tests.bench.calls import SMALL_CALL
from tests.bench.lineup import REFERENCES, Name, lined_up
from tests.bench.measuring import CPU, Work, interleaved
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import static_upstream

_NAMES: tuple[Name, ...] = ("direct", "nginx", "haproxy", "envoy", "sidecar", "sidecar ed25519", "aiohttp")
_SLOW_AT: int = 32
"""The one number of connections at which the contender that takes 1000 times as long is measured too."""


def small_calls(session: Session, scenario: str, *, connections: int) -> list[Row]:
    """Measure all contenders; the sidecar with tokens and with an API key."""
    names = (*_NAMES, "fastmcp") if connections == _SLOW_AT else _NAMES
    with (
        static_upstream(session.programs.nginx(), session.directory) as upstream,
        lined_up(session, names, upstream, with_key=True) as line_up,
    ):
        work = Work(SMALL_CALL, connections)
        rows = interleaved(session, scenario, [(contender, work) for contender in line_up.contenders])
    _note_added_latency(rows)
    compare(rows, REFERENCES)
    return [*rows, *line_up.absent_rows(scenario, CPU)]


def _note_added_latency(rows: list[Row]) -> None:
    """Note in each round by how much the proxy makes the median answer later than it is without one."""
    direct = next(row for row in rows if row.contender == "direct")
    if direct.problem:
        return
    for row in rows:
        if row is not direct and not row.problem:
            for figures, without in zip(row.rounds, direct.rounds, strict=True):
                figures["added_p50_ms"] = figures["p50_ms"] - without["p50_ms"]
