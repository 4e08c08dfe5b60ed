"""What several processes count together."""

from __future__ import annotations

import io

from sidecar.denials import StoreUnavailable
from sidecar.edge.admin import Readiness
from sidecar.edge.telemetry import Family, Telemetry
from sidecar.edge.telemetry_sum import exposition, lasting


def counted(*requests: str, tools: int = 0, streams: int = 0, store_up: bool = True) -> list[Family]:
    telemetry = Telemetry(io.BytesIO(), level="error", access=False)
    for outcome in requests:
        telemetry.request(
            {}, route="/mcp", outcome=outcome, era="modern", seconds=0.2, upstream_seconds=None, quotas=()
        )
    for _ in range(streams):
        telemetry.stream_opened("/mcp")
    telemetry.catalogue(tools, "")
    telemetry.store(None if store_up else StoreUnavailable("store_unavailable"))
    return telemetry.families()


def series(*processes: list[Family]) -> dict[str, float]:
    lines = exposition(processes).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_counters_histograms_and_open_streams_are_added() -> None:
    found = series(counted("forwarded", "forwarded", streams=1), counted("forwarded", "not_found", streams=2))
    assert found['sidecar_requests_total{era="modern",outcome="forwarded",route="/mcp"}'] == 3
    assert found['sidecar_requests_total{era="modern",outcome="not_found",route="/mcp"}'] == 1
    assert found["sidecar_request_seconds_count"] == found['sidecar_request_seconds_bucket{le="+Inf"}'] == 4
    assert found['sidecar_request_seconds_bucket{le="0.1"}'] == 0
    assert found['sidecar_open_streams{route="/mcp"}'] == 3


def test_what_all_see_alike_is_not_added() -> None:
    found = series(counted(tools=5), counted(tools=5), counted(tools=0, store_up=False))
    assert found["sidecar_catalogue_tools"] == 5
    assert found["sidecar_store_up"] == 0
    assert found["process_start_time_seconds"] == series(counted())["process_start_time_seconds"]


def test_of_a_process_that_ended_only_what_it_counted_remains() -> None:
    ended = lasting([counted("forwarded", streams=3, tools=9), counted("forwarded", store_up=False)])
    found = series(ended, counted("forwarded", tools=5))
    assert found['sidecar_requests_total{era="modern",outcome="forwarded",route="/mcp"}'] == 3
    assert found["sidecar_request_seconds_count"] == 3
    assert 'sidecar_open_streams{route="/mcp"}' not in found
    assert found["sidecar_catalogue_tools"] == 5
    assert found["sidecar_store_up"] == 1


def test_a_sum_over_one_process_is_what_that_process_says_but_for_the_beginnings_of_series() -> None:
    telemetry = Telemetry(io.BytesIO(), level="error", access=False)
    telemetry.auth_failure("expired")
    told = [line for line in telemetry.exposition().decode().splitlines() if "_created" not in line]
    summed = exposition([telemetry.families()]).decode().splitlines()
    assert [line for line in summed if "process_" not in line] == [line for line in told if "process_" not in line]


def test_of_several_processes_the_worst_status_and_the_worst_of_each_check_holds() -> None:
    well = Readiness("ready", {"store": "ok", "issuers": {"a": "ok", "b": "ok"}, "upstream": "ok"})
    ill = Readiness("degraded", {"store": "ok", "issuers": {"a": "ok", "b": "unavailable"}, "upstream": "ok"})
    assert Readiness.of_all([well, ill, well]) == ill
    assert Readiness.of_all([well, Readiness("not_ready")]) == Readiness("not_ready", well.checks)
    assert Readiness.of_all([ill, Readiness("draining")]).http_status == 503
