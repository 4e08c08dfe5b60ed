"""Shows what was found out as one table, in Markdown. Pure: rows in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.bench.results import Row

_COLUMNS: Final[Mapping[str, str]] = {
    "requests_per_s": "req/s",
    "cpu_us_per_request": "CPU µs/req",
    "store_cpu_us_per_request": "Redis µs/req",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "rss_mib": "RSS MiB",
}
_REFERENCES: Final = ("nginx", "haproxy", "envoy")


def table(rows: Sequence[Row]) -> str:
    """Return the table, with columns no wider than they need to be."""
    head = ["scenario", "contender", *_COLUMNS.values(), *(f"÷ {name}" for name in _REFERENCES), "and"]
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = [_line(line, widths) for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]]) + "\n"


def _cells(row: Row) -> list[str]:
    if row.problem:
        empty = [""] * (len(_COLUMNS) + len(_REFERENCES))
        return [row.scenario, row.contender, *empty, _one_line(row.problem)]
    figures = row.figures
    known = [number(figures[name]) if name in figures else "" for name in _COLUMNS]
    ratios = [f"{row.ratios[name].median:.2f}" if name in row.ratios else "" for name in _REFERENCES]
    others = [f"{name} {number(value)}" for name, value in figures.items() if name not in _COLUMNS]
    others += [f"{value.median:.2f} times {name}" for name, value in row.ratios.items() if name not in _REFERENCES]
    return [row.scenario, row.contender, *known, *ratios, ", ".join(others)]


def number(value: float) -> str:
    """Write a figure with three digits that count, and thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
