"""Where key sets come from: a file, an address, or the address that an issuer's metadata names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp

from sidecar import regular_file
from sidecar.policy import issuer_metadata, keysets
from sidecar.policy.keysets import Keys, KeySetError

Loaded = tuple[Keys, tuple[str, ...], float]
"""The usable keys, what was left out and why, and for how many seconds that is fresh."""
Load = Callable[[], Awaitable[Loaded]]
"""Fetches once, for as long as it takes; raises KeySetError and nothing else."""

_FILE_LIFETIME_S: Final = 10


class FileLoader:
    """A key set in a file, which somebody else may replace."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Loaded:
        return (*keysets.read(await asyncio.to_thread(self._read)), _FILE_LIFETIME_S)

    def _read(self) -> bytes:
        try:
            return regular_file.read(self._path, keysets.MAX_DOCUMENT_BYTES)
        except OSError as error:
            raise KeySetError(f"{self._path}: {error.strerror}") from error


class HttpLoader:
    """A key set at an address: the configured one, or the one that the issuer's metadata names."""

    def __init__(self, http: Http, issuer: str, url: str | None) -> None:
        self._http = http
        self._issuer = issuer
        self._configured = url
        self._discovered: str | None = None

    async def load(self) -> Loaded:
        url = self._configured or self._discovered or await self._discover()
        self._discovered = None  # kept only while it serves: after a failure the metadata is asked again
        document, cache_control = await self._http.get(url)
        keys, left_out = keysets.read(document)
        self._discovered = url
        return keys, left_out, issuer_metadata.lifetime_s(cache_control)

    async def _discover(self) -> str:
        failures = []
        for url in issuer_metadata.urls(self._issuer):
            try:
                document, _ = await self._http.get(url)
                return issuer_metadata.jwks_uri(document, self._issuer)
            except KeySetError as error:
                failures.append(str(error))
        raise KeySetError("; ".join(failures))


class Http:
    """GET, and nothing that a hostile answer could make more of it: no redirects, cookies, proxies or encodings."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),  # the caller's own covers all steps of one fetch
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, url: str) -> tuple[bytes, str | None]:
        """Return the body of a 200 and its ``Cache-Control``."""
        if self._session is None:
            raise KeySetError("not started, or closed")
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise KeySetError(f"{_shown(url)} answered {response.status}")
                return await _bounded_body(response, url), response.headers.get("Cache-Control")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KeySetError(f"{_shown(url)}: {type(error).__name__}: {error}".replace(url, _shown(url))) from error


def _shown(url: str) -> str:
    """Leave out the query, which may hold a secret."""
    return url.partition("?")[0]


async def _bounded_body(response: aiohttp.ClientResponse, url: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > keysets.MAX_DOCUMENT_BYTES:
            raise KeySetError(f"{_shown(url)}: larger than {keysets.MAX_DOCUMENT_BYTES} bytes")
    return bytes(body)
