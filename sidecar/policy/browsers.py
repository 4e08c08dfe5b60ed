"""May a page in a browser, or a name in DNS, lead here? And what is the browser told about one that may?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from sidecar.denials import AnswerHeaders, HostNotAllowed, InvalidRequest, OriginNotAllowed
from sidecar.model import RequestFacts

Host = tuple[str, int | None]
"""Name and port. As a pattern: the name may be ``*`` or begin with ``*.``, and no port means any."""
Origin = tuple[str, str, int | None]
"""Scheme, host and port. ``null`` (RFC 6454 section 7.1) is a scheme of its own, without a host."""

ANY_ORIGIN: Final = (("Access-Control-Allow-Origin", "*"),)
"""What goes with a document that is public and the same for everyone."""
_LOOPBACK: Final = "localhost"
_NAME: Final = r"\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255}"
_HOST: Final = re.compile(rf"({_NAME})(?::([0-9]{{0,5}}))?")
_HOST_PATTERN: Final = re.compile(rf"(\*\.)?({_NAME})(?::([0-9]{{1,5}}))?")
_ORIGIN: Final = re.compile(rf"([A-Za-z][A-Za-z0-9+.-]{{0,63}})://({_NAME})(?::([0-9]{{1,5}}))?")
_ENDS_OF_ADDRESSES: Final = ("]", *"0123456789")
"""No top-level domain ends so (RFC 3696 section 2), and there are no names below an address."""
_MAX_PORT: Final = 65_535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PARAMETER_HEADER: Final = re.compile(r"mcp-param-[!#$%&'*+.^_`|~0-9a-z-]{1,100}", re.ASCII | re.IGNORECASE)

_REQUEST_HEADERS: Final = (
    *("Authorization", "Content-Type", "Accept", "X-API-Key", "Mcp-Session-Id", "MCP-Protocol-Version"),
    *("Last-Event-ID", "Mcp-Method", "Mcp-Name", "X-Request-Id", "traceparent", "tracestate", "baggage"),
    "x-custom-auth-headers",  # MCP Inspector 1.x sends this internal name when the browser connects directly
)
_EXPOSED: Final = (
    *("Mcp-Session-Id", "MCP-Protocol-Version", "WWW-Authenticate", "Retry-After", "X-Request-Id"),
    *("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit-Policy", "RateLimit"),
)
_MAX_AGE_S: Final = 600
_VARY: Final = ("Vary", "Origin")
_EXPOSE: Final = ("Access-Control-Expose-Headers", ", ".join(_EXPOSED))


class Browsers:
    """Guards against DNS rebinding and foreign pages (MCP 2025-11-25, transports, "Security Warning"), and speaks CORS.

    What is allowed is `public_url`'s own host and origin and what the operator lists beside them, in the words of
    `host_pattern` and `origin_of`. The loopback names are one: 127.0.0.0/8, localhost and [::1].
    """

    def __init__(
        self,
        *,
        public_url: str,
        allowed_hosts: Iterable[str],
        allowed_origins: Iterable[str],
        pass_headers: Iterable[str] = (),
    ) -> None:
        own = origin_of(public_url)
        if own is None:
            raise ValueError(f"not an origin: {public_url}")
        scheme, name, _ = own
        self._usual = public_url.partition("://")[2]
        self._default_port = _DEFAULT_PORTS.get(scheme)
        self._hosts = frozenset((*map(host_pattern, allowed_hosts), (name.removesuffix("."), None)))
        self._origins = frozenset((*map(origin_of, allowed_origins), own)) - {None}
        self._request_headers = (*_REQUEST_HEADERS, *pass_headers)

    def require_allowed(self, facts: RequestFacts) -> None:
        """Return when the request names us as the operator does, and comes from no page or from one that may ask.

        Raises:
            InvalidRequest: there is not exactly one `Host` (RFC 9112 section 3.2).
            HostNotAllowed: its name is not one of ours. Names are compared, ports only where the operator gave one.
            OriginNotAllowed: the page is of another origin.
        """
        host, origin = facts.headers.get("host"), facts.headers.get("origin")
        if host is None or "host" in facts.repeated:
            raise InvalidRequest("host_missing", "Send exactly one Host header")
        if not self._is_ours(host):
            raise HostNotAllowed("host_not_allowed", detail=f"Host: {host[:255]}")
        if origin is not None and not self._may_ask(origin):
            raise OriginNotAllowed("origin_not_allowed", detail=f"Origin: {origin[:255]}")

    def cors_headers(self, origin: str | None) -> AnswerHeaders:
        """Return what every answer carries, refusals included, or the page would see nothing but a failure.

        The origin is echoed, as there is no header for several; credentials of the browser's own are never allowed.
        """
        if origin is None or not self._may_ask(origin):
            return (_VARY,)
        return (_VARY, ("Access-Control-Allow-Origin", origin), _EXPOSE)

    def preflight(self, methods: Iterable[str], requested_headers: str | None) -> AnswerHeaders:
        """Return what a preflight's answer carries beside `cors_headers`.

        `requested_headers` is `Access-Control-Request-Headers`: of the `Mcp-Param-*` family, whose names only tools
        know, those are allowed that were asked for. Nothing is allowed by a wildcard, which would leave out
        `Authorization` (Fetch, "CORS-preflight fetch").
        """
        asked = (name.strip(" \t") for name in (requested_headers or "").split(","))
        allowed = (*self._request_headers, *(name for name in asked if _PARAMETER_HEADER.fullmatch(name)))
        return (
            ("Access-Control-Allow-Methods", ", ".join((*methods, "OPTIONS"))),
            ("Access-Control-Allow-Headers", ", ".join(allowed)),
            ("Access-Control-Max-Age", str(_MAX_AGE_S)),
        )

    def _is_ours(self, text: str) -> bool:
        if text == self._usual:  # so most requests cost nothing here
            return True
        match = _HOST.fullmatch(text)
        named = None if match is None else _place(match[1].removesuffix("."), match[2], self._default_port)
        if named is None:
            return False
        name, port = named
        return any((pattern, any_or_port) in self._hosts for pattern in _wider(name) for any_or_port in (None, port))

    def _may_ask(self, text: str) -> bool:
        return origin_of(text) in self._origins


def is_preflight(facts: RequestFacts) -> bool:
    """Tell whether a browser asks if it may ask (Fetch, "CORS-preflight request")."""
    headers = facts.headers
    return facts.method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def host_pattern(text: str) -> Host | None:
    """Read a name, ``name:port``, ``*.name``, or ``*`` for all; None when it is none of them."""
    if text == "*":
        return "*", None
    match = _HOST_PATTERN.fullmatch(text)
    named = None if match is None else _place(match[2].removesuffix("."), match[3], None)
    if match is None or named is None or (match[1] and match[2].endswith(_ENDS_OF_ADDRESSES)):
        return None
    name, port = named
    return (match[1] or "") + name, port


def origin_of(text: str) -> Origin | None:
    """Read an origin as browsers write it (RFC 6454 section 6.2), of any scheme; None when it is none."""
    if text == "null":
        return "null", "", None
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme = match[1].lower()
    named = _place(match[2], match[3], _DEFAULT_PORTS.get(scheme))
    return None if named is None else (scheme, *named)


def _place(name: str, port: str | None, default: int | None) -> Host | None:
    spelled, number = _one_spelling(name), int(port) if port else default
    if spelled is None or not (number is None or 0 < number <= _MAX_PORT):
        return None
    return spelled, number


def _one_spelling(name: str) -> str | None:
    """Return a name or address as it is compared; None for what only looks like one."""
    lower = name.lower()
    try:
        if lower.startswith("["):
            address: IPv4Address | IPv6Address = IPv6Address(lower[1:-1])
        elif lower.replace(".", "").isdigit():
            address = IPv4Address(lower)
        else:
            return lower or None
    except AddressValueError:
        return None
    return _LOOPBACK if address.is_loopback else str(address)


def _wider(name: str) -> Iterator[str]:
    """Return the patterns that take this name in, the most exact first."""
    yield name
    rest = name
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    yield "*"
