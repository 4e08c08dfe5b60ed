"""What of the upstream's answer may cross to the client?"""

from __future__ import annotations

from typing import Final

from sidecar.denials import BadGateway
from sidecar.model import Headers
from sidecar.policy.headers import HOP_BY_HOP, connection_tokens

_DROPPED: Final = frozenset(
    {"server", "set-cookie", "www-authenticate", "proxy-authenticate", "x-request-id", "content-length"}
)
_DROPPED_PREFIXES: Final = ("access-control-", "signature", "x-ratelimit-", "ratelimit")


def require_usable(status: int) -> None:
    """Refuse an answer that would mislead the client.

    The upstream's 401 or 403 is about us, and would send the client to log in at the wrong place; a redirect would
    send it around us.

    Raises:
        BadGateway: for these.
    """
    if status in (401, 403):
        raise BadGateway("upstream_refused_us", detail=f"the upstream answered {status}")
    if 300 <= status < 400:
        raise BadGateway("upstream_redirect", detail=f"the upstream answered {status}")
    if not 200 <= status < 600:
        raise BadGateway("upstream_status", detail=f"the upstream answered {status}")


def may_hold_messages(status: int) -> bool:
    """Tell whether clients read messages from an answer with this status."""
    return 200 <= status < 300 and status not in (202, 204)


def to_client(lines: Headers) -> list[tuple[str, str]]:
    """Return the upstream's header lines that the client gets.

    Dropped: hop-by-hop, framing (the server's own), what would speak for us (`Server`, rate headers, signatures,
    CORS, challenges), cookies, and a value that is not UTF-8, which could not be sent as it came.
    """
    named = connection_tokens(
        ", ".join(value.decode("latin-1") for name, value in lines if name.lower() == b"connection") or None
    )
    kept = []
    for raw_name, raw_value in lines:
        name = raw_name.decode("latin-1")
        lower = name.lower()
        if lower in HOP_BY_HOP or lower in _DROPPED or lower in named or lower.startswith(_DROPPED_PREFIXES):
            continue
        try:
            kept.append((name, raw_value.decode()))
        except UnicodeDecodeError:
            continue
    return kept


def content_length(lines: Headers) -> str | None:
    """Return the announced length of an upstream's answer, which its HTTP parser has checked."""
    return next((value.decode("latin-1") for name, value in lines if name.lower() == b"content-length"), None)
