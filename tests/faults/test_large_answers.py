"""Answers far larger than what may be held: they pass whole, and leave nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
from pathlib import Path

import pytest
from aiohttp import web

from tests.e2e.bed import JWT_ROUTE, request
from tests.faults.conftest import Serve
from tests.mcp_server import StubUpstream

MIB = 1024 * 1024
SIZE = 200 * MIB
GROWTH = 16 * MIB
"""What buffers and the allocator may take, however long the answer is."""
PATIENCE_S = 120.0


class Blocks:
    """Sends blocks of noise, each different from the one before, and remembers their digest."""

    def __init__(self, *, announces_length: bool) -> None:
        self._noise = os.urandom(MIB - 8)
        self._announces_length = announces_length
        self.sent = hashlib.sha256()

    async def answer(self, asked: web.BaseRequest, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        if self._announces_length:
            response.content_length = SIZE
        await response.prepare(asked)
        for number in range(SIZE // MIB):
            block = number.to_bytes(8, "big") + self._noise
            self.sent.update(block)
            await response.write(block)
        return response


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize("announces_length", [True, False], ids=["length", "chunks"])
async def test_an_answer_of_two_hundred_megabytes_passes_whole_and_takes_no_memory(
    serve: Serve, stub: StubUpstream, announces_length: bool
) -> None:
    service, blocks = await serve(), Blocks(announces_length=announces_length)
    pid, received, count, most = service.process.pid, hashlib.sha256(), 0, 0
    assert (await service.ping()).status_code == 200
    before = resident_bytes(pid)
    stub.answer = blocks.answer
    async with (
        asyncio.timeout(PATIENCE_S),
        service.client.stream("POST", JWT_ROUTE, json=request("ping"), headers=service.credentials) as answer,
    ):
        assert answer.headers.get("Content-Length") == (str(SIZE) if announces_length else None)
        async for piece in answer.aiter_raw():
            received.update(piece)
            count += len(piece)
            most = max(most, resident_bytes(pid))
    assert (count, received.digest()) == (SIZE, blocks.sent.digest())
    assert most - before < GROWTH
