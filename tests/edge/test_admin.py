"""How patient the second port is, and how little it tells."""

from __future__ import annotations

import asyncio
import io
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from sidecar.edge import admin
from sidecar.edge.admin import Readiness, admin_port
from sidecar.edge.telemetry import Telemetry

HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


async def ready() -> Readiness:
    return Readiness("ready")


async def nothing_measured() -> bytes:
    return b""


def unexpected(fault: BaseException) -> None:
    raise AssertionError from fault


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("begun", [b"", HEAD])
async def test_a_connection_on_which_no_request_comes_is_closed(
    monkeypatch: pytest.MonkeyPatch, begun: bytes, asked_before: bool
) -> None:
    monkeypatch.setattr(admin, "KEEP_ALIVE_S", 0.1)
    port = admin_port(
        "127.0.0.1", 0, readiness=ready, metrics=nothing_measured, metrics_type="text/plain", report_fault=unexpected
    )
    async with port as url, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        if asked_before:
            writer.write(HEAD + b"\r\n")
            assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(begun)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


SECRET = "redis://:hunter2@store"


async def asked(url: str, sent: bytes) -> bytes:
    """Return all that comes back on a connection until it is closed."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        writer.write(sent)
        answer = await reader.read()
        writer.close()
        return answer


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
async def test_a_fault_of_ours_is_a_500_without_a_word_and_one_line_without_its_text(
    path: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks() -> Any:
        raise TimeoutError(SECRET)

    log = io.BytesIO()
    telemetry = Telemetry(log, level="info", access=True)
    port = admin_port(
        "127.0.0.1", 0, readiness=breaks, metrics=breaks, metrics_type="text/plain", report_fault=telemetry.fault
    )
    async with port as url:
        answer = await asked(url, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert body == b""
    [told] = map(json.loads, log.getvalue().splitlines())
    assert (told["event"], told["level"]) == ("fault", "error")
    assert told["problem"].startswith("TimeoutError at breaks:")
    assert SECRET not in f"{log.getvalue()!r}{answer!r}{capfd.readouterr()}{caplog.text}"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"Connection: close\r\n\r\n", 200),
        (b"HEAD /readyz?verbose HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        (b"GET /livez/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /%6civez HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://x/livez HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + HEAD + b"\r\n", 404),
        (b"GET /livez HTTP/1.1\r\n\0" + SECRET.encode() + b"\r\n\r\n", 400),
        (b"\x16\x03\x01" + SECRET.encode() + b"\r\n\r\n", 400),
    ],
)
async def test_every_answer_names_us_alone_and_a_refusal_says_nothing_and_closes(
    sent: bytes, status: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    port = admin_port(
        "127.0.0.1", 0, readiness=ready, metrics=nothing_measured, metrics_type="text/plain", report_fault=unexpected
    )
    async with port as url:
        answer = await asked(url, sent)
    assert re.match(rb"HTTP/1\.[01] %d " % status, answer)
    assert answer.count(b"HTTP/1.") == 1
    assert answer.count(b"\r\nServer: sidecar\r\n") == 1
    assert b"ython" not in answer
    assert SECRET not in f"{answer!r}{capfd.readouterr()}{caplog.text}"
    if status >= 400:
        assert answer.endswith(b"\r\n\r\n")
