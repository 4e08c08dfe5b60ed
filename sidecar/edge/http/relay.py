"""Bytes from the upstream to the client, as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from sidecar.denials import BadGateway
from sidecar.model import Permit
from sidecar.policy import answers
from sidecar.ports import UpstreamAnswer

_NO_BODY: Final = (204, 304)
_DIGESTS: Final = ("ETag", "Content-Digest", "Repr-Digest", "Digest", "Content-MD5")
_COMMENT: Final = b": keep-alive\n\n"
_EVENT_ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n")
_LONGEST_EVENT_END: Final = 4


def head(answer: UpstreamAnswer, permit: Permit) -> CIMultiDict[str]:
    """Return the header lines of the client's answer: the upstream's that may cross, then ours.

    Raises:
        BadGateway: this answer must not reach a client.
    """
    answers.require_usable(answer.status)
    lines = CIMultiDict(answers.to_client(answer.headers))
    lines.update(permit.answer_headers)
    if is_event_stream(lines):
        lines["X-Accel-Buffering"] = "no"
    return lines


def forget_digests(lines: CIMultiDict[str]) -> None:
    """Drop what was said of the very bytes of a body that is rewritten."""
    for name in _DIGESTS:
        lines.popall(name, None)


def announce_length(answer: UpstreamAnswer, lines: CIMultiDict[str]) -> None:
    """Say how long the answer will be, where the upstream did and nothing of it is rewritten."""
    length = answers.content_length(answer.headers)
    if length is not None:
        lines["Content-Length"] = length


def whole(status: int, lines: CIMultiDict[str], body: bytes) -> web.Response:
    """Return an answer that is all here, to be sent in one write."""
    if status in _NO_BODY:
        lines.popall("Content-Type", None)
    return web.Response(status=status, headers=lines, body=body)


async def relay(
    request: web.BaseRequest,
    status: int,
    lines: CIMultiDict[str],
    pieces: AsyncIterator[bytes],
    *,
    ended: Callable[[], bool],
) -> web.StreamResponse:
    """Send the answer on piece by piece, no faster than the client reads.

    An empty piece stands for a silence: between two events of an event stream the client then gets a comment, so that
    nobody on the way takes the connection for dead (HTML, server-sent events, section 9.2.7). `ended` tells, when the
    upstream's side is closed, whether that was our own doing: then the client's side ends cleanly too.

    Raises:
        BadGateway, GatewayTimeout: the upstream broke off; the client's answer is left unfinished.
        ConnectionError: the client has left.
    """
    response = web.StreamResponse(status=status, headers=lines)
    await response.prepare(request)
    speaks_of_events = is_event_stream(lines)
    last = b"\n\n"
    try:
        async for piece in pieces:
            if piece:
                await response.write(piece)
                last = (last + piece)[-_LONGEST_EVENT_END:] if speaks_of_events else last
            elif speaks_of_events and last.endswith(_EVENT_ENDS):
                await response.write(_COMMENT)
    except BadGateway:
        if not ended():
            raise
    await response.write_eof()
    return response


def is_event_stream(lines: Mapping[str, str]) -> bool:
    """Tell whether these are the headers of a `text/event-stream`."""
    return lines.get("Content-Type", "").partition(";")[0].strip().lower() == "text/event-stream"
