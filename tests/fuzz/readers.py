"""How other programs read JSON. Independent of how the sidecar does, so that the two can be compared."""

from __future__ import annotations

import codecs
import json
import math
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

ABSENT: Final = "(absent)"


class Members(tuple[tuple[str, Any], ...]):
    """An object as it is written: in order, names may come twice."""

    __slots__ = ()


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str


def read(text: str) -> Any:
    """Read JSON as the standard library does, losing nothing. Raises ValueError."""
    return _DECODER.decode(text)


def read_first(text: str) -> Any:
    """Read one value and leave what follows, as decoders of streams do. Raises ValueError."""
    return _DECODER.raw_decode(text.lstrip(" \t\r\n"))[0]


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=Number
)


def _sniffed(data: bytes) -> str:
    return data.decode(json.detect_encoding(data), "surrogatepass")


def _replaced(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _without_mark(data: bytes) -> str:
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")


DECODINGS: Final = (_sniffed, _replaced, _without_mark)
"""Of `json.loads(bytes)`; of Node's Buffer and Go; of a browser's TextDecoder."""


def texts(data: bytes) -> Iterator[str]:
    """Yield every text that some program takes these bytes for."""
    found = set()
    for decode in DECODINGS:
        try:
            found.add(decode(data))
        except ValueError:
            continue
    yield from found


def documents(data: bytes) -> Iterator[Any]:
    """Yield every document that some program takes these bytes for."""
    for text in texts(data):
        for reading in (read, read_first):
            try:
                yield reading(text)
            except (ValueError, RecursionError):
                continue


def _go(name: str) -> str:
    """Go's encoding/json: simple case folding, by which two letters beyond ASCII are one of ASCII."""
    return name.translate({0x17F: "s", 0x212A: "k"}).lower()


def _no_nul(name: str) -> str:
    """A Go parser that took a name for another one with a NUL after it."""
    return name.rstrip("\0")


def _loose(name: str) -> str:
    """Someone who cleans names up before looking at them."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(char for char in folded if unicodedata.category(char)[0] not in "CZ")


def _snake(name: str) -> str:
    """Go's encoding/json/v2 where it folds case, and whoever has a snake_case alias for each name."""
    return _loose(name).replace("_", "").replace("-", "")


@dataclass(frozen=True)
class Lookup:
    """How a program finds a member: which names are one to it, which of several counts, and where else it looks."""

    same: Callable[[str], str]
    first: bool
    inherits: bool = False
    """Whether what is missing is looked for in a member `__proto__`, as in JavaScript after `Object.assign({}, it)`."""

    def __repr__(self) -> str:
        return f"{self.same.__name__}, {'first' if self.first else 'last'}{', inherits' if self.inherits else ''}"

    def __call__(self, node: Any, *path: str) -> Any:
        for name in path:
            if not isinstance(node, Members):
                return ABSENT
            wanted = self.same(name)
            values = [value for written, value in node if self.same(written) == wanted]
            if not values and self.inherits and name != "__proto__":
                values = [self(node, "__proto__", name)]
            if not values:
                return ABSENT
            node = values[0 if self.first else -1]
        return node


EXACT: Final = tuple(Lookup(str, first) for first in (True, False))
GO: Final = tuple(Lookup(_go, first) for first in (True, False))
LOOKUPS: Final = (
    *(*EXACT, *GO, Lookup(str, first=False, inherits=True)),
    *(Lookup(same, first) for same in (_no_nul, _loose, _snake) for first in (True, False)),
)


def told(value: Any) -> Any:
    """Return what can be compared of a value, from a parser that keeps numbers' texts or from one that does not."""
    if isinstance(value, Members | dict):
        return "(object)"
    if isinstance(value, list):
        return "(array)"
    if isinstance(value, Number):
        number = float(value.text)
        return int(value.text) if value.text.lstrip("-").isdigit() and abs(number) < 2**53 else number
    if type(value) is int and abs(value) >= 2**53:
        return float(value)
    return value


def has_doubled_name(node: Any) -> bool:
    """Tell whether any object of a document has a name twice."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Members):
            if len({name for name, _ in node}) != len(node):
                return True
            waiting += [value for _, value in node]
        elif isinstance(node, list):
            waiting += node
    return False


def is_finite(node: Any) -> bool:
    """Tell whether every number of a document fits a double."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Number) and not math.isfinite(float(node.text)):
            return False
        if isinstance(node, Members):
            waiting += [value for _, value in node]
        elif isinstance(node, list):
            waiting += node
    return True
