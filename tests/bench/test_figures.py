"""The arithmetic of the bench, and its reading of what the load generator says. No time is measured here."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from tests.bench.asked import BOUNDS, verdicts
from tests.bench.figures import (
    LOAD_MARK,
    LoadReport,
    Ratio,
    UnreadableReport,
    load_report,
    medians,
    per_request,
    ratio,
)
from tests.bench.options import FULL, QUICK, read_options
from tests.bench.results import Row, compare
from tests.bench.table import number, table

REPORT = LoadReport(1000, 2_000_000, 300_000, 900.0, 4000.0, 9000.0, refused=0, broken=0)


def row(contender: str, *cpu_us: float, problem: str = "") -> Row:
    rounds = [{"cpu_us_per_request": value} for value in cpu_us]
    return Row("small-32", contender, "cpu_us_per_request", rounds, problem)


def test_a_report_is_found_among_what_else_is_printed() -> None:
    output = f"Running 2s test\n{LOAD_MARK}{json.dumps(asdict(REPORT))}\nRequests/sec: 500\n"

    assert load_report(output) == REPORT
    assert load_report(output).requests_per_s == 500


@pytest.mark.parametrize("output", ["", "Running 2s test", LOAD_MARK, f"{LOAD_MARK}{{}}", f"{LOAD_MARK}[1]"])
def test_a_report_that_is_not_whole_is_refused(output: str) -> None:
    with pytest.raises(UnreadableReport):
        load_report(output)


def test_of_no_requests_nothing_is_divided() -> None:
    assert per_request(300.0, 0) == 0
    assert LoadReport(0, 0, 0, 0, 0, 0, 0, 0).requests_per_s == 0


def test_a_median_is_taken_of_each_figure_over_the_rounds_that_have_it() -> None:
    rounds = [{"p50_ms": 1.0, "rss_mib": 10.0}, {"p50_ms": 9.0}, {"p50_ms": 2.0, "rss_mib": 20.0}]

    assert medians(rounds) == {"p50_ms": 2.0, "rss_mib": 15.0}
    assert medians([]) == {}


def test_a_ratio_compares_runs_of_the_same_round() -> None:
    mine = [{"cpu": 20.0}, {"cpu": 200.0}, {"cpu": 30.0}]
    others = [{"cpu": 10.0}, {"cpu": 100.0}, {"cpu": 10.0}]

    assert ratio(mine, others, "cpu") == Ratio(2.0, 2.0, 3.0)  # of the medians it would be 3.0


def test_there_is_no_ratio_to_nothing() -> None:
    assert ratio([{"cpu": 1.0}], [{"cpu": 0.0}], "cpu") is None
    assert ratio([{"cpu": 1.0}], [], "cpu") is None


def test_a_wrong_contender_has_no_figures_and_is_no_reference() -> None:
    envoy, sidecar = row("envoy", 50.0, problem="WRONG: HTTP 500"), row("sidecar", 60.0)
    compare([envoy, sidecar], ["envoy"])

    assert envoy.figures == {}
    assert envoy.as_json()["rounds"] == []
    assert sidecar.ratios == {}


def test_the_table_shows_problems_and_ratios() -> None:
    envoy, sidecar, fastmcp = row("envoy", 50.0), row("sidecar", 60.0), row("fastmcp", problem="missing: no\n network")
    compare([envoy, sidecar], ["envoy"])
    lines = [[cell.strip() for cell in line.split("|")] for line in table([envoy, sidecar, fastmcp]).splitlines()]

    assert len({len(line) for line in lines}) == 1
    assert lines[3][2:5] == ["sidecar", "", "60.0"]
    assert "1.20" in lines[3]
    assert "missing: no network" in lines[4]


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12 346")])
def test_a_number_has_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_a_bound_holds_fails_or_is_not_measured() -> None:
    envoy, sidecar, by_key = row("envoy", 50.0, 50.0), row("sidecar", 40.0, 30.0), row("sidecar, API key", 60.0)
    compare([envoy, sidecar, by_key], ["envoy"])
    lines = verdicts([envoy, sidecar, by_key]).splitlines()

    assert [line.split(":")[0] for line in lines[:3]] == ["- holds", "- FAILS", "- not measured"]
    assert lines[0].endswith("measured 0.70 (rounds 0.60 to 0.80)")
    assert len(lines) == len(BOUNDS)


def test_a_bound_on_a_wrong_contender_is_not_known() -> None:
    assert verdicts([row("sidecar", problem="WRONG: HTTP 500")]).startswith("- not known: ")


def test_the_command_line_names_scale_rounds_and_scenarios() -> None:
    scenarios = {"small-32": "what?", "idle": "how?"}
    quick = read_options(["--quick", "--scenario", "idle"], scenarios)
    full = read_options(["--rounds", "7"], scenarios)

    assert (quick.scale, quick.rounds, quick.scenarios) == (QUICK, QUICK.rounds, ("idle",))
    assert (full.scale, full.rounds, full.scenarios) == (FULL, 7, ("small-32", "idle"))
