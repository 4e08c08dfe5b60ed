"""What a scenario has found out: a row for each contender, also for one that was wrong or could not be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.figures import Figures, Ratio, medians, ratio


@dataclass
class Row:
    """One contender in one scenario. With a problem it has no figures: a wrong answer has no speed."""

    scenario: str
    contender: str
    compared_by: str
    """The figure of which ratios are taken."""
    rounds: list[Figures] = field(default_factory=list)
    problem: str = ""
    """``WRONG: …`` or ``missing: …``; empty when all is well."""
    ratios: dict[str, Ratio] = field(default_factory=dict)
    """How many times the figure of the contender of that name this one's is."""

    @property
    def figures(self) -> Figures:
        """The median of each figure over the rounds."""
        return {} if self.problem else medians(self.rounds)

    def as_json(self) -> dict[str, Any]:
        document = asdict(self)
        if self.problem:
            document["rounds"] = []
        return {**document, "medians": self.figures}


def compare(rows: Sequence[Row], references: Sequence[str]) -> None:
    """Fill in the ratios of all rows of one scenario to each of the references among them."""
    by_name = {row.contender: row for row in rows if not row.problem}
    for row in by_name.values():
        for name in references:
            if name not in by_name or name == row.contender:
                continue
            value = ratio(row.rounds, by_name[name].rounds, row.compared_by)
            if value is not None:
                row.ratios[name] = value
