"""Bytes from the upstream to the client, as they arrive."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from multidict import CIMultiDict

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


async def relay(
    request: web.BaseRequest,
    answer: UpstreamAnswer,
    lines: CIMultiDict[str],
    opened: Callable[[], None],
    closed: Callable[[], None],
) -> web.StreamResponse:
    """Send the answer on: in one write when it is all here, else piece by piece, no faster than the client reads.

    Raises:
        BadGateway, GatewayTimeout: the upstream broke off; the client's answer is left unfinished.
        ConnectionError: the client has left.
    """
    body = answer.complete()
    if body is not None:
        if answer.status in _NO_BODY:
            lines.popall("Content-Type", None)
        return web.Response(status=answer.status, headers=lines, body=body)
    length = answers.content_length(answer.headers)
    if length is not None:
        lines["Content-Length"] = length
    response = web.StreamResponse(status=answer.status, headers=lines)
    opened()
    try:
        await response.prepare(request)
        async for chunk in answer:
            await response.write(chunk)
        await response.write_eof()
    finally:
        closed()
    return response
