"""A program: a proxy of aiohttp's server and client. Run as ``python -m … PORT ORIGIN``."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import aiohttp
import uvloop
from aiohttp import web

_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length"}
)
_SMALL_BYTES: Final = 65_536


class Proxy:
    """Passes requests on to one origin."""

    def __init__(self, origin: str, client: aiohttp.ClientSession) -> None:
        self._origin = origin
        self._client = client

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass on a request and its answer: a small one in one piece, any other as it arrives."""
        headers = [line for line in request.headers.items() if line[0].lower() not in _HOP_BY_HOP]
        body = await request.read()
        url = self._origin + request.path_qs
        async with self._client.request(request.method, url, headers=headers, data=body or None) as answer:
            lines = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            if 0 <= (answer.content_length or -1) <= _SMALL_BYTES:
                return web.Response(status=answer.status, headers=lines, body=await answer.read())
            response = web.StreamResponse(status=answer.status, headers=lines)
            response.content_length = answer.content_length
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


async def _serve(port: int, origin: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as client:
        server = web.Server(Proxy(origin, client).handle, access_log=None)
        runner = web.ServerRunner(server)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
