"""Does what is asked of the sidecar hold, and by how far? Pure: rows in, verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.figures import Ratio, ratio
from tests.bench.results import Row
from tests.bench.table import number

Measured = Callable[[Row, Sequence[Row]], Ratio | None]
"""Takes the contender's row and all of its scenario; a plain figure is a ratio whose rounds don't differ."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One thing that is asked."""

    text: str
    scenario: str
    contender: Callable[[str], bool]
    """Which of the scenario's contenders it is asked of, by name."""
    measured: Measured
    limit: float
    at_most: bool = True

    def verdict(self, rows: Sequence[Row]) -> str:
        """Say what was measured and whether it holds, in one line."""
        of_scenario = [row for row in rows if row.scenario == self.scenario]
        row = next((row for row in of_scenario if self.contender(row.contender)), None)
        asked = f"{self.text}: {'at most' if self.at_most else 'at least'} {number(self.limit)}"
        if row is None:
            return f"- not measured: {asked}"
        if row.problem:
            return f"- not known: {asked}; {row.problem}"
        value = self.measured(row, of_scenario)
        if value is None:
            return f"- not known: {asked}; what it is compared with was not measured"
        holds = value.median <= self.limit if self.at_most else value.median >= self.limit
        differs = value.highest > value.lowest
        rounds = f" (rounds {number(value.lowest)} to {number(value.highest)})" if differs else ""
        return f"- {'holds' if holds else 'FAILS'}: {asked}; measured {number(value.median)}{rounds}"


def _ratio(reference: str) -> Measured:
    return lambda row, _: row.ratios.get(reference)


def _figure(name: str) -> Measured:
    def measured(row: Row, rows: Sequence[Row]) -> Ratio | None:
        del rows
        values = [figures[name] for figures in row.rounds if name in figures]
        return Ratio(row.figures[name], min(values), max(values)) if values else None

    return measured


def _quotient(name: str, reference: str) -> Measured:
    """Compare by a figure that the scenario is not compared by."""

    def measured(row: Row, rows: Sequence[Row]) -> Ratio | None:
        other = next((other for other in rows if other.contender == reference and not other.problem), None)
        return None if other is None else ratio(row.rounds, other.rounds, name)

    return measured


def _is(name: str) -> Callable[[str], bool]:
    return lambda contender: contender == name


_FLAT: Final = 1.1
"""What makes no difference differs by less than a tenth, which is what two runs of the same may differ by."""

BOUNDS: Final = (
    Bound("1. CPU per request, JWT, times Envoy", "small-32", _is("sidecar"), _ratio("envoy"), 1.0),
    Bound("1. CPU per request, API key, times Envoy", "small-32", _is("sidecar, API key"), _ratio("envoy"), 1.0),
    Bound(
        "2. added p50 at 1 connection, times Envoy's", "small-1", _is("sidecar"), _quotient("added_p50_ms", "envoy"), 2
    ),
    Bound("3. KiB per idle stream", "idle", _is("sidecar"), _figure("kib_per_stream"), 24),
    Bound("3. throughput of 1 GiB, times nginx", "gigabyte", _is("sidecar"), _ratio("nginx"), 0.5, at_most=False),
    Bound("3. memory growth in MiB during 1 GiB", "gigabyte", _is("sidecar"), _figure("rss_growth_mib"), 8),
    Bound("3. first event in ms, the next 500 ms later", "first-event", _is("sidecar"), _figure("first_event_ms"), 100),
    Bound(
        "4. p99 of established callers in a storm, times quiet",
        "storm",
        _is("established, in the storm"),
        _ratio("established, quiet"),
        2,
    ),
    Bound(
        "4. the same, when all of the storm come in step",
        "storm",
        _is("established, storm in step"),
        _ratio("established, quiet"),
        2,
    ),
    Bound("5. ms from start to ready", "start", _is("sidecar"), _figure("ready_ms"), 1000),
    Bound("5. idle memory in MiB", "start", _is("sidecar"), _figure("rss_mib"), 80),
    Bound("6. CPU with many keys, times 1 key", "keys", lambda name: name.endswith(" keys"), _ratio("1 key"), _FLAT),
    Bound(
        "6. CPU with many accounts, times 1 account",
        "accounts",
        lambda name: name.endswith(" accounts"),
        _ratio("1 account"),
        _FLAT,
    ),
    Bound("6. CPU with 1000 tools, times 10 tools", "tools", _is("1000 tools"), _ratio("10 tools"), _FLAT),
)


def verdicts(rows: Sequence[Row]) -> str:
    """Return one line for each thing that is asked."""
    return "\n".join(bound.verdict(rows) for bound in BOUNDS) + "\n"
