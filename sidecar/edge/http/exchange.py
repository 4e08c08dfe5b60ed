"""One request as the web server sees it: its facts, its body, and what is known of it for the log."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable
from typing import Final

from aiohttp import web

from sidecar import randomness
from sidecar.denials import Denial, InvalidRequest, Overloaded, PayloadTooLarge, RequestTimeout
from sidecar.edge.http.holding import HeldBytes
from sidecar.edge.http.request import Request
from sidecar.edge.http.response import Response
from sidecar.model import JsonRpcId, MessageKind, Progress, RequestFacts
from sidecar.policy import addresses, headers, jsonrpc, quotas
from sidecar.policy.addresses import Https, IpNetwork
from sidecar.policy.redaction import redacted
from sidecar.ports import Span

_REQUEST_IDS: Final = randomness.numbers()
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GLANCE_BYTES: Final = 65_536
_GLANCE_S: Final = 0.25


class Exchange:
    """A request on its way through the server."""

    __slots__ = (
        "_body_taken",
        "_held",
        "_is_doubtful",
        "_room",
        "body_s",
        "denial",
        "ended_by",
        "facts",
        "own_s",
        "progress",
        "request",
        "spans",
        "started",
        "streamed_status",
        "upstream_s",
        "upstream_status",
    )

    def __init__(self, request: Request, trusted_proxies: tuple[IpNetwork, ...], https: Https, room: HeldBytes) -> None:
        self.request = request
        self._room = room
        self._held = 0
        self.facts = _facts(request, trusted_proxies, https)
        self.progress = Progress()
        self.started = time.perf_counter()
        self.own_s: float | None = None
        """From its head to its being sent upstream; None when it never was."""
        self.body_s = 0.0
        """How long of that we waited for the client's body."""
        self.upstream_s: float | None = None
        self.upstream_status: int | None = None
        self.ended_by: str | None = None
        """Why we ended a stream that would have gone on."""
        self.denial: Denial | None = None
        """The refusal that was the answer, or the first that took the place of a message in one that had begun."""
        self.streamed_status: int | None = None
        """The status of an event stream that has begun. Many clients leave it once they have what they asked for."""
        self.spans: tuple[Span, ...] = ()
        """Of the request, and of the upstream's leg where it was forwarded; empty where nothing is traced."""
        self._body_taken = False
        self._is_doubtful = False

    def let_go(self) -> None:
        """Be done. A refusal holds the frames that it was raised in, and they hold this exchange and its body."""
        self.hold(0)
        if self.denial is not None:
            self.denial.__traceback__ = self.denial.__context__ = self.denial.__cause__ = None

    async def body(self, max_body_bytes: int, timeout_s: float) -> bytes:
        """Read the whole body.

        Raises:
            Overloaded: too much is held of others.
            PayloadTooLarge: it is longer than `max_body_bytes`, or says so; what is left stays unread.
            RequestTimeout: it took longer than `timeout_s`.
        """
        declared = self._declared_bytes
        if declared > max_body_bytes:
            raise PayloadTooLarge("body_too_large", detail=f"{declared} bytes announced")
        expected = self.facts.headers.get("expect")
        if expected is not None and expected.lower() == "100-continue":
            self.request.invite_body()
        self._body_taken = True
        if self.request.has_arrived:
            body = self._read_now(max_body_bytes)
        else:
            try:
                async with asyncio.timeout(timeout_s):
                    body = await self._read_late(max_body_bytes)
            except TimeoutError:
                raise RequestTimeout("body_timeout") from None
        if body is None:
            raise PayloadTooLarge("body_too_large")
        return body

    async def json_body(self, max_body_bytes: int, timeout_s: float) -> bytes | None:
        """Read the body of a POST that must be JSON; None for the methods that have none."""
        if self.facts.method != "POST":
            self.require_no_body()
            return None
        headers.require_json(self.facts.headers)
        return await self.body(max_body_bytes, timeout_s)

    def asked_for(self) -> dict[str, str | None]:
        """Return the method (of JSON-RPC, or else of HTTP) and the tool, as they may be written down."""
        action = self.progress.action
        tool = None if action is None else action.tool
        return {
            "method": redacted((action.method if action is not None else "") or self.facts.method),
            "tool": None if tool is None else redacted(tool),
        }

    def require_no_body(self) -> None:
        """Raise InvalidRequest when a body came with a method that has none."""
        if self.request.has_body:
            raise InvalidRequest("unexpected_body", "This method takes no body")

    def require_plain_framing(self) -> None:
        """Raise InvalidRequest when it is open to doubt where this request ends; the connection then ends with it."""
        self._is_doubtful = True
        headers.require_plain_framing(self.facts.headers, self.request.version)
        self._is_doubtful = False

    def send(self, response: Response) -> Awaitable[None]:
        """Send a whole answer: the connection's last where bytes of the request were left unread."""
        self.request.closes |= self.unread
        return self.request.send(response)

    def abandon(self) -> None:
        """Break off the client's connection, for a client that does not read."""
        self.request.abandon()

    def hold(self, size: int) -> None:
        """Take note that so many bytes of a body are held for this request.

        Raises:
            Overloaded: there is no room for them beside those of others.
        """
        self._held = self._room.change(self._held, size)

    async def identify_message(self) -> tuple[JsonRpcId | None, MessageKind | None]:
        """Return the id that a refusal carries, and the kind of message that was refused, as far as they are known.

        When the body was not read yet, at most 64 KiB of it are, for at most 250 ms, and for this alone.
        """
        if not self._body_taken:
            self.progress.message_id, self.progress.message_kind = jsonrpc.glance(await self._glance())
        return self.progress.message_id, self.progress.message_kind

    @property
    def is_endless(self) -> bool:
        """Whether the answer may go on for ever."""
        action = self.progress.action
        return action is not None and quotas.is_endless(action)

    @property
    def valid_for_s(self) -> float:
        """How long the credential is still good for, leeway included."""
        principal = self.progress.principal
        return 0.0 if principal is None else max(0.0, principal.expires_at - time.time())

    @property
    def unread(self) -> bool:
        """Whether bytes of the body were left unread, or may have been: the connection is to serve no other request."""
        return self._is_doubtful or not self.request.is_read

    @property
    def _declared_bytes(self) -> int:
        """What `Content-Length` says, which the parser has checked; 0 where there is none."""
        declared = self.facts.headers.get("content-length", "0")
        return int(declared) if declared.isascii() and declared.isdecimal() else 0

    async def _glance(self) -> bytes:
        if self.facts.method != "POST" or "expect" in self.facts.headers or self._is_doubtful:
            return b""
        if self._declared_bytes > _GLANCE_BYTES:
            return b""
        self._body_taken = True
        try:
            async with asyncio.timeout(_GLANCE_S):
                return await self._read_late(_GLANCE_BYTES) or b""
        except (TimeoutError, InvalidRequest, Overloaded):
            return b""

    def _read_now(self, max_bytes: int) -> bytes | None:
        """Return a body that has arrived, or None if it is longer than allowed. As with most, nobody has to wait."""
        try:
            body = self.request.read_now()
        except web.RequestPayloadError:
            raise InvalidRequest("body_framing", "The request body's framing is broken") from None
        self.hold(len(body))
        return body if len(body) <= max_bytes else None

    async def _read_late(self, max_bytes: int) -> bytes | None:
        """Return a body that is still on its way, and note for how long."""
        began = time.perf_counter()
        try:
            return await self._read(max_bytes)
        finally:
            self.body_s += time.perf_counter() - began

    async def _read(self, max_bytes: int) -> bytes | None:
        """Return the body, or None as soon as it is longer than allowed."""
        request = self.request
        chunks, size = [], 0
        try:
            while size <= max_bytes and not request.is_read:
                chunk = await request.read_some()
                chunks.append(chunk)
                size += len(chunk)
                self.hold(size)
        except web.RequestPayloadError:
            raise InvalidRequest("body_framing", "The request body's framing is broken") from None
        return b"".join(chunks) if size <= max_bytes else None


def _facts(request: Request, trusted_proxies: tuple[IpNetwork, ...], https: Https) -> RequestFacts:
    collected, repeated = headers.collect(request.take_headers())
    path, mark, query = request.target.partition("?")
    presented = collected.get("x-request-id")
    chosen = presented if presented is not None and _is_request_id(presented) else next(_REQUEST_IDS)
    return RequestFacts(
        request.method,
        path,
        query if mark else None,
        collected,
        repeated,
        addresses.client_address(request.remote, collected.get("x-forwarded-for"), trusted_proxies),
        chosen,
        jsonrpc.era_of(collected.get("mcp-protocol-version")),
        addresses.is_secure(
            https,
            request.remote,
            collected.get("x-forwarded-proto"),
            trusted_proxies,
            is_encrypted=request.is_encrypted,
        ),
    )


def _is_request_id(presented: str) -> bool:
    """Tell whether it will do; a credential would go from there into logs, here and upstream."""
    return _REQUEST_ID.fullmatch(presented) is not None and redacted(presented) == presented
