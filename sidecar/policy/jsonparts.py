"""Where in a JSON text are its parts? For changing one of them and leaving every other byte as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

_NOT_SPACE: Final = re.compile(r"[^ \t\n\r]")
_ESCAPES: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F])|.)", re.DOTALL
)
"""A surrogate pair, or half of one (the group), or any other escape."""


@dataclass(frozen=True, slots=True)
class Part:
    """A value and where it stands in the text."""

    value: Any = field(repr=False)
    """Of an object or array that was taken apart: its members or elements, each a `Part`; else the value itself."""
    begin: int
    end: int


def read(text: str, depth: int) -> Part:
    """Read one JSON text (RFC 8259) and take its outermost `depth` levels apart.

    A number's value may be less exact here than its text, which is what counts.

    Raises:
        ValueError: not one JSON value, NaN, an integer of over 4300 digits, too many levels, or a name that comes
            twice in one object however it is escaped.
    """
    reader = _Reader(text)
    try:
        part = reader.part(depth)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    reader.require_end()
    return part


def require_whole_characters(text: str) -> None:
    """Raise ValueError when an escape in a valid JSON text is half of a surrogate pair, which readers differ about."""
    if any(escape[1] for escape in _ESCAPES.finditer(text)):
        raise ValueError("half of a surrogate pair")


def edited(text: str, edits: list[tuple[int, int, str]]) -> str:
    """Return the text with other text in these places: where each begins and ends, in order, none in another."""
    pieces, at = [], 0
    for begin, end, replacement in edits:
        pieces += [text[at:begin], replacement]
        at = end
    return "".join([*pieces, text[at:]])


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def part(self, depth: int) -> Part:
        self._skip_space()
        begin = self._at
        value: Any
        if depth > 0 and self._take("{"):
            value = self._members(depth - 1)
        elif depth > 0 and self._take("["):
            value = [self.part(depth - 1) for _ in self._items("]")]
        else:
            value, self._at = _DECODER.raw_decode(self._text, begin)
        return Part(value, begin, self._at)

    def require_end(self) -> None:
        self._skip_space()
        if self._at != len(self._text):
            raise ValueError(f"something follows the value at character {self._at}")

    def _members(self, depth: int) -> dict[str, Part]:
        found: dict[str, Part] = {}
        for _ in self._items("}"):
            name = self.part(0).value
            if not isinstance(name, str) or name in found:
                raise ValueError(f"no name, or one that came before, ends at character {self._at}")
            self._require(":")
            found[name] = self.part(depth)
        return found

    def _items(self, closing: str) -> Iterator[None]:
        """Stop once before each item."""
        if self._take(closing):
            return
        while True:
            yield
            if self._take(closing):
                return
            self._require(",")

    def _require(self, mark: str) -> None:
        if not self._take(mark):
            raise ValueError(f"{mark!r} is missing at character {self._at}")

    def _take(self, mark: str) -> bool:
        self._skip_space()
        if not self._text.startswith(mark, self._at):
            return False
        self._at += 1
        return True

    def _skip_space(self) -> None:
        found = _NOT_SPACE.search(self._text, self._at)
        self._at = len(self._text) if found is None else found.start()


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a name comes twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
