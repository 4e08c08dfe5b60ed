"""One running sidecar under test, and the words to talk to it as a client would."""

from __future__ import annotations

import asyncio
import binascii
import io
import json
import re
import string
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import httpx
import yaml

from sidecar.app import Sidecar
from sidecar.demo.issuer import DevIssuer
from sidecar.denials import StoreUnavailable

PUBLIC_URL = "http://127.0.0.1:8080"
AUDIENCE = f"{PUBLIC_URL}/mcp"
JWT_ROUTE = "/mcp"
KEY_ROUTE = "/mcp/inspector"
KEYS = "/api/api-keys"
_MORE_TRIES = 4
MODERN = "2026-07-28"
LEGACY = "2025-06-18"
Era = Literal["legacy", "modern"]
HeaderLines = tuple[tuple[str, str], ...]

PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
}
"""RFC 9110 section 15 where Python 3.11 still has older words."""
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def request(method: str, params: Mapping[str, Any] | None = None, *, id: str | int = 1) -> dict[str, Any]:  # noqa: A002 - JSON-RPC's word
    """Build a JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": dict(params or {})}


def tool_call(name: str, *, id: str | int = 1, **arguments: Any) -> dict[str, Any]:  # noqa: A002 - JSON-RPC's word
    """Build a `tools/call`."""
    return request("tools/call", {"name": name, "arguments": arguments}, id=id)


def notification(method: str) -> dict[str, Any]:
    """Build a JSON-RPC notification."""
    return {"jsonrpc": "2.0", "method": method}


def modern(message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the message and the headers as MCP 2026-07-28 wants them."""
    params = dict(message.get("params") or {})
    params["_meta"] = {
        "io.modelcontextprotocol/clientCapabilities": {},
        **params.get("_meta", {}),
        "io.modelcontextprotocol/protocolVersion": MODERN,
    }
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": str(message.get("method"))}
    named_by = _NAMED_BY.get(str(message.get("method")))
    if named_by is not None and isinstance(params.get(named_by), str):
        headers["Mcp-Name"] = params[named_by]
    return {**message, "params": params}, headers


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came back on a raw socket."""

    status: int
    headers: HeaderLines
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for line, value in self.headers if line.lower() == name.lower()]


@dataclass
class Bed:
    """A running sidecar, its issuer, its log, and a client."""

    sidecar: Sidecar
    issuer: DevIssuer
    log: io.BytesIO
    client: httpx.AsyncClient
    admin: httpx.AsyncClient
    settings: Mapping[str, Any]
    """What its configuration says, as plain data."""
    secrets: set[str] = field(default_factory=set)
    """What must never be found in the log; searched for when the test ends."""

    async def key(self, *scopes: str, account: str = "alice", name: str = "test") -> str:
        """Make an API key as the operator would, who asks again where a Redis that has just begun takes its time."""
        for _ in range(_MORE_TRIES):
            with suppress(StoreUnavailable):
                return await self._made(account, name, scopes)
        return await self._made(account, name, scopes)

    async def _made(self, account: str, name: str, scopes: tuple[str, ...]) -> str:
        _, key = await self.sidecar.keyring.create(
            account, name, scopes=scopes or None, created_by="cli", origin="cli", granted=None
        )
        return self.secret(key.text)

    def token(
        self, scope: str | None = "mcp:full", *, sub: str = "alice", aud: str | list[str] = AUDIENCE, **claims: Any
    ) -> str:
        """Mint a token of the configured issuer."""
        return self.secret(self.issuer.mint(sub=sub, aud=aud, scope=scope, **claims))

    def secret(self, text: str) -> str:
        """Remember a credential whose secret part must not be logged."""
        self.secrets.add(text[16:] if re.fullmatch(r"mcp_\w{46}", text) else text.rpartition(".")[2] or text)
        return text

    async def post(
        self,
        message: Mapping[str, Any] | bytes,
        *,
        path: str = "",
        key: str | None = None,
        token: str | None = None,
        era: Era = "legacy",
        headers: HeaderLines = (),
    ) -> httpx.Response:
        """POST a message: with a key to the route for keys, else to the route for tokens."""
        lines = [("Accept", "application/json, text/event-stream"), *credentials(key=key, token=token), *headers]
        if era == "modern" and isinstance(message, Mapping):
            message, routing = modern(message)
            given = {name.lower() for name, _ in headers}
            lines += [line for line in routing.items() if line[0].lower() not in given]
        if not any(name.lower() == "content-type" for name, _ in headers):
            lines.append(("Content-Type", "application/json"))
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await self.client.post(path or (KEY_ROUTE if key else JWT_ROUTE), content=body, headers=lines)

    async def post_when_catalogued(self, message: Mapping[str, Any], **how: Any) -> httpx.Response:
        """POST what gets 503 for a while: a call whose class only the catalogue knows, until the first fetch."""
        async with asyncio.timeout(10):
            while (answer := await self.post(message, **how)).status_code == 503:  # noqa: ASYNC110 - a client can only ask
                await asyncio.sleep(0.02)
        return answer

    async def rest(self, method: str, path: str, token: str | None, document: Any = None) -> httpx.Response:
        """Make a REST call."""
        return await self.client.request(method, path, json=document, headers=credentials(token=token))

    async def raw(self, sent: bytes) -> RawAnswer:
        """Write these bytes on a new connection and read one answer, within 5 s."""
        host, _, port = self.sidecar.public_url_bound.removeprefix("http://").rpartition(":")
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(sent)
                return await _read_answer(reader, has_body=not sent.startswith(b"HEAD "))
            finally:
                writer.close()

    def records(self) -> list[dict[str, Any]]:
        """Return the log so far, one document a line."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def accesses(self) -> list[dict[str, Any]]:
        """Return the log's lines about requests."""
        return [record for record in self.records() if "duration_ms" in record]


def credentials(*, key: str | None = None, token: str | None = None) -> list[tuple[str, str]]:
    """Return the header lines that carry these credentials."""
    lines = [] if key is None else [("X-API-Key", key)]
    return lines if token is None else [*lines, ("Authorization", f"Bearer {token}")]


async def _read_answer(reader: asyncio.StreamReader, *, has_body: bool) -> RawAnswer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.strip().split("\r\n")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    return RawAnswer(int(status_line.split()[1]), headers, await reader.readexactly(length if has_body else 0))


def assert_refused(
    answer: httpx.Response | RawAnswer,
    status: int,
    error_type: str,
    *,
    id: str | int | None = 1,  # noqa: A002 - JSON-RPC's word
    code: int | None = None,
    text: str | None = None,
) -> dict[str, Any]:
    """Assert the exact body of a refusal on a JSON-RPC route; return its `data`."""
    if isinstance(answer, httpx.Response):
        answer = RawAnswer(answer.status_code, tuple(answer.headers.multi_items()), answer.content)
    assert answer.status == status, answer
    assert answer.values("Content-Type") == ["application/json"]
    body = json.loads(answer.body)
    data = body["error"]["data"]
    expected: dict[str, Any] = {"errorType": error_type, "message": data["message"] if text is None else text}
    assert isinstance(data["message"], str)
    assert data["message"]
    if status in (429, 503):
        (seconds,) = answer.values("Retry-After")
        assert int(seconds) >= 1
        if status == 429 or "retryAfter" in data:
            expected["retryAfter"] = int(seconds)
    error = {"code": status if code is None else code, "message": PHRASES[status], "data": expected}
    assert body == {"jsonrpc": "2.0", "id": id, "error": error}
    assert type(body["id"]) is type(id)
    return dict(data)


def with_other_secret(key: str, number: int) -> str:
    """Return a key with the same lookup id, another secret and a right checksum (contract: CRC-32 in base62)."""
    text = key[:16] + f"{number:028d}"
    rest, checksum = binascii.crc32(text.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        checksum = BASE62[digit] + checksum
    return text + checksum


def config_text(settings: Mapping[str, Any]) -> str:
    """Write settings as the YAML that an operator would."""
    return yaml.safe_dump(dict(settings), sort_keys=False)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with changes laid over them; lists are replaced."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result
