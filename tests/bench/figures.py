"""What do the numbers say? Pure arithmetic on what was measured: medians, ratios, costs per request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

Figures = dict[str, float]
"""Figures by name; each name ends in its unit."""

LOAD_MARK: Final = "load-report "
"""What the line begins with on which our wrk script reports."""


class UnreadableReport(ValueError):  # noqa: N818 - it says what it is
    """The load generator did not report what it should have."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What the load generator saw of one run."""

    requests: int
    duration_us: int
    received_bytes: int
    p50_us: float
    p99_us: float
    max_us: float
    refused: int
    """Answers with a status of 400 or more."""
    broken: int
    """Connections that failed, broke off or timed out."""

    @property
    def requests_per_s(self) -> float:
        return self.requests / (self.duration_us / 1e6) if self.duration_us else 0.0


def load_report(output: str) -> LoadReport:
    """Read a report out of everything that the load generator printed.

    Raises:
        UnreadableReport: there is none, or it is not whole.
    """
    for line in output.splitlines():
        if line.startswith(LOAD_MARK):
            try:
                return LoadReport(**json.loads(line.removeprefix(LOAD_MARK)))
            except (TypeError, ValueError) as error:
                raise UnreadableReport(f"{line!r}: {error}") from error
    raise UnreadableReport(f"no report in {output!r}")


def per_request(total: float, requests: int) -> float:
    """Return the share of one request; of none it is nothing."""
    return total / requests if requests else 0.0


def medians(rounds: Sequence[Mapping[str, float]]) -> Figures:
    """Return the median of each figure over the rounds that have it."""
    names = dict.fromkeys(name for one in rounds for name in one)
    return {name: median(one[name] for one in rounds if name in one) for name in names}


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times another's figure one is, within a round: the median over the rounds, and how far they differ."""

    median: float
    lowest: float
    highest: float


def ratio(mine: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]], figure: str) -> Ratio | None:
    """Compare the runs of each round, which follow each other, so that what else the machine does mostly cancels out.

    None where there is nothing to divide by.
    """
    pairs = zip(mine, others, strict=False)
    quotients = [one[figure] / other[figure] for one, other in pairs if one.get(figure) and other.get(figure)]
    return Ratio(median(quotients), min(quotients), max(quotients)) if quotients else None
