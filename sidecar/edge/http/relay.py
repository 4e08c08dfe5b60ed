"""Bytes from the upstream to the client, as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

from sidecar.denials import BadGateway
from sidecar.edge.http.request import Request
from sidecar.edge.http.response import NO_BODY, Lines, Response, value_of, wire
from sidecar.model import Permit
from sidecar.policy import answers
from sidecar.ports import UpstreamAnswer

_DIGESTS: Final = frozenset({b"etag", b"content-digest", b"repr-digest", b"digest", b"content-md5"})
_UNBUFFERED: Final = (b"X-Accel-Buffering", b"no")
_COMMENT: Final = b": keep-alive\n\n"
_EVENT_ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n")
_LONGEST_EVENT_END: Final = 4


def head(answer: UpstreamAnswer, permit: Permit) -> Lines:
    """Return the header lines of the client's answer: the upstream's that may cross, then ours.

    Raises:
        BadGateway: this answer must not reach a client.
    """
    answers.require_usable(answer.status)
    lines = answers.to_client(answer.headers)
    lines += wire(permit.answer_headers)
    if is_event_stream(lines):
        lines = [line for line in lines if line[0].lower() != _UNBUFFERED[0].lower()]
        lines.append(_UNBUFFERED)
    return lines


def without_digests(lines: Lines) -> Lines:
    """Leave out what was said of the very bytes of a body that is rewritten."""
    return [line for line in lines if line[0].lower() not in _DIGESTS]


def whole(status: int, lines: Lines, body: bytes) -> Response:
    """Return an answer that is all here."""
    if status in NO_BODY:
        lines = [line for line in lines if line[0].lower() != b"content-type"]
    return Response(status, lines, body)


async def relay(
    request: Request,
    status: int,
    lines: Lines,
    pieces: AsyncIterator[bytes],
    *,
    length: bytes | None,
    ended: Callable[[], bool],
) -> None:
    """Send the answer on piece by piece, no faster than the client reads.

    An empty piece stands for a silence: between two events of an event stream the client then gets a comment, so that
    nobody on the way takes the connection for dead (HTML, server-sent events, section 9.2.7). `ended` tells, when the
    upstream's side is closed, whether that was our own doing: then an event stream ends cleanly for the client, too.

    `length` is announced, where nothing is added to the answer.

    Raises:
        BadGateway, GatewayTimeout: the upstream broke off; the client's answer is left unfinished.
        ConnectionError: the client has left, or its answer had to be broken off by us.
    """
    request.begin(status, lines, length)
    speaks_of_events = is_event_stream(lines)
    last = b"\n\n"
    try:
        async for piece in pieces:
            if piece:
                await request.write(piece)
                last = (last + piece)[-_LONGEST_EVENT_END:] if speaks_of_events else last
            elif speaks_of_events and last.endswith(_EVENT_ENDS):
                await request.write(_COMMENT)
    except BadGateway:
        if not ended():
            raise
        if not speaks_of_events:
            request.break_off()
            raise ConnectionResetError("the answer was ended by this side") from None
    request.end()


def is_event_stream(lines: Lines) -> bool:
    """Tell whether these are the headers of a `text/event-stream`."""
    content_type = value_of(lines, b"content-type")
    return content_type is not None and content_type.partition(b";")[0].strip().lower() == b"text/event-stream"
