"""How a denial looks to the client. Whether and why it is one was decided before."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from sidecar.denials import (
    Denial,
    DroppedNotification,
    HostNotAllowed,
    NotConfirmed,
    OriginNotAllowed,
    UnknownMethod,
)
from sidecar.edge.http.response import JSON, Response, wire
from sidecar.model import CredentialKind, Era, JsonRpcId, MessageKind, Route
from sidecar.policy import pages
from sidecar.policy.discovery import Discovery
from sidecar.policy.jsonrpc import error_code

_PROBLEM: Final = "application/problem+json"
_IN_BAND_NEVER: Final = 401
_AT_THE_DOOR: Final = (HostNotAllowed, OriginNotAllowed)
"""Refused before it matters who asks for what: these stay HTTP statuses, as MCP demands of a foreign `Origin`."""


def json_rpc(
    denial: Denial,
    discovery: Discovery,
    *,
    route: Route | None,
    era: Era,
    message_id: JsonRpcId | None,
    kind: MessageKind | None,
) -> Response:
    """Render a refusal on a route that speaks JSON-RPC."""
    status = _status(denial, era)
    challenge = None if route is None else discovery.challenge(denial, route.credentials, route.path)
    if isinstance(denial, DroppedNotification):
        return Response(202)
    if _is_in_band(denial, route):
        if kind in ("notification", "response"):
            return Response(202, wire(denial.headers))
        if kind == "request" and message_id is not None:
            status, challenge = 200, None
    response = Response(status, body=error_message(denial, era, message_id), content_type=JSON)
    return _with_headers(response, denial, challenge)


def error_message(denial: Denial, era: Era, message_id: JsonRpcId | None) -> bytes:
    """Render a refusal as the message that it is in either kind of answer: an error, or a result that models read."""
    if isinstance(denial, NotConfirmed):
        said = {"error": _task_error(denial)} if denial.of_task else {"result": _result(denial, era)}
        return orjson.dumps({"jsonrpc": "2.0", "id": message_id, **said})
    return orjson.dumps({"jsonrpc": "2.0", "id": message_id, "error": _error(denial, era)})


def problem(denial: Denial, discovery: Discovery, *, accepts: tuple[CredentialKind, ...] = ("jwt",)) -> Response:
    """Render a refusal of the REST interface (RFC 9457)."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": _phrase(denial.status),
        "status": denial.status,
        "detail": denial.message,
        "errorType": denial.error_type,
    }
    if denial.retry_after_s is not None:
        document["retryAfter"] = denial.retry_after_s
    response = Response(denial.status, body=orjson.dumps(document), content_type=_PROBLEM)
    return _with_headers(response, denial, discovery.challenge(denial, accepts, None))


def page(denial: Denial) -> Response:
    """Render a refusal for a person who looks at it in a browser."""
    body = pages.refusal(_phrase(denial.status), denial.message, denial.retry_after_s)
    response = Response(denial.status, wire(pages.refusal_headers(body)), body, pages.content_type("refusal.html"))
    return _with_headers(response, denial, None)


def _is_in_band(denial: Denial, route: Route | None) -> bool:
    if route is None or route.denials != "in_band":
        return False
    return denial.status != _IN_BAND_NEVER and not isinstance(denial, _AT_THE_DOOR)


def _phrase(status: int) -> str:
    """Return the status's phrase in RFC 9110, which for 413 older Pythons do not have."""
    return "Content Too Large" if status == 413 else HTTPStatus(status).phrase


def _status(denial: Denial, era: Era) -> int:
    if era == "legacy" and isinstance(denial, UnknownMethod):
        return denial.legacy_status
    return denial.status


def _error(denial: Denial, era: Era) -> dict[str, Any]:
    data: dict[str, Any] = {"errorType": denial.error_type, "message": denial.message}
    if denial.retry_after_s is not None:
        data["retryAfter"] = denial.retry_after_s
    data.update(denial.data)
    return {"code": error_code(denial, era), "message": _phrase(denial.status), "data": data}


def _result(denial: NotConfirmed, era: Era) -> Mapping[str, Any]:
    if denial.result is not None:
        return denial.result
    text = {"content": [{"type": "text", "text": denial.message}], "isError": True}
    return text if era == "legacy" else {"resultType": "complete", **text}


def _task_error(denial: NotConfirmed) -> dict[str, Any]:
    """Render the refusal of a call that asked for a task. Its text is the message, which is what models get to read."""
    data = {"errorType": denial.error_type, "message": denial.message}
    return {"code": HTTPStatus.FORBIDDEN.value, "message": denial.message, "data": data}


def _with_headers(response: Response, denial: Denial, challenge: str | None) -> Response:
    lines = dict(denial.headers)
    if denial.retry_after_s is not None:
        lines["Retry-After"] = str(denial.retry_after_s)
    if challenge is not None:
        lines["WWW-Authenticate"] = challenge
    response.lines += wire(lines.items())
    return response
