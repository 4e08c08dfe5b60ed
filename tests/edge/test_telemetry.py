"""The log and the metrics, by themselves."""

from __future__ import annotations

import asyncio
import io
import os
import re
from pathlib import Path
from typing import IO, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from sidecar.denials import StoreUnavailable
from sidecar.edge.telemetry import Telemetry
from sidecar.edge.telemetry_durations import Counts, Distribution, Durations
from sidecar.edge.telemetry_lag import LOOK_S, LoopLag
from tests.fakes import Clock


def test_a_log_that_nobody_reads_any_more_drops_its_lines_and_counts_them() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as sink:
        telemetry = Telemetry(sink, level="info", access=True)
        telemetry.event("first")
        telemetry.event("second")

    assert b"sidecar_log_lines_dropped 2.0" in telemetry.exposition()


async def test_a_log_that_nobody_reads_for_a_while_holds_up_nobody_and_loses_nothing_that_fits() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as sink, os.fdopen(reader, "rb", buffering=0) as source:
        telemetry = Telemetry(sink, level="info", access=True)
        for number in range(2000):
            telemetry.event("line", number=number, text="x" * 100)  # some 400 KB, of which a pipe takes 64
            if number % 100 == 0:
                await asyncio.sleep(0)
        read = asyncio.ensure_future(asyncio.to_thread(read_lines, source, 2000))
        async with asyncio.timeout(10):
            lines = await read
        assert [orjson.loads(line)["number"] for line in lines] == list(range(2000))
        for _ in range(20_000):
            telemetry.event("line", text="x" * 100)
        await asyncio.sleep(0)
        dropped = re.search(rb"^sidecar_log_lines_dropped (\S+)", telemetry.exposition(), re.MULTILINE)
        assert dropped is not None
        assert 0 < float(dropped[1]) < 20_000
        assert not os.get_blocking(writer)
        telemetry.finish()
        assert os.get_blocking(writer), "others may use it after us"


def read_lines(source: IO[bytes], count: int) -> list[bytes]:
    lines = bytearray()
    while lines.count(b"\n") < count:
        lines += source.read(65_536)
    return bytes(lines).splitlines()


def test_a_log_whose_disk_is_full_drops_its_lines_and_counts_them() -> None:
    with Path("/dev/full").open("wb", buffering=0) as sink:
        telemetry = Telemetry(sink, level="info", access=True)
        telemetry.event("lost")
    assert b"sidecar_log_lines_dropped 1.0" in telemetry.exposition()


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


def test_a_store_that_comes_and_goes_fills_no_log_and_every_failure_is_counted() -> None:
    sink, clock = io.BytesIO(), Clock()
    telemetry = Telemetry(sink, level="info", access=True, clock=clock)
    lost = StoreUnavailable("store_unavailable", detail="slow")

    def told() -> list[tuple[str, int]]:
        lines = [orjson.loads(line) for line in sink.getvalue().splitlines()]
        return [(line["event"], line["times"]) for line in lines]

    for _ in range(5):
        telemetry.store(lost)
        telemetry.store(None)
        clock.pass_(1)
    assert told() == [("store_lost", 1), ("store_recovered", 1)]
    telemetry.store(lost)
    assert b"sidecar_store_up 0.0" in telemetry.exposition()
    clock.pass_(5)
    telemetry.store(lost)
    assert told()[2:] == [("store_lost", 5)]
    telemetry.store(None)
    assert told()[3:] == [("store_recovered", 5)]
    assert b"sidecar_store_up 1.0" in telemetry.exposition()
    assert b"sidecar_store_failures_total 7.0" in telemetry.exposition()


def test_lines_below_the_level_are_not_written() -> None:
    sink = io.BytesIO()
    telemetry = Telemetry(sink, level="warning", access=True)

    telemetry.event("quiet")
    telemetry.event("loud", level="warning")

    assert [orjson.loads(line)["event"] for line in sink.getvalue().splitlines()] == ["loud"]


@pytest.mark.parametrize("worker", [None, 3])
@pytest.mark.parametrize(("level", "outcome"), [("info", "forwarded"), ("error", "internal_error")])
def test_the_line_of_a_request_looks_like_that_of_an_event(worker: int | None, level: str, outcome: str) -> None:
    sink = io.BytesIO()
    telemetry = Telemetry(sink, level="info", access=True, worker=worker)
    members = {"request_id": "r", "account": None, "tool": "caf\u00e9\n\u2028", "status": 200, "duration_ms": 0.25}

    telemetry.event("request", level=level, **members)
    note(telemetry, outcome, members)

    lines = sink.getvalue().splitlines(keepends=True)
    event, request = (re.sub(rb'"ts":"[^"]*"', b"", line) for line in lines)
    assert request == event
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", orjson.loads(line)["ts"])


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ({"level": "debug", "access": True}, ["info", "error"]),
        ({"level": "warning", "access": True}, ["error"]),
        ({"level": "debug", "access": False}, []),
    ],
)
def test_lines_of_requests_are_written_as_the_settings_say(settings: dict[str, Any], written: list[str]) -> None:
    sink = io.BytesIO()
    telemetry = Telemetry(sink, **settings)

    for outcome in ("forwarded", "internal_error"):
        note(telemetry, outcome, {})

    assert [orjson.loads(line)["level"] for line in sink.getvalue().splitlines()] == written
    assert b'sidecar_requests_total{era="legacy",outcome="forwarded",route="/mcp"} 1.0' in telemetry.exposition()


def test_durations_are_told_as_the_librarys_own_histogram_tells_them() -> None:
    registry, other, bounds_s = CollectorRegistry(), CollectorRegistry(), (0.001, 0.5, 1.0, 60.0)
    durations = Durations("seconds", "How long.", bounds_s, registry)
    histogram = Histogram("seconds", "How long.", buckets=bounds_s, registry=other)
    assert told(registry) == told(other)
    for seconds in (0.0, 0.0005, 0.001, 0.0011, 0.5, 0.75, 60.0, 61.0, 0.1):
        durations.observe(seconds)
        histogram.observe(seconds)
    assert told(registry) == told(other)


def test_a_labelled_histogram_and_counter_are_told_as_the_librarys_own_are() -> None:
    registry, other, labels = CollectorRegistry(), CollectorRegistry(), ("route", "era")
    distribution = Distribution("seconds", "How long.", labels, (0.5, 1.0), registry)
    counts = Counts("things", "How many.", labels, registry, known=[("/mcp", "modern")])
    histogram = Histogram("seconds", "How long.", labels, buckets=(0.5, 1.0), registry=other)
    counter = Counter("things", "How many.", labels, registry=other)
    counter.labels("/mcp", "modern")
    for route, era, seconds in (("/mcp", "legacy", 0.5), ("/a", "modern", 2.0), ("/mcp", "legacy", 0.7)):
        distribution.of(route, era).observe(seconds)
        counts.add(route, era)
        histogram.labels(route, era).observe(seconds)
        counter.labels(route, era).inc()
    without_created = [line for line in told(other).splitlines() if "_created" not in line]
    assert told(registry).splitlines() == without_created


async def test_the_loops_lag_is_what_a_sleep_takes_beyond_what_it_was_asked_to() -> None:
    registry, clock, pauses = CollectorRegistry(), Clock(), iter((LOOK_S, LOOK_S + 0.3, LOOK_S - 0.1))

    async def sleep(seconds: float) -> None:
        assert seconds == LOOK_S
        try:
            clock.pass_(next(pauses))
        except StopIteration:
            raise asyncio.CancelledError from None

    with pytest.raises(asyncio.CancelledError):
        await LoopLag(registry).watch(sleep, clock)
    lines = told(registry).splitlines()
    assert 'sidecar_loop_lag_seconds_bucket{le="0.005"} 2.0' in lines
    assert 'sidecar_loop_lag_seconds_bucket{le="0.25"} 2.0' in lines
    assert 'sidecar_loop_lag_seconds_bucket{le="0.5"} 3.0' in lines


@pytest.mark.parametrize(("outcomes", "last"), [([True], 1), ([True, False], 0), ([False, True], 1)])
def test_reloads_are_counted_and_the_last_one_tells_how_things_are(outcomes: list[bool], last: int) -> None:
    telemetry = Telemetry(io.BytesIO(), level="error", access=False)
    for ok in outcomes:
        telemetry.reloaded(ok)
    lines = telemetry.exposition().decode().splitlines()
    assert f"sidecar_config_last_reload_success {last}.0" in lines
    for outcome, ok in (("success", True), ("failure", False)):
        assert f'sidecar_config_reloads_total{{outcome="{outcome}"}} {outcomes.count(ok)}.0' in lines


def told(registry: CollectorRegistry) -> str:
    return re.sub(r"(seconds_created) .*", r"\1", generate_latest(registry).decode())


def note(telemetry: Telemetry, outcome: str, members: dict[str, Any]) -> None:
    telemetry.request(
        members, route="/mcp", outcome=outcome, era="legacy", seconds=0.1, upstream_seconds=None, quotas=()
    )
