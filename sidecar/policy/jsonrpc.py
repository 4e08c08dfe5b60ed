"""Which action does this body ask for, and do its routing headers agree with it?"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from sidecar.denials import Denial, HeaderMismatch, InvalidParams, InvalidRequest, UnknownMethod
from sidecar.model import Action, Era, JsonRpcId, MessageKind, RequestFacts
from sidecar.policy import strictjson
from sidecar.policy.lookalikes import fold

FIRST_MODERN_VERSION: Final = "2026-07-28"
_VERSION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_VERSION_IN_META: Final = "io.modelcontextprotocol/protocolVersion"
_BASE64: Final = re.compile(r"=\?base64\?(.*)\?=")
_LARGEST_ID: Final = 2**53 - 1
_LONGEST_NAME: Final = 256

_TOP: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_PARAMS: Final = frozenset(
    {
        *("name", "arguments", "uri", "taskId", "task", "ref", "argument", "notifications", "level", "cursor"),
        *("inputResponses", "requestState", "protocolVersion", "capabilities", "clientInfo", "requestId", "_meta"),
    }
)
_REF: Final = frozenset({"type", "name", "uri"})
_NOTICES: Final = frozenset(
    {"toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"}
)
_META: Final[frozenset[str]] = frozenset()
"""Every reader takes the members of `_meta` to the letter, but a copy of them may be made by `Object.assign`."""
_NAMED_BY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tools/call": "name",
        "prompts/get": "name",
        "resources/read": "uri",
        "tasks/get": "taskId",
        "tasks/update": "taskId",
        "tasks/cancel": "taskId",
    }
)
"""Method -> the parameter that `Mcp-Name` mirrors (MCP 2026-07-28, streamable HTTP; tasks extension)."""

_ROUTING: Final = frozenset({"mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id"})
_REMEMBERED_VERSIONS: Final = 64


@lru_cache(maxsize=_REMEMBERED_VERSIONS)
def era_of(protocol_version: str | None) -> Era:
    """Tell the era from the `MCP-Protocol-Version` header alone, as servers do (MCP 2026-07-28, versioning)."""
    if protocol_version is None or not _VERSION.fullmatch(protocol_version):
        return "legacy"
    return "modern" if protocol_version >= FIRST_MODERN_VERSION else "legacy"


def parse(body: bytes) -> dict[str, Any]:
    """Return the body's one JSON object, unambiguous to every parser that an upstream may use.

    Raises:
        InvalidRequest: not strict JSON, not an object (arrays are refused in every revision), or a name that
            another parser could take for one that is judged here (`Method`, `method` with a NUL, `task_id`), or that
            puts members where this one has none (`__proto__`).
    """
    document = strictjson.loads(body)
    if isinstance(document, list):
        raise InvalidRequest("jsonrpc_batch", "Send one JSON-RPC message per request; arrays are not accepted")
    if not isinstance(document, dict):
        raise InvalidRequest("jsonrpc_not_an_object", "The body must be one JSON-RPC object")
    _refuse_lookalikes(document, _TOP)
    params = document.get("params")
    if isinstance(params, dict):
        _refuse_lookalikes(params, _PARAMS)
        for member, names in (("ref", _REF), ("notifications", _NOTICES), ("_meta", _META)):
            inner = params.get(member)
            if isinstance(inner, dict):
                _refuse_lookalikes(inner, names)
    return document


def id_of(document: Mapping[str, Any]) -> JsonRpcId | None:
    """Return the message's id if it is one that MCP allows: a string, or an integer that every parser reads alike."""
    message_id = document.get("id")
    if isinstance(message_id, str):
        return message_id
    if type(message_id) is int and -_LARGEST_ID <= message_id <= _LARGEST_ID:
        return message_id
    return None


def kind_of(document: Mapping[str, Any]) -> MessageKind | None:
    """Tell what a message looks like, well-formed or not; None for what looks like none. Nothing is decided by this."""
    if "method" in document:
        return "request" if "id" in document else "notification"
    return "response" if "result" in document or "error" in document else None


def error_code(denial: Denial, era: Era) -> int:
    """Return the code of the JSON-RPC error that a refusal is: its HTTP status where the specification fixes none."""
    is_fixed = era == "modern" or isinstance(denial, UnknownMethod)
    return denial.rpc_code if denial.rpc_code is not None and is_fixed else denial.status


def glance(body: bytes) -> tuple[JsonRpcId | None, MessageKind | None]:
    """Return id and kind to make a refusal of, before the body is judged; None for what is not one strict object."""
    try:
        document = parse(body)
    except Denial:
        return None, None
    return id_of(document), kind_of(document)


def action(document: Mapping[str, Any], era: Era) -> Action:
    """Return what the message asks for.

    Raises:
        InvalidRequest: not a JSON-RPC 2.0 request, notification or (legacy era only) response.
        InvalidParams: the parameter that names what is acted on is missing or is no name.
    """
    if document.get("jsonrpc") != "2.0":
        raise InvalidRequest("jsonrpc_version", 'The message must carry "jsonrpc": "2.0"')
    message_id = id_of(document)
    if message_id is None and "id" in document:
        raise InvalidRequest("jsonrpc_id", '"id" must be a string or an integer between -(2^53-1) and 2^53-1')
    if "method" not in document:
        return _response(document, era)
    method = document["method"]
    if not is_name(method):
        raise InvalidRequest("jsonrpc_method", '"method" must be a string of 1 to 256 characters, none of them control')
    if "result" in document or "error" in document:
        raise InvalidRequest("jsonrpc_shape", 'A message with "method" must not carry "result" or "error"')
    params = document.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise InvalidParams("jsonrpc_params", '"params" must be an object')
    if "id" not in document:
        if not method.startswith("notifications/"):
            raise InvalidRequest("jsonrpc_id", 'A request must carry an "id"')
        return Action("notification", method, params=params)
    return Action("request", method, message_id, _tool(method, params), params)


def require_agreement(facts: RequestFacts, action: Action) -> None:
    """Refuse a modern message whose routing headers do not say what its body says.

    An intermediary that reads the body must check this (MCP 2026-07-28, streamable HTTP, "Server Validation").
    Legacy messages may carry such headers (`mcp-remote` sends them) and nobody decides by them; but one whose body says
    that it is modern is none: the upstream may go by the one or by the other.

    Raises:
        HeaderMismatch: missing, doubled or different `Mcp-Method`, `Mcp-Name` or protocol version.
    """
    if facts.repeated and not facts.repeated.isdisjoint(_ROUTING):
        raise HeaderMismatch("routing_header_repeated", "A routing header was sent more than once")
    headers = facts.headers
    meta = action.params.get("_meta")
    version = meta.get(_VERSION_IN_META) if isinstance(meta, dict) else None
    if version is not None and version != headers.get("mcp-protocol-version"):
        raise HeaderMismatch("version_mismatch", "MCP-Protocol-Version differs from the version in params._meta")
    if facts.era == "legacy":
        return
    if headers.get("mcp-method", None if action.kind == "request" else action.method) != action.method:
        raise HeaderMismatch("method_mismatch", "Mcp-Method must be present and equal to the body's method")
    member = _NAMED_BY.get(action.method)
    if member is not None and _decoded(headers.get("mcp-name")) != action.params.get(member):
        raise HeaderMismatch("name_mismatch", f"Mcp-Name must be present and equal to the body's params.{member}")


def _response(document: Mapping[str, Any], era: Era) -> Action:
    if era == "modern":
        raise InvalidRequest("jsonrpc_response", "Responses are not sent by clients of this protocol version")
    if "id" not in document or ("result" in document) == ("error" in document) or "params" in document:
        raise InvalidRequest("jsonrpc_shape", 'A message needs a "method", or an "id" with a "result" or an "error"')
    return Action("response", id=id_of(document))


def _tool(method: str, params: Mapping[str, Any]) -> str | None:
    if method != "tools/call":
        return None
    name = params.get("name")
    if not is_name(name):
        raise InvalidParams(
            "tool_name", '"params.name" must be a string of 1 to 256 characters, none of them a control character'
        )
    return str(name)


def is_name(value: object) -> bool:
    """Tell whether this can be the name of a method or a tool: 1 to 256 characters, none of them a control."""
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_NAME:
        return False
    return value.isprintable() or not any(unicodedata.category(char) == "Cc" for char in value)


def _decoded(value: str | None) -> str | None:
    """Undo the `=?base64?...?=` form of a header value; None for a malformed one, which equals no name."""
    match = _BASE64.fullmatch(value) if value is not None else None
    if match is None:
        return value
    try:
        decoded = base64.b64decode(match[1], validate=True)
        return decoded.decode() if base64.b64encode(decoded).decode() == match[1] else None
    except (binascii.Error, ValueError):
        return None


def _refuse_lookalikes(document: Mapping[str, Any], names: frozenset[str]) -> None:
    if "__proto__" in document:
        raise InvalidRequest("json_prototype", 'A message must not carry a member named "__proto__"')
    if not _FOLDED[names].isdisjoint(map(fold, document.keys() - names)):
        raise InvalidRequest("json_lookalike_name", "A member's name differs from a JSON-RPC name only in its spelling")


_FOLDED: Final = {names: frozenset(map(fold, names)) for names in (_TOP, _PARAMS, _REF, _NOTICES, _META)}
