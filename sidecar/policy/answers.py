"""What of the upstream's answer may cross to the client?"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sidecar.denials import BadGateway
from sidecar.model import Headers
from sidecar.policy.headers import HOP_BY_HOP, connection_tokens

_DROPPED: Final = frozenset(
    {
        *(name.encode() for name in HOP_BY_HOP),
        *(b"server", b"set-cookie", b"www-authenticate", b"x-request-id", b"content-length"),
    }
)
_REMEMBERED_NAMES: Final = 512
_DROPPED_PREFIXES: Final = (b"access-control-", b"signature", b"x-ratelimit-", b"ratelimit")


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


def to_client(lines: Headers) -> list[tuple[bytes, bytes]]:
    """Return the upstream's header lines that the client gets, as they came.

    Dropped: hop-by-hop, framing (the server's own), what would speak for us (`Server`, rate headers, signatures,
    CORS, challenges) and cookies.
    """
    named: frozenset[str] = frozenset()
    kept = []
    for line in lines:
        if _crosses(line[0]):
            kept.append(line)
        elif line[0].lower() == b"connection":
            named |= connection_tokens(line[1].decode("latin-1")) - HOP_BY_HOP
    if named:
        return [line for line in kept if line[0].lower().decode("latin-1") not in named]
    return kept


@lru_cache(maxsize=_REMEMBERED_NAMES)
def _crosses(name: bytes) -> bool:
    """Tell it of a name in whatever spelling; remembered for those that came last."""
    lower = name.lower()
    return lower not in _DROPPED and not lower.startswith(_DROPPED_PREFIXES)


def content_length(lines: Headers) -> bytes | None:
    """Return the announced length of an upstream's answer, which its HTTP parser has checked."""
    return next((value for name, value in lines if name.lower() == b"content-length"), None)
