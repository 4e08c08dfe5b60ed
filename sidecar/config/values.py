"""What a single value of the settings may be: one small rule for each kind, independent of where it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeVar

from sidecar.config.document import Entry, Refused, plain
from sidecar.config.reader import Rule, listed
from sidecar.model import SCOPES

S = TypeVar("S", bound=str)

ASYMMETRIC: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES256K", "ES384", "ES512", "EdDSA"),
)
MANAGEMENT_PATH: Final = "/api/api-keys"
OWN_PATHS: Final = (MANAGEMENT_PATH, "/api/approvals", "/.well-known", "/keys", "/approvals")
"""Paths that the sidecar answers itself, with all below them."""

_LONGEST_SOCKET_PATH_BYTES: Final = 107
_PATH: Final = re.compile(r"(/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)+")
"""Segments of RFC 3986 section 3.3 without percent-encoding and ``;``, none empty and none that begins with a dot."""
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]{1,100}")
"""RFC 9110 section 5.6.2, without ``_``: many servers take it for ``-``."""
_FORBIDDEN_HEADERS: Final = frozenset(
    {
        *("authorization", "x-api-key", "cookie"),
        *("connection", "keep-alive", "te", "trailer", "upgrade", "http2-settings"),
        *("host", "content-length", "content-encoding", "transfer-encoding", "expect", "accept-encoding"),
        *("forwarded", "x-real-ip", "origin", "x-request-id", "content-digest", "signature", "signature-input"),
    }
)
_FORBIDDEN_PREFIXES: Final = ("proxy-", "x-forwarded-", "x-account-", "x-auth-")


def whole(low: int, high: int, of: str = "") -> Rule[int]:
    """Return the rule for a whole number; `of` names its unit."""

    def read(entry: Entry) -> int:
        value = _number(entry)
        if not isinstance(value, int) or not low <= value <= high:
            unit = f" of {of}" if of else ""
            raise Refused(f"must be a whole number{unit} from {low} to {high}, not {entry.shown}")
        return value

    return read


def above_zero(most: float, of: str = "") -> Rule[float]:
    """Return the rule for a number that may have a fraction; `of` names its unit."""

    def read(entry: Entry) -> float:
        value = _number(entry)
        if value is None or not 0 < value <= most:
            unit = f" of {of}" if of else ""
            raise Refused(f"must be a number{unit} above 0 and at most {most:g}, not {entry.shown}")
        return value

    return read


def flag(entry: Entry) -> bool:
    """``true`` or ``false``."""
    value = entry.value()
    typed = plain(value) if isinstance(value, str) and entry.is_filled else value
    if not isinstance(typed, bool):
        raise Refused(f"must be true or false, not {entry.shown}")
    return typed


def one_of(options: tuple[S, ...]) -> Rule[S]:
    """Return the rule for a word out of a closed set."""

    def read(entry: Entry) -> S:
        value = entry.value()
        for option in options:
            if option == value:
                return option
        raise Refused(f"must be {_either(options)}, not {entry.shown}")

    return read


def any_text(entry: Entry) -> str:
    """Text, empty or not."""
    value = entry.value()
    if isinstance(value, str):
        return value
    if value is not None and entry.is_filled:
        return entry.text()
    raise Refused(f"must be text, not {entry.shown}" + ("" if value is None else "; put it in quotes if it is meant"))


def text(most: int, what: str = "text") -> Rule[str]:
    """Return the rule for 1 to `most` characters, none of them a control character."""

    def read(entry: Entry) -> str:
        value = any_text(entry)
        if not 0 < len(value) <= most:
            raise Refused(f"must be {what} of 1 to {most} characters")
        return value

    return read


def matching(pattern: str, what: str) -> Rule[str]:
    """Return the rule for text that this regular expression matches as a whole."""
    compiled = re.compile(pattern)

    def read(entry: Entry) -> str:
        value = any_text(entry)
        if not compiled.fullmatch(value):
            raise Refused(f"must be {what}, not {entry.shown}")
        return value

    return read


glob = text(256, "a tool name or glob")
token = matching(r"[!#-\[\]-~]{1,255}", "1 to 255 visible ASCII characters without quotes and backslashes")
account = matching(r"[A-Za-z0-9._:|@+/=-]{1,128}", "1 to 128 of A-Z a-z 0-9 . _ : | @ + / = -")
account_prefix = matching(r"[A-Za-z0-9._:|@+/=-]{0,127}", "at most 127 of A-Z a-z 0-9 . _ : | @ + / = -")
identity_key_id = matching(r"[A-Za-z0-9._-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")


def policy_name(entry: Entry) -> str:
    """The name of a limit, as it stands in the ``RateLimit`` header."""
    name = matching(r"[a-z0-9_-]{1,32}", "1 to 32 of a-z 0-9 _ -")(entry)
    if name == "failed_auth":
        raise Refused("must not be failed_auth, which is the limit of that name")
    return name


def route_path(entry: Entry) -> str:
    """A public path. It is compared with the raw target, so nothing in it may have a second spelling."""
    value = any_text(entry)
    if not _PATH.fullmatch(value):
        raise Refused(
            'must be a path such as /mcp that is matched exactly: no "%", ";", "?", "#", "\\", no empty segment, '
            f"none that begins with a dot, no slash at the end, not {entry.shown}"
        )
    if any(value == own or value.startswith(f"{own}/") for own in OWN_PATHS):
        raise Refused(f"must not be or lie below {_either(OWN_PATHS)}, which the sidecar answers itself")
    return value


def socket_path(entry: Entry) -> str:
    """Check the path of a unix socket. The system's addresses end at 107 bytes."""
    path = text(4096, "a path")(entry)
    if not path.startswith("/") or len(path.encode()) > _LONGEST_SOCKET_PATH_BYTES:
        raise Refused(f"must be an absolute path of at most {_LONGEST_SOCKET_PATH_BYTES} bytes, not {entry.shown}")
    return path


def pass_header(entry: Entry) -> str:
    """A header name, in lower case from here on."""
    value = any_text(entry).lower()
    spelled = value.replace("_", "-")
    if spelled in _FORBIDDEN_HEADERS or spelled.startswith(_FORBIDDEN_PREFIXES):
        raise Refused(
            f"must not name {entry.shown}: credentials, identity, framing and hop-by-hop headers never pass through"
        )
    if not _HEADER_NAME.fullmatch(value):
        raise Refused(f'must be a header name without "_", not {entry.shown}')
    return value


def scopes(*, at_least: int = 0) -> Rule[tuple[str, ...]]:
    """Return the rule for scopes in any order; they come in that of `SCOPES`, as they are written everywhere."""
    any_order = listed(one_of(SCOPES), at_least=at_least, of="scope")

    def read(entry: Entry) -> tuple[str, ...]:
        named = any_order(entry)
        return tuple(scope for scope in SCOPES if scope in named)

    return read


def words(item: Rule[str]) -> Rule[tuple[str, ...]]:
    """Return the rule for one value or a list of them."""
    several = listed(item, at_least=1, of="name")
    return lambda entry: (item(entry),) if entry.kind == "a single value" else several(entry)


def _number(entry: Entry) -> int | float | None:
    value = entry.value()
    if isinstance(value, str) and entry.is_filled:
        value = plain(value)
    return None if isinstance(value, bool | str) else value


def _either(options: Iterable[str]) -> str:
    *most, last = options
    return f"{', '.join(most)} or {last}" if most else last
