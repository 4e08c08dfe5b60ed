"""How patient the second port is."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from sidecar.edge import admin
from sidecar.edge.admin import Readiness, admin_port

HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


async def ready() -> Readiness:
    return Readiness("ready")


async def nothing_measured() -> bytes:
    return b""


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("begun", [b"", HEAD])
async def test_a_connection_on_which_no_request_comes_is_closed(
    monkeypatch: pytest.MonkeyPatch, begun: bytes, asked_before: bool
) -> None:
    monkeypatch.setattr(admin, "KEEP_ALIVE_S", 0.1)
    port = admin_port("127.0.0.1", 0, readiness=ready, metrics=nothing_measured, metrics_type="text/plain")
    async with port as url, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        if asked_before:
            writer.write(HEAD + b"\r\n")
            assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(begun)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
