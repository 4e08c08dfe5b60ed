"""What the metrics say of what really happened."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.edge.telemetry_sum import OF_GAUGES
from tests.certificates import LIFETIME, Authority
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, Bed, request, tool_call
from tests.e2e.conftest import Start
from tests.mcp_server import STUB_TOOLS, Stream, StubUpstream, reply
from tests.redis_server import RedisServer

LABEL = re.compile(r'(\w+)="([^"]*)"')


class Metrics:
    """One scrape. `value("name", label="value")` adds up the samples that have these labels."""

    def __init__(self, text: str) -> None:
        self.kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
        self.samples = [
            (series.partition("{")[0], dict(LABEL.findall(series)), float(value))
            for series, _, value in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        ]

    def value(self, name: str, **labels: str) -> float:
        found = [value for sample, given, value in self.samples if sample == name and labels.items() <= given.items()]
        assert found, f"{name}{labels} has no sample"
        return sum(found)

    def has(self, name: str) -> bool:
        return any(sample == name for sample, _, _ in self.samples)


async def scrape(bed: Bed) -> Metrics:
    return Metrics((await bed.admin.get("/metrics")).text)


async def until(bed: Bed, holds: Callable[[Metrics], bool]) -> Metrics:
    async with asyncio.timeout(10):
        while not holds(found := await scrape(bed)):  # noqa: ASYNC110 - a scraper can only ask
            await asyncio.sleep(0.02)
        return found


async def slowly(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    await asyncio.sleep(0.2)
    return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {}})


async def test_requests_are_counted_and_timed_by_route_outcome_and_era(start: Start) -> None:
    bed = await start()
    key = await bed.key("mcp:full")
    for _ in range(3):
        await bed.post(request("ping"), token=bed.token())
    await bed.post(tool_call("put"), key=key, era="modern")
    await bed.post(tool_call("put"), token=bed.token("mcp:read"))
    found = await scrape(bed)
    forwarded = {"route": JWT_ROUTE, "outcome": "forwarded", "era": "legacy"}
    assert found.value("sidecar_requests_total", **forwarded) == 3
    assert found.value("sidecar_route_seconds_count", **forwarded) == 3
    assert found.value("sidecar_requests_total", route=KEY_ROUTE, outcome="forwarded", era="modern") == 1
    assert found.value("sidecar_requests_total", outcome="insufficient_scope") == 1
    assert found.value("sidecar_request_seconds_count") == 5
    assert found.value("sidecar_request_seconds_bucket", le="+Inf") == 5
    assert found.value("sidecar_route_seconds_sum") == pytest.approx(found.value("sidecar_request_seconds_sum"))
    assert found.value("sidecar_own_seconds_count", route=JWT_ROUTE) == 4
    assert found.value("sidecar_upstream_answers_total", status="2xx") == 4


async def test_the_time_of_the_upstream_and_of_a_slow_client_is_not_ours(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    stub.answer = slowly

    async def dripping() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc":"2.0",'
        await asyncio.sleep(0.2)
        yield b'"id":1,"method":"ping"}'

    headers = {"Authorization": f"Bearer {bed.token()}", "Content-Type": "application/json"}
    assert (await bed.client.post(JWT_ROUTE, content=dripping(), headers=headers)).status_code == 200
    found = await scrape(bed)
    assert found.value("sidecar_upstream_seconds_sum") >= 0.19
    assert found.value("sidecar_request_seconds_sum") >= 0.38
    assert found.value("sidecar_own_seconds_sum") <= found.value("sidecar_request_seconds_sum") - 0.38


@pytest.mark.parametrize(
    ("answer", "counted", "outcome"),
    [
        (reply(500), "5xx", "forwarded"),
        (reply(404), "4xx", "forwarded"),
        (reply(401), "4xx", "upstream_unavailable"),
        (slowly, "none", "upstream_timeout"),
    ],
)
async def test_the_upstreams_answers_are_counted_by_its_own_status(
    start: Start, stub: StubUpstream, answer: Any, counted: str, outcome: str
) -> None:
    bed = await start(upstream={"response_timeout_s": 0.1})
    stub.answer = answer
    await bed.post(request("ping"), token=bed.token())
    found = await scrape(bed)
    assert found.value("sidecar_upstream_answers_total", status=counted) == 1
    assert found.value("sidecar_upstream_seconds_count") == 1, "one that never came has taken its time all the same"
    assert found.value("sidecar_requests_total", outcome=outcome) == 1


async def test_what_an_impatient_client_waited_for_counts_as_the_upstreams_time(
    start: Start, stub: StubUpstream
) -> None:
    bed, asked = await start(), asyncio.Event()

    async def silent(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    stub.answer = silent
    asking = asyncio.ensure_future(bed.post(request("ping"), token=bed.token()))
    await asked.wait()
    asking.cancel()
    found = await until(bed, lambda found: found.has("sidecar_upstream_answers_total"))
    assert found.value("sidecar_upstream_answers_total", status="none") == 1


async def test_how_near_requests_come_to_the_tightest_limit_is_told(start: Start) -> None:
    policies = [
        {"name": "wide", "per": "account", "requests": 100, "window_s": 60},
        {"name": "tight", "per": "account", "requests": 4, "window_s": 60},
    ]
    bed = await start(limits={"policies": policies})
    for _ in range(5):
        await bed.post(request("ping"), token=bed.token())
    found = await scrape(bed)
    used = {le: found.value("sidecar_limit_used_ratio_bucket", policy="tight", le=le) for le in ("0.25", "0.75", "1.0")}
    assert used == {"0.25": 1, "0.75": 3, "1.0": 5}
    assert {given["policy"] for name, given, _ in found.samples if name == "sidecar_limit_used_ratio_count"} == {
        "tight"
    }
    assert found.value("sidecar_limit_decisions_total", policy="tight", decision="refused") == 1
    assert found.value("sidecar_limit_decisions_total", policy="wide", decision="allowed") == 4


async def test_refusals_by_the_limits_of_failures_and_streams_are_counted(start: Start, stub: StubUpstream) -> None:
    bed = await start(limits={"failed_auth": {"requests": 1, "window_s": 60}, "streams": {"per_credential": 1}})
    stream = Stream()
    stub.answer = stream.answer
    stream.send(b"data: {}\n\n")
    headers = {"Authorization": f"Bearer {bed.token()}", "Accept": "text/event-stream"}
    async with bed.client.stream("GET", JWT_ROUTE, headers=headers) as answer:
        await anext(answer.aiter_raw())
        assert (await bed.client.get(JWT_ROUTE, headers=headers)).status_code == 429
    for status in (401, 429):
        assert (await bed.post(request("ping"), token=bed.secret("no.token-at-all"))).status_code == status
    found = await scrape(bed)
    assert found.value("sidecar_limit_decisions_total", policy="streams", decision="refused") == 1
    assert found.value("sidecar_limit_decisions_total", policy="failed_auth", decision="refused") == 1
    assert found.value("sidecar_auth_failures_total") == 1


async def test_whether_what_is_remembered_of_credentials_serves_is_told(start: Start) -> None:
    bed = await start()
    key, token = await bed.key("mcp:full"), bed.token()
    for _ in range(3):
        await bed.post(request("ping"), key=key)
        await bed.post(request("ping"), token=token)
    found = await scrape(bed)
    for cache in ("key", "token"):
        counts = {
            result: found.value("sidecar_cache_lookups_total", cache=cache, result=result) for result in ("hit", "miss")
        }
        assert counts == {"hit": 2, "miss": 1}, cache


async def test_how_an_issuers_keys_are_doing_is_told(start: Start) -> None:
    gone = "http://127.0.0.1:9"
    issuer_url = (await start()).issuer.url
    issuers = [{"issuer": issuer_url, "account_prefix": "a:"}, {"issuer": gone, "account_prefix": "b:"}]
    bed = await start(jwt={"issuers": issuers})
    await bed.post(request("ping"), token=bed.token())
    found = await until(bed, lambda found: found.value("sidecar_key_set_fetches_total", issuer=gone) >= 1)
    assert found.value("sidecar_key_set_fetches_total", issuer=issuer_url, outcome="success") == 1
    assert found.value("sidecar_key_set_fetches_total", issuer=gone, outcome="failure") >= 1
    assert found.value("sidecar_key_set_usable_keys", issuer=issuer_url) == 1
    assert found.value("sidecar_key_set_usable_keys", issuer=gone) == 0
    assert 0 <= found.value("sidecar_key_set_age_seconds", issuer=issuer_url) < 60
    assert found.value("sidecar_key_set_stale_seconds", issuer=issuer_url) == 0
    ages = [given for name, given, _ in found.samples if name == "sidecar_key_set_age_seconds"]
    assert ages == [{"issuer": issuer_url}], "what was never fetched has no age"


async def test_the_way_to_each_store_is_timed(start: Start) -> None:
    for store in ("embedded", "redis"):
        bed = await start(store)
        await bed.key("mcp:read")
        await bed.post(request("ping"), token=bed.token())
        assert (await scrape(bed)).value("sidecar_store_seconds_count") >= 1, store


async def test_a_store_that_does_not_answer_is_timed_too(start: Start, redis_server: RedisServer) -> None:
    bed = await start("redis")
    await bed.post(request("ping"), token=bed.token())
    redis_server.pause()
    await bed.post(request("ping"), token=bed.token())
    found = await scrape(bed)
    assert found.value("sidecar_store_seconds_count") > found.value("sidecar_store_seconds_bucket", le="0.05")
    assert found.value("sidecar_store_up") == 0


async def test_a_store_that_is_back_is_told_of_though_no_requests_come(start: Start, redis_server: RedisServer) -> None:
    bed = await start("redis")
    redis_server.pause()
    await bed.post(request("ping"), token=bed.token())
    assert (await scrape(bed)).value("sidecar_store_up") == 0
    redis_server.resume()
    await until(bed, lambda found: found.value("sidecar_store_up") == 1)


async def test_an_event_loop_that_is_held_up_is_told_of(start: Start) -> None:
    bed = await start()
    await until(bed, lambda found: found.value("sidecar_loop_lag_seconds_count") >= 1)
    time.sleep(0.6)  # noqa: ASYNC251 - this is what must not happen
    found = await until(bed, lambda found: found.value("sidecar_loop_lag_seconds_sum") >= 0.25)
    late = found.value("sidecar_loop_lag_seconds_count") - found.value("sidecar_loop_lag_seconds_bucket", le="0.25")
    assert late >= 1


async def test_when_the_certificate_expires_that_clients_are_shown_is_told(start: Start, tmp_path: Path) -> None:
    plain, bed = await start(), await start(listen={"tls": Authority().certify().written(tmp_path, "sidecar")})
    name = "sidecar_tls_certificate_expiry_timestamp_seconds"
    assert not (await scrape(plain)).has(name)
    assert 0 < (await scrape(bed)).value(name) - time.time() <= LIFETIME.total_seconds()


async def test_the_age_of_the_catalogue_and_its_changes_are_told(
    start: Start, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = await start(catalogue={"refresh_s": 1})
    found = await until(bed, lambda found: found.has("sidecar_catalogue_age_seconds"))
    assert 0 <= found.value("sidecar_catalogue_age_seconds") < 60
    assert found.value("sidecar_catalogue_changes_total") == 0
    assert found.value("sidecar_catalogue_tools") == len(STUB_TOOLS)
    monkeypatch.setitem(STUB_TOOLS[0], "annotations", {"readOnlyHint": False})
    found = await until(bed, lambda found: found.value("sidecar_catalogue_changes_total") == 1)
    assert found.value("sidecar_catalogue_fetches_total", outcome="success") >= 2
    assert found.value("sidecar_catalogue_fetches_total", outcome="failure") == 0


async def test_an_upstream_that_tells_no_tools_is_counted_and_has_no_catalogue_to_grow_old(start: Start) -> None:
    bed = await start(upstream={"url": "http://127.0.0.1:9/mcp"})
    found = await until(bed, lambda found: found.value("sidecar_catalogue_fetches_total", outcome="failure") >= 1)
    assert not found.has("sidecar_catalogue_age_seconds")


async def test_clients_are_counted_while_they_are_connected(start: Start) -> None:
    bed = await start()
    await bed.post(request("ping"), token=bed.token())
    found = await scrape(bed)
    assert 1 <= found.value("sidecar_open_connections") < found.value("sidecar_max_connections")


async def test_the_drain_is_told_while_requests_are_still_taken(start: Start) -> None:
    bed = await start(drain={"delay_s": 1})
    assert (await scrape(bed)).value("sidecar_draining") == 0
    stopping = asyncio.ensure_future(bed.sidecar.stop(delayed=True))
    await asyncio.sleep(0)
    assert (await scrape(bed)).value("sidecar_draining") == 1
    await stopping


async def test_the_build_is_told_and_what_was_never_reloaded_has_not_failed_to(start: Start) -> None:
    found = await scrape(await start())
    assert found.value("sidecar_build_info") == 1
    assert found.value("sidecar_config_last_reload_success") == 1
    assert found.value("sidecar_config_reloads_total", outcome="failure") == 0


async def test_a_fault_of_ours_is_counted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = await start()

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sidecar.policy.jsonrpc.action", broken)
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 500
    assert (await scrape(bed)).value("sidecar_faults_total") == 1


async def test_every_metric_is_explained_to_who_runs_it(start: Start) -> None:
    explained = re.findall(r"^\| `(\w+)`", (Path(__file__).parents[2] / "deploy/metrics.md").read_text(), re.MULTILINE)
    ours = {name for name in (await scrape(await start())).kinds if name.startswith("sidecar_")}
    assert {name for name in ours if not name.endswith("_created")} - set(explained) == set()


async def test_of_each_gauge_it_is_stated_what_several_processes_have_together(start: Start, tmp_path: Path) -> None:
    bed = await start(audit={"file": str(tmp_path / "audit.log")})
    await until(bed, lambda found: found.has("sidecar_catalogue_age_seconds"))
    gauges = {name for name, kind in (await scrape(bed)).kinds.items() if kind == "gauge"}
    assert {name for name in gauges if not name.endswith("_created")} <= set(OF_GAUGES)
