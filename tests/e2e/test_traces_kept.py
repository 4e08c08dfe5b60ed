"""What becomes of spans: none is lost on its way, and none costs a request anything, whatever the collector does."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.issuer import DevIssuer
from sidecar.edge import tracing_client
from tests.certificates import Authority
from tests.collector import Collector
from tests.e2e.bed import AUDIENCE, JWT_ROUTE, Bed, credentials, merged, request, tool_call
from tests.e2e.conftest import Start, base_settings
from tests.mcp_server import Stream, StubUpstream
from tests.service import Service, spawned


@pytest.fixture
def silent() -> Any:
    """Return the address of a port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def traced(start: Start, endpoint: str, **settings: Any) -> Bed:
    return await start(tracing={"otlp_endpoint": endpoint}, **settings)


async def counted(bed: Bed, outcome: str) -> float:
    text = (await bed.admin.get("/metrics")).text
    (value,) = re.findall(rf'^sidecar_trace_spans_total{{outcome="{outcome}"}} (.+)$', text, re.MULTILINE)
    return float(value)


async def until_counted(bed: Bed, outcome: str, count: int) -> None:
    async with asyncio.timeout(10):
        while await counted(bed, outcome) < count:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.01)


async def stopped(bed: Bed) -> None:
    """Stop it, and see that it does not take longer than it may: the collector has 2 s for what waits."""
    await bed.client.aclose()
    await bed.admin.aclose()
    async with asyncio.timeout(5):
        await bed.sidecar.stop()


async def test_what_was_traced_last_is_sent_before_the_end(
    collector: Collector, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    bed = await traced(start, collector.url)
    for number in range(20):
        await bed.post(request("ping", id=number), token=bed.token())
    assert collector.spans == []
    await stopped(bed)
    assert len(collector.headers) == 1
    told = {(span.kind, span.attributes["jsonrpc.request.id"]) for span in collector.spans}
    assert told == {(kind, str(number)) for kind in ("server", "client") for number in range(20)}


async def test_what_is_under_way_when_the_process_ends_is_sent_too(
    collector: Collector, start: Start, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that has to end, and a call that is answered first."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    bed, endless, call = await traced(start, collector.url, drain={"requests_s": 5}), Stream(), Stream()
    for stream in (endless, call):
        stream.send(b"data: {}\n\n")
    headers = credentials(token=bed.token())
    async with AsyncExitStack() as stack:
        stub.answer = endless.answer
        listening = await stack.enter_async_context(bed.client.stream("GET", JWT_ROUTE, headers=headers))
        stub.answer = call.answer
        posted = bed.client.stream("POST", JWT_ROUTE, headers=headers, json=tool_call("look"))
        calling = await stack.enter_async_context(posted)
        stopping = asyncio.create_task(bed.sidecar.stop())
        assert await listening.aread() == b"data: {}\n\n"
        assert collector.spans == []
        call.end()
        assert await calling.aread() == b"data: {}\n\n"
        await stopping
    told = {(span.kind, span.name): span.attributes.get("mcp_sidecar.reason") for span in collector.spans}
    assert told == {
        ("server", "GET /mcp"): "shutdown",
        ("client", "GET /mcp"): None,
        ("server", "tools/call look"): None,
        ("client", "tools/call look"): None,
    }


async def test_other_settings_leave_the_exporter_as_it_is_and_lose_no_span(
    collector: Collector, start: Start, stub: StubUpstream
) -> None:
    bed, stream = await traced(start, collector.url), Stream()
    stub.answer = stream.answer
    stream.send(b"data: {}\n\n")
    headers = credentials(token=bed.token())
    async with bed.client.stream("POST", JWT_ROUTE, json=tool_call("look"), headers=headers) as answer:
        assert answer.status_code == 200
        old = bed.sidecar.config
        upstream = dataclasses.replace(old.upstream, url="http://127.0.0.1:9/mcp")
        await bed.sidecar.reload(dataclasses.replace(old, upstream=upstream))
        assert (await bed.post(tool_call("put"), token=bed.token())).status_code == 502
        stream.end()
        assert await answer.aread()
    spans = await collector.having(4)
    assert len({span.resource["service.instance.id"] for span in spans}) == 1
    ports = {span.name: span.attributes["server.port"] for span in spans if span.kind == "client"}
    assert ports == {"tools/call look": int(stub.url.split(":")[2].split("/")[0]), "tools/call put": 9}
    assert await counted(bed, "exported") == 4


@pytest.mark.parametrize("status", [400, 500])
async def test_a_collector_that_refuses_costs_no_request_and_is_told_of_once(
    collector: Collector, start: Start, status: int
) -> None:
    bed = await traced(start, collector.url)
    collector.status = status
    token = bed.token()
    for times in (1, 2):
        assert (await bed.post(request("ping"), token=token)).status_code == 200
        await collector.asked(times)
    await until_counted(bed, "failed", 4)
    (lost,) = [line for line in bed.records() if line["event"] == "traces_lost"]
    assert (lost["level"], lost["problem"]) == ("warning", f"the collector answered {status}")
    collector.status = 200
    await bed.post(request("ping"), token=token)
    await until_counted(bed, "exported", 2)
    assert [line["event"] for line in bed.records() if line["event"].startswith("traces_")] == [
        "traces_lost",
        "traces_recovered",
    ]


async def test_a_collector_that_is_busy_is_asked_again(
    collector: Collector, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing_client, "_PAUSES_S", (0.01, 0.01, 60.0))
    bed = await traced(start, collector.url)
    collector.status = 503
    await bed.post(request("ping"), token=bed.token())
    await collector.asked(2)
    collector.status = 200
    assert len(await collector.having(2)) == 2
    await until_counted(bed, "exported", 2)
    assert await counted(bed, "failed") == 0


async def test_a_redirect_is_not_followed(collector: Collector, start: Start) -> None:
    bed = await traced(start, collector.url)
    collector.status = 307
    await bed.post(request("ping"), token=bed.token())
    await until_counted(bed, "failed", 2)
    assert len(collector.headers) == 1


async def test_a_collector_that_answers_nothing_costs_no_request_and_no_memory(
    collector: Collector, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    bed = await traced(start, collector.url)
    collector.is_stuck = True
    token = bed.token()
    await bed.post(request("ping"), token=token)
    await collector.asked()
    for _ in range(20):
        assert (await bed.post(request("ping"), token=token)).status_code == 200
    assert await counted(bed, "dropped") == 30
    await stopped(bed)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_collector_that_only_takes_connections_costs_no_request_and_no_end(
    silent: str, start: Start, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    bed = await traced(start, silent.replace("http", scheme))
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
    await stopped(bed)


async def test_a_collector_that_is_away_costs_no_request_and_no_end(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    bed = await traced(start, "http://127.0.0.1:9")
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
    await stopped(bed)


async def test_a_collector_is_believed_by_the_certificates_that_the_environment_names(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    certificate = authority.certify().written(tmp_path, "collector")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with Collector().running(tls=(certificate["cert_file"], certificate["key_file"])) as collector:
        bed = await traced(start, collector.url)
        await bed.post(request("ping"), token=bed.token())
        await stopped(bed)
        assert collector.spans == []
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.written(tmp_path))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-team")
        bed = await traced(start, collector.url)
        await bed.post(request("ping"), token=bed.token())
        assert len(await collector.having(2)) == 2
        assert collector.headers[-1]["Authorization"] == "Bearer of-the-team"
        assert "of-the-team" not in bed.log.getvalue().decode()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("OTEL_TRACES_SAMPLER", "tracidratio", r"OTEL_TRACES_SAMPLER must be one of always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "10%", r"OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", r"OTEL_BSP_MAX_QUEUE_SIZE must be a number"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", r"OTEL_BSP_\* in the environment: .*batch"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret", r"OTEL_EXPORTER_OTLP_HEADERS must be (?!.*s3cret)"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=s3cret%0D%0Ab", r"OTEL_EXPORTER_OTLP_HEADERS must be (?!.*s3cret)"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere", r"OTEL_EXPORTER_OTLP_CERTIFICATE, .*No such file"),
    ],
)
async def test_a_variable_that_is_impossible_is_a_reason_not_to_start(
    start: Start, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=problem):
        await traced(start, "https://127.0.0.1:9")


@pytest.fixture
async def two_workers(
    collector: Collector, issuer: DevIssuer, stub: StubUpstream, redis_url: str, tmp_path: Path
) -> AsyncIterator[Service]:
    (tmp_path / "identity.key").write_text("aWRlbnRpdHktc2lnbmluZy1zZWNyZXQtb2YtdGVzdHM=")
    keys = [{"id": "test", "secret_file": str(tmp_path / "identity.key")}]
    settings = merged(
        base_settings(issuer.url, stub.url, tmp_path / "sidecar.db"),
        {
            "workers": 2,
            "store": {"url": redis_url},
            "identity": {"algorithm": "hmac-sha256", "keys": keys},
            "tracing": {"otlp_endpoint": collector.url},
        },
    )
    async with AsyncExitStack() as stack:
        service = await spawned(stack, tmp_path, settings, issuer.mint(sub="alice", aud=AUDIENCE, scope="mcp:full"))
        started = await service.read("started")
        await service.connect(stack, started["public"], started["admin"])
        yield service


async def test_each_of_several_workers_sends_its_own_and_together_they_count(
    collector: Collector, two_workers: Service
) -> None:
    answers = [await two_workers.ping() for _ in range(24)]
    assert {answer.status_code for answer in answers} == {200}
    spans = await collector.having(48)
    instances = {span.resource["service.instance.id"] for span in spans}
    async with asyncio.timeout(10):
        while await two_workers.total("sidecar_trace_spans_total") < 48:  # noqa: ASYNC110 - others count
            await asyncio.sleep(0.05)
    two_workers.process.terminate()
    await two_workers.read("stopped")
    lines = [line for line in two_workers.log if line["event"] == "request"]
    assert len(instances) == len({line["worker"] for line in lines}) == 2
    assert {line["trace_id"] for line in lines} == {span.trace_id for span in spans}
