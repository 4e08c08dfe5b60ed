"""An answer of ours, and how the head of any answer is written."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp.helpers import rfc822_formatted_time

Lines = list[tuple[bytes, bytes]]
"""Header lines as they stand on the wire, without those of framing and connection, which the connection adds."""

JSON: Final = "application/json"
CLOSE: Final = b"Connection: close\r\n"
NO_BODY: Final = frozenset({204, 304})
"""Statuses that never have one (RFC 9110 sections 15.3.5 and 15.4.5)."""
_FULL: Final = 503
_OPENINGS: Final = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
_ORDINARY: Final = bytes(set(range(256)) - set(b"\r\n\0"))


class Response:
    """An answer that is all here."""

    __slots__ = ("body", "lines", "status")

    def __init__(self, status: int, lines: Lines | None = None, body: bytes = b"", content_type: str = "") -> None:
        self.status = status
        self.lines: Lines = [] if lines is None else lines
        self.body = body
        if content_type:
            self.lines.append((b"Content-Type", content_type.encode()))


def wire(pairs: Iterable[tuple[str, str]]) -> Lines:
    """Return header lines of ours as they stand on the wire."""
    return [(_name(name), value.encode("utf-8", "surrogateescape")) for name, value in pairs]


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return name.encode("latin-1")


def head(status: int, lines: Lines, framing: bytes) -> bytes:
    """Write an answer's head: `lines`, a `Date` unless there is one (RFC 9110 section 6.6.1), and `framing`.

    `framing` is whole lines, ends included.

    Raises:
        ValueError: a line would not be the one line it claims to be.
    """
    fields = b"\r\n".join(map(b": ".join, lines))
    if fields.translate(None, _ORDINARY) != b"\r\n" * (len(lines) - 1):
        raise ValueError("not a header line")
    opening = _OPENINGS.get(status) or b"HTTP/1.1 %d \r\n" % status
    date = b"Date: %b\r\n" % rfc822_formatted_time().encode() if value_of(lines, b"date") is None else b""
    return b"".join((opening, fields, b"\r\n" if fields else b"", date, framing, b"\r\n"))


def answer_to_bad_head(status: int) -> bytes:
    """Write the answer to what never became a request: empty, with nothing of what it held, and the last one."""
    lines: Lines = [(b"Server", b"sidecar")]
    if status == _FULL:
        lines.append((b"Retry-After", b"1"))
    return head(status, lines, b"Content-Length: 0\r\n" + CLOSE)


def value_of(lines: Lines, name: bytes) -> bytes | None:
    """Return the value of the first line with this lower-case name."""
    length = len(name)
    for known, value in lines:
        if len(known) == length and known.lower() == name:
            return value
    return None
