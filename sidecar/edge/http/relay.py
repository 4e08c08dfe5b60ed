"""Bytes from the upstream to the client, as they arrive."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from multidict import CIMultiDict

from sidecar.denials import BadGateway
from sidecar.model import Permit
from sidecar.policy import answers
from sidecar.ports import UpstreamAnswer

_NO_BODY = (204, 304)


def head(answer: UpstreamAnswer, permit: Permit) -> CIMultiDict[str]:
    """Return the header lines of the client's answer: the upstream's that may cross, then ours.

    Raises:
        BadGateway: this answer must not reach a client.
    """
    answers.require_usable(answer.status)
    lines = CIMultiDict(answers.to_client(answer.headers))
    lines.update(permit.answer_headers)
    return lines


def whole(status: int, lines: CIMultiDict[str], body: bytes) -> web.Response:
    """Return an answer that is all here, to be sent in one write."""
    if status in _NO_BODY:
        lines.popall("Content-Type", None)
    return web.Response(status=status, headers=lines, body=body)


async def relay(
    request: web.BaseRequest, answer: UpstreamAnswer, lines: CIMultiDict[str], *, ended: Callable[[], bool]
) -> web.StreamResponse:
    """Send the answer on piece by piece, no faster than the client reads.

    `ended` tells, when the upstream's side is closed, whether that was our own doing: then the client's side ends
    cleanly too.

    Raises:
        BadGateway, GatewayTimeout: the upstream broke off; the client's answer is left unfinished.
        ConnectionError: the client has left.
    """
    length = answers.content_length(answer.headers)
    if length is not None:
        lines["Content-Length"] = length
    response = web.StreamResponse(status=answer.status, headers=lines)
    await response.prepare(request)
    try:
        async for chunk in answer:
            await response.write(chunk)
    except BadGateway:
        if not ended():
            raise
    await response.write_eof()
    return response
