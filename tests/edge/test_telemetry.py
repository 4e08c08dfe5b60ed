"""The log and the metrics, by themselves."""

from __future__ import annotations

import io
import os

import orjson

from sidecar.denials import StoreUnavailable
from sidecar.edge.telemetry import Telemetry


def test_a_log_that_nobody_reads_any_more_drops_its_lines_and_counts_them() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as sink:
        telemetry = Telemetry(sink, level="info", access=True)
        telemetry.event("first")
        telemetry.event("second")

    assert b"sidecar_log_lines_dropped 2.0" in telemetry.exposition()


def test_a_store_is_told_of_when_it_is_lost_and_when_it_is_back_and_not_in_between() -> None:
    sink = io.BytesIO()
    telemetry = Telemetry(sink, level="info", access=True)

    for problem in (None, StoreUnavailable("store_unavailable", detail="refused"), None, None):
        telemetry.store(problem)
        telemetry.store(problem)

    lines = [orjson.loads(line) for line in sink.getvalue().splitlines()]
    assert [(line["event"], line.get("problem")) for line in lines] == [
        ("store_lost", "refused"),
        ("store_recovered", None),
    ]
    assert list(lines[0])[:3] == ["ts", "level", "event"]


def test_lines_below_the_level_are_not_written() -> None:
    sink = io.BytesIO()
    telemetry = Telemetry(sink, level="warning", access=True)

    telemetry.event("quiet")
    telemetry.event("loud", level="warning")

    assert [orjson.loads(line)["event"] for line in sink.getvalue().splitlines()] == ["loud"]
