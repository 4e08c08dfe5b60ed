"""Where in a stream of server-sent events does one event end, and what is its data?

After HTML, server-sent events, section 9.2.6. Lines end with LF, CRLF or CR, also mixed; a blank line ends an event.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.denials import BadGateway

_LINE_END: Final = re.compile(rb"[\r\n]")
_COMMENTS: Final = re.compile(rb"\n?(?::[^\r\n]*(?:\r\n|\r|\n))*")
"""Whole comment lines; before them the LF that can only be the second half of a CRLF."""
_BREAK: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A
_CR: Final = 0x0D


class EventSplitter:
    r"""Cuts a stream into its events as it arrives, losing no byte: events and rest joined are the stream.

    The same stream gives the same events however it is split into chunks. That leaves one thing to chance, whether a
    CR at the end of a chunk is half of a CRLF: a blank line that is a lone CR waits for the next byte, except after
    another lone CR, where nothing else is to be expected. Should an LF follow there, it begins the next event.
    """

    __slots__ = ("_after_cr", "_line", "_max_event_bytes", "_pending", "_seen")

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()
        self._line = 0
        """Where in `_pending` the unfinished line begins."""
        self._seen = 0
        """Up to where no further end of a line is."""
        self._after_cr = False
        """The line before was ended by a CR alone."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that this chunk makes whole, each with the blank line that ends it.

        Raises:
            BadGateway: ``upstream_event_too_large``: an event is longer than `max_event_bytes`.
        """
        self._pending += chunk
        events: list[bytes] = []
        start = 0
        while (end := self._next_event()) is not None:
            self._require_size(end - start)
            events.append(bytes(self._pending[start:end]))
            start = end
        self._forget(start)
        self._require_size(len(self._pending))
        return events

    @property
    def waiting_bytes(self) -> int:
        """How long the unfinished event is."""
        return len(self._pending)

    def comments(self) -> bytes:
        """Take out the whole comment lines that the unfinished event begins with: nobody need wait for them."""
        match = _COMMENTS.match(self._pending, 0, self._line)
        taken = match[0] if match is not None else b""
        self._forget(len(taken))
        return taken

    def rest(self) -> bytes:
        """Take out what is left when the stream has ended: an event that no blank line ended, or nothing."""
        left = bytes(self._pending)
        self._forget(len(left))
        return left

    def _next_event(self) -> int | None:
        """Return where the next event ends, or None when that is not here yet."""
        while (found := _LINE_END.search(self._pending, self._seen)) is not None:
            at = found.start()
            blank, after_cr = at == self._line, self._after_cr
            end = self._end_of_line(at, certain=blank and after_cr)
            if end is None:
                self._seen = at
                return None
            self._line = self._seen = end
            self._after_cr = self._pending[end - 1] == _CR
            second_half = blank and after_cr and self._pending[at] == _LF
            if blank and not second_half:
                return end
        self._seen = len(self._pending)
        return None

    def _end_of_line(self, at: int, *, certain: bool) -> int | None:
        """Return where the line ends that has its LF or CR here; None while a CR may still become a CRLF."""
        if certain or self._pending[at] == _LF:
            return at + 1
        if at + 1 == len(self._pending):
            return None
        return at + 2 if self._pending[at + 1] == _LF else at + 1

    def _forget(self, length: int) -> None:
        del self._pending[:length]
        self._line = max(0, self._line - length)
        self._seen = max(0, self._seen - length)

    def _require_size(self, length: int) -> None:
        if length > self._max_event_bytes:
            raise BadGateway("upstream_event_too_large", detail=f"an event is over {self._max_event_bytes} bytes long")


def data_of(event: bytes) -> bytes | None:
    """Return an event's data, its lines joined by LF; None when it has no data field."""
    values = [value for line in event.splitlines() if (value := _value(line)) is not None]
    return b"\n".join(values) if values else None


def with_data(event: bytes, data: bytes) -> bytes:
    """Return the event with other data, where the last line of its data was, and every other line as it was.

    An event without a data field has nothing to replace and stays as it is.
    """
    lines = event.splitlines(keepends=True)
    places = {place for place, line in enumerate(lines) if _value(line.rstrip(b"\r\n")) is not None}
    if not places:
        return event
    # At the last place and with its line end: anywhere else a CR could come to stand before an LF, and two lines
    # would become one.
    last = max(places)
    end = lines[last][len(lines[last].rstrip(b"\r\n")) :]
    lines[last] = (end or b"\n").join(b"data: " + part for part in _BREAK.split(data)) + end
    return b"".join([line for place, line in enumerate(lines) if place == last or place not in places])


def _value(line: bytes) -> bytes | None:
    """Return what a line adds to the data, or None when it is no data line.

    A byte order mark before it counts for nothing: a stream may begin with one.
    """
    line = line.removeprefix(_BYTE_ORDER_MARK)
    if line.startswith(b"data:"):
        return line[5:].removeprefix(b" ")
    return b"" if line == b"data" else None
