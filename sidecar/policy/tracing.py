"""What does a trace tell of a request, and whose trace does it belong to?

Names and attributes follow OpenTelemetry's semantic conventions for MCP, and those for HTTP where no MCP message was
judged. A trace leaves the house: no credential, session, argument, resource, account or client address is in it. Who
called stands in the log, under the same trace id.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

from sidecar.denials import Denial
from sidecar.model import Action, Headers, RequestFacts
from sidecar.policy.jsonrpc import error_code
from sidecar.policy.redaction import redacted

Attributes = Mapping[str, str | int]
Carrier = Mapping[str, str]
"""`traceparent`, and `tracestate` where there is one; empty for no trace."""

NO_TRACE: Final[Carrier] = MappingProxyType({})

_TRACEPARENT: Final = re.compile(
    r"(?:00|(?!00|ff)([0-9a-f]{2}))-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?(1)(?:-[!-~]*)?)"
)
"""W3C Trace Context, section 3.2: in version 00 nothing follows the flags, in later ones more may."""
_LONGEST: Final = 512
"""Characters, of either header: so much of `tracestate` has to be passed on (section 3.3.1.5)."""
_TRACE_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})
_VERSION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_METHODS: Final = frozenset({"GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"})
_OTHER: Final = "_OTHER"
_LONGEST_VALUE: Final = 256
_SESSION_DIGITS: Final = 16
_PORTS: Final = {"http": 80, "https": 443}
_UPSTREAM_FAULTS: Final = frozenset({"UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT"})
_TRANSPORT: Final[Attributes] = MappingProxyType({"network.transport": "tcp", "network.protocol.name": "http"})


def callers(facts: RequestFacts, action: Action | None) -> tuple[Carrier, Carrier]:
    """Return the trace that the request is part of, and another one that it is to be linked with.

    What the message says in `params._meta` is the parent, and the HTTP headers are the link beside it, as the MCP
    conventions have it; else the headers are the parent. What is malformed is no trace, and neither is its
    `tracestate` (W3C Trace Context, section 4.3): a new one begins.
    """
    by_http = NO_TRACE if "traceparent" in facts.repeated else _carrier(facts.headers)
    meta = None if action is None else action.params.get("_meta")
    by_message = _carrier(meta) if isinstance(meta, dict) else NO_TRACE
    if not by_message:
        return by_http, NO_TRACE
    return by_message, NO_TRACE if by_http == by_message else by_http


def retraced(headers: Headers, carrier: Carrier) -> Headers:
    """Return the header lines with our trace in the place of the client's. They are not part of what is signed."""
    if not carrier:
        return headers
    kept = tuple([line for line in headers if line[0] not in _TRACE_HEADERS])
    return (*kept, *[(name.encode("ascii"), value.encode("ascii")) for name, value in carrier.items()])


def span_name(facts: RequestFacts, label: str, action: Action | None) -> str:
    """Return `{mcp.method.name} {target}` for a message that was judged, else `{method} {route}`."""
    if action is None or not _is_mcp(action):
        method = facts.method if facts.method in _METHODS else "HTTP"
        return method if label == "other" else f"{method} {label}"
    target = action.tool or _prompt(action)
    return _shown(action.method) if target is None else f"{_shown(action.method)} {_shown(target)}"


def of_message(facts: RequestFacts, action: Action | None, session: str | None) -> dict[str, str | int]:
    """Return what both legs say of the message. `session` is one that is the caller's, None where there is none.

    A session id lets whoever reaches the upstream go on in the session, so `mcp.session.id` is not said: a part of its
    digest tells sessions apart as well.
    """
    said: dict[str, str | int] = {**_TRANSPORT}
    version = facts.headers.get("mcp-protocol-version", "")
    if _VERSION.fullmatch(version):
        said["mcp.protocol.version"] = version
    if session is not None:
        said["mcp_sidecar.session"] = hashlib.sha256(session.encode()).hexdigest()[:_SESSION_DIGITS]
    if action is None or not _is_mcp(action):
        return said
    said["mcp.method.name"] = _shown(action.method)
    if action.id is not None:
        said["jsonrpc.request.id"] = _shown(str(action.id))
    if action.tool is not None:
        said |= {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": _shown(action.tool)}
    prompt = _prompt(action)
    if prompt is not None:
        said["gen_ai.prompt.name"] = _shown(prompt)
    return said


def of_request(facts: RequestFacts, label: str) -> dict[str, str | int]:
    """Return what the client's leg says of its HTTP request. `label` is the route as metrics name it."""
    said: dict[str, str | int] = {
        "http.request.method": facts.method if facts.method in _METHODS else _OTHER,
        "mcp_sidecar.request_id": facts.request_id,
        "mcp_sidecar.era": facts.era,
    }
    return said if label == "other" else {**said, "http.route": label}


def of_place(url: str, socket: str | None = None) -> dict[str, str | int]:
    """Return where a leg leads, from its URL, or the unix socket it takes."""
    if socket is not None:
        return {"server.address": socket, "network.transport": "unix"}
    parts = urlsplit(url)
    return {"server.address": parts.hostname or "", "server.port": parts.port or _PORTS[parts.scheme]}


def of_end(
    facts: RequestFacts, outcome: str, reason: str | None, status: int | None, denial: Denial | None
) -> tuple[dict[str, str | int], str | None]:
    """Return what is known of a request at its end, and what went wrong: the name of it, None where nothing did.

    `outcome`, `reason` and `status` are those of the log. A refusal is an error; of what the upstream answers only a
    5xx is (HTTP conventions).
    """
    said: dict[str, str | int] = {"mcp_sidecar.outcome": outcome}
    if reason is not None:
        said["mcp_sidecar.reason"] = reason
    if status is not None:
        said["http.response.status_code"] = status
    if denial is not None and denial.status >= 400:
        said |= {"error.type": denial.reason, "rpc.response.status_code": str(error_code(denial, facts.era))}
        return said, denial.error_type
    if status is not None and status >= 500:
        said["error.type"] = str(status)
        return said, ""
    return said, None


def of_answer(status: int | None, denial: Denial | None) -> tuple[dict[str, str | int], str | None]:
    """Return what is known of the upstream's answer at its end, and what went wrong with it, as `of_end` does."""
    said: dict[str, str | int] = {} if status is None else {"http.response.status_code": status}
    if denial is not None and denial.error_type in _UPSTREAM_FAULTS:
        return {**said, "error.type": denial.reason}, denial.error_type
    if status is not None and status >= 400:
        return {**said, "error.type": str(status)}, ""
    return said, None


def _carrier(said: Mapping[str, Any]) -> Carrier:
    parent, state = said.get("traceparent"), said.get("tracestate")
    if not _is_short(parent) or not _TRACEPARENT.fullmatch(parent):
        return NO_TRACE
    if not _is_short(state) or redacted(state) != state:
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}


def _is_short(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isascii() and value.isprintable()


def _shown(said: str) -> str:
    """Return a name that the client chose as it may leave the house."""
    return redacted(said)[:_LONGEST_VALUE]


def _is_mcp(action: Action) -> bool:
    return action.kind in ("request", "notification")


def _prompt(action: Action) -> str | None:
    name = action.params.get("name") if action.method == "prompts/get" else None
    return name if isinstance(name, str) and 0 < len(name) <= _LONGEST_VALUE and name.isprintable() else None
