"""What of a request may cross to the upstream? An allow-list, hop-by-hop first; ours are added last, elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from sidecar.denials import InvalidRequest, UnsupportedMediaType
from sidecar.model import Headers, RequestFacts

_PASSED: Final = {
    "accept": b"Accept",
    "accept-language": b"Accept-Language",
    "content-type": b"Content-Type",
    "user-agent": b"User-Agent",
    "mcp-protocol-version": b"MCP-Protocol-Version",
    "mcp-method": b"Mcp-Method",
    "mcp-name": b"Mcp-Name",
    "last-event-id": b"Last-Event-ID",
    "traceparent": b"traceparent",
    "tracestate": b"tracestate",
    "baggage": b"baggage",
}
_PASSED_NAMES: Final = frozenset(_PASSED.values())
_JUDGED: Final = frozenset({"content-type", "mcp-protocol-version", "mcp-session-id", "mcp-method", "mcp-name"})
"""What was judged must also be what is sent, so these can't be called hop-by-hop."""
_PASSED_PREFIX: Final = "mcp-param-"
_JSON: Final = "application/json"
"""As nearly all say it."""
_JSON_TYPE: Final = re.compile(r'application/json[ \t]*(;[ \t]*charset=("utf-8"|utf-8)[ \t]*)?', re.IGNORECASE)
_SESSION_ID: Final = re.compile(r"[!-~]{1,1024}")
"""Visible ASCII (MCP 2025-11-25, transports, "Session Management"); the length is ours."""
_PROTOCOL_VERSION: Final = re.compile(r"[A-Za-z0-9._-]+")
"""What is malformed here may be a known version to a reader that trims it, or that takes the first of several."""
_REMEMBERED_NAMES: Final = 512
"""Spellings of header names whose lower case is remembered, those that came last."""
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_HTTP_1_1: Final = (1, 1)
_VERSIONS: Final = (_HTTP_1_1, (1, 0))
HOP_BY_HOP: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""RFC 9110 section 7.6.1, and those of RFC 2616 that are still met."""


def collect(lines: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], frozenset[str]]:
    """Return the lines by lower-case name, and the names that came more than once.

    Lines of one name are joined by `", "` (RFC 9110 section 5.3). Bytes are read as latin-1, which loses nothing.
    """
    headers: dict[str, str] = {}
    repeated: set[str] = set()
    for raw_name, raw_value in lines:
        name, value = _lower(raw_name), raw_value.decode("latin-1")
        if name in headers:
            repeated.add(name)
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers, frozenset(repeated)


def to_upstream(facts: RequestFacts, pass_headers: frozenset[str], *, session: str | None) -> list[tuple[bytes, bytes]]:
    """Return the client's header lines that the upstream gets. Identity headers are added after this.

    `session` is the session id that was judged, None where none counts. `pass_headers` are the operator's additions,
    in lower case; names that could stand for a credential or for one of ours were refused when the configuration was
    read. Names with `_` are never passed: some servers read them as `-`.

    Raises:
        InvalidRequest: a session id that no server can have given out, a protocol version that is no name of one,
            or a `Connection` that would take away what was judged.
    """
    headers = facts.headers
    if "mcp-session-id" in headers and not _SESSION_ID.fullmatch(headers["mcp-session-id"]):
        raise InvalidRequest("session_id_malformed", "Mcp-Session-Id must be visible ASCII")
    if "mcp-protocol-version" in headers and not _PROTOCOL_VERSION.fullmatch(headers["mcp-protocol-version"]):
        raise InvalidRequest("version_malformed", "MCP-Protocol-Version must be one version's name")
    named = connection_tokens(headers.get("connection"))
    if not named.isdisjoint(_JUDGED):
        raise InvalidRequest(
            "connection_names_judged", "Connection must not name a header that decides about the request"
        )
    lines = []
    for name, value in headers.items():
        wire_name = _PASSED.get(name)
        if wire_name is None:
            if not (name.startswith(_PASSED_PREFIX) or name in pass_headers) or "_" in name:
                continue
            wire_name = name.encode("latin-1")
        if name not in named and name not in HOP_BY_HOP:
            lines.append((wire_name, value.encode("latin-1")))
    if session is not None:
        lines.append((b"Mcp-Session-Id", session.encode("latin-1")))
    return lines


def of_the_call(lines: Headers) -> list[tuple[str, str]]:
    """Return, of lines that go upstream, those that may say what a call is to do, sorted by name.

    They are the client's `Mcp-Param-*` lines and those of `pass_headers`, which alone keep the lower case of `collect`.
    """
    own = [line for line in lines if line[0] == line[0].lower() and line[0] not in _PASSED_NAMES]
    return sorted((name.decode("latin-1"), value.decode("latin-1")) for name, value in own)


def require_plain_framing(headers: Mapping[str, str], version: tuple[int, int]) -> None:
    """Refuse what leaves open where the message ends, or whether HTTP/1.1 goes on after it.

    Raises:
        InvalidRequest: a transfer coding that is not exactly ``chunked`` or that HTTP/1.0 does not know (RFC 9112
            section 6.1), a length that is not a plain number, an ``Upgrade``, or another version.
    """
    coding = headers.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or version != _HTTP_1_1):
        raise InvalidRequest("framing", "Transfer-Encoding must be chunked, in HTTP/1.1")
    if not _LENGTH.fullmatch(headers.get("content-length", "0")):
        raise InvalidRequest("framing", "Content-Length must be a plain number")
    if "upgrade" in headers:
        raise InvalidRequest("framing", "Upgrade is not possible here; ask by plain HTTP/1.1")
    if version not in _VERSIONS:
        raise InvalidRequest("framing", "The HTTP version must be 1.1 or 1.0")


def require_json(headers: Mapping[str, str]) -> None:
    """Refuse a body that is announced as anything but plain JSON in UTF-8, whatever the upstream would make of it.

    Raises:
        UnsupportedMediaType: another media type or charset, none at all, or any content coding.
    """
    if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
        raise UnsupportedMediaType("content_encoding")
    content_type = headers.get("content-type", "")
    if content_type != _JSON and not _JSON_TYPE.fullmatch(content_type):
        raise UnsupportedMediaType("content_type")


def target(upstream_path: str, upstream_query: str, query: str | None) -> tuple[str, str | None]:
    """Return the path and query that the upstream gets: its own query first, then the client's, byte for byte.

    Raises:
        InvalidRequest: the client's query holds bytes that no query may hold (RFC 3986 section 3.4).
    """
    if query is None:
        return upstream_path, upstream_query or None
    if not query.isascii() or "#" in query or not query.isprintable() or " " in query:
        raise InvalidRequest("query_malformed", "The query holds characters that must be percent-encoded")
    return upstream_path, f"{upstream_query}&{query}" if upstream_query else query


@lru_cache(maxsize=_REMEMBERED_NAMES)
def _lower(raw_name: bytes) -> str:
    return raw_name.decode("latin-1").lower()


def connection_tokens(value: str | None) -> frozenset[str]:
    """Return the lower-case names that a `Connection` header makes hop-by-hop (RFC 9110 section 7.6.1)."""
    if value is None:
        return frozenset()
    return frozenset(token.strip().lower() for token in value.split(","))
