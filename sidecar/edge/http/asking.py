"""A call that is held while a person is asked: its answer has begun as an event stream, whatever is to follow."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Final

import orjson

from sidecar.confirmer import Confirmer
from sidecar.denials import BadGateway
from sidecar.edge.http.audited import Audited
from sidecar.edge.http.exchange import Exchange
from sidecar.edge.http.front import Front
from sidecar.edge.http.relay import is_event_stream
from sidecar.edge.http.request import Request
from sidecar.edge.http.response import Lines, Response, wire
from sidecar.edge.http.rewriting import MAX_EVENT_BYTES
from sidecar.model import JsonRpcId, Permit

_SIGN_OF_LIFE: Final = b": waiting\n\n"
_SESSION_GONE: Final = 404
_OK: Final = 200
_ACCEPTED: Final = 202


class Confirming:
    """Has a person asked where that must be, on the answer of the call if its client can."""

    def __init__(self, confirmer: Confirmer, audited: Audited, front: Front) -> None:
        self._confirmer = confirmer
        self._audited = audited
        self._front = front

    async def settle(self, exchange: Exchange, label: str, permit: Permit) -> Permit | Response:
        """Return what may be forwarded, or the answer to a message that was for us.

        Raises:
            Denial, ConnectionError: see `confirmer.Confirmer.settle`.
        """
        began = time.perf_counter()
        held = HeldCall(exchange, self._front, self._audited, permit.answer_headers)
        try:
            settled = await self._confirmer.settle(label, exchange.facts, exchange.progress, permit, held)
        finally:
            if isinstance(exchange.request, BegunRequest):
                exchange.body_s += time.perf_counter() - began  # it was the client's time, not ours
        if settled is None:
            response = Response(_ACCEPTED)
            self._front.mark(exchange, response.lines)
            return response
        if settled.by is not None:
            self._audited.confirmed(exchange, label, settled.by)
        return settled.permit


class HeldCall:
    """See `confirmer.Caller`."""

    def __init__(
        self, exchange: Exchange, front: Front, audited: Audited, answer_headers: tuple[tuple[str, str], ...]
    ) -> None:
        self._exchange = exchange
        self._front = front
        self._audited = audited
        self._answer_headers = answer_headers

    def require_room(self) -> None:
        """Find out before anything is spent whether what comes of it could be recorded."""
        self._audited.require_room(self._exchange)

    def begin(self) -> None:
        """Begin an answer that is a stream of events; what comes of the call later is written as events of it."""
        request = self._exchange.request
        lines: Lines = [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache, no-transform")]
        lines += [(b"X-Accel-Buffering", b"no"), *wire(self._answer_headers)]
        self._front.mark(self._exchange, lines)
        request.begin(_OK, lines, None)
        self._exchange.request = BegunRequest(request, self._exchange)

    async def tell(self, message: bytes | None) -> None:
        """Send an event with this message, or only a sign of life."""
        request = self._exchange.request
        if isinstance(request, BegunRequest):
            await request.say(_SIGN_OF_LIFE if message is None else event(message))


class BegunRequest(Request):
    """A request whose answer's head was sent. Whatever is answered now is an event, and the last one ends it."""

    __slots__ = ("_begun", "_exchange", "_parts", "_passes", "_size")

    def __init__(self, begun: Request, exchange: Exchange) -> None:
        for name in Request.__slots__:
            setattr(self, name, getattr(begun, name))
        self.status = None
        self._begun = begun
        self._exchange = exchange
        self._passes = False
        self._parts: list[bytes] = []
        self._size = 0

    async def say(self, piece: bytes) -> None:
        """Send this before the answer."""
        await self._begun.write(piece)

    async def send(self, response: Response) -> None:
        self.begin(response.status, response.lines, None)
        await self.write(response.body)
        self.end()
        await self._client.drained()

    def begin(self, status: int, lines: Lines, length: bytes | None) -> None:
        """Take note of what follows: events are passed on, anything else becomes one."""
        self.status = status
        self._passes = status == _OK and is_event_stream(lines)

    async def write(self, piece: bytes) -> None:
        if self._passes:
            if piece:  # an empty chunk would end the answer
                await self._begun.write(piece)
            return
        self._size += len(piece)
        if self._size > MAX_EVENT_BYTES:
            raise BadGateway("upstream_event_too_large", detail="an answer that had to become an event is too long")
        self._exchange.hold(self._size)
        self._parts.append(piece)

    def end(self) -> None:
        if not self._passes:
            self._begun.put(event(self._message(b"".join(self._parts))))
        self._begun.end()

    def _message(self, body: bytes) -> bytes:
        """Return the message of an answer; one of ours where it has none that answers this call: no status is left."""
        message_id = self._exchange.progress.message_id
        return body if _answers(body, message_id) else orjson.dumps(_unanswered(self.status or 0, message_id))


def event(message: bytes) -> bytes:
    """Write one event."""
    return b"event: message\n" + b"".join(b"data: %b\n" % line for line in message.splitlines()) + b"\n"


def _answers(body: bytes, message_id: JsonRpcId | None) -> bool:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(document, dict) or ("result" not in document and "error" not in document):
        return False
    return type(document.get("id")) is type(message_id) and document.get("id") == message_id


def _unanswered(status: int, message_id: JsonRpcId | None) -> dict[str, Any]:
    if status == _SESSION_GONE:
        data = {"errorType": "SESSION_NOT_FOUND", "message": "Session not found; initialize a new one"}
        error = {"code": -32600, "message": "Session not found", "data": data}
    else:
        data = {"errorType": BadGateway.error_type, "message": f"{BadGateway.text} (HTTP status {status})"}
        error = {"code": BadGateway.status, "message": HTTPStatus(BadGateway.status).phrase, "data": data}
    return {"jsonrpc": "2.0", "id": message_id, "error": error}
