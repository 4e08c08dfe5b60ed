"""JSON made of bytes, each of which decides something: always valid, often nearly what is asked for, never quite.

So that fuzzing spends its time behind the parser's door too, and not only before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MARK: Final = b"\0"
"""What no JSON begins with stands before bytes that JSON is to be made of."""
DEEPEST: Final = 6
ODD: Final = ("\0", " ", "\u200d", "\ufeff", "\u0300", "\x1f", "\u2028", "s", "\U0001f600")
LOOKS_LIKE: Final = {"s": "\u017f", "k": "\u212a", "m": "\uff4d", "i": "\u0131", "a": "\u00aa", "K": "\u212a"}
TEXTS: Final = ("", "a", ":", '"', "\\", "\\:", "\u2028", "\U0001f600", "get", "drop", "\x7f", "}{")
PLAIN: Final = (
    *(b"null", b"true", b"false", b"0", b"-0", b"1", b"1.0", b"-1e-7", b"9007199254740992", b"18446744073709551616"),
    *(b"1.000000000000000005", b"1e308", b"{}", b"[]", b'[{"a":1}]', b'{"a":{"a":1},"b":[[]]}'),
)


@dataclass(frozen=True)
class Shape:
    """An object: the members that it usually has, and others that it may have."""

    usual: tuple[str, ...]
    others: tuple[str, ...] = ()
    listed: bool = False
    """Whether what stands here is a list of such objects."""


@dataclass(frozen=True)
class Grammar:
    """What stands under which name; the outermost object under the empty one."""

    shapes: Mapping[str, Shape]
    values: Mapping[str, Sequence[str | int]] = field(default_factory=dict)

    def made(self, data: bytes) -> bytes:
        """Return the document that these bytes decide on."""
        return "".join(_Maker(self, data).value("", 0)).encode()


class _Maker:
    def __init__(self, grammar: Grammar, data: bytes) -> None:
        self._grammar = grammar
        self._bytes = iter(data)

    def value(self, name: str, depth: int) -> Iterator[str]:
        choice = self._next()
        shape = self._grammar.shapes.get(name)
        if shape is not None and depth < DEEPEST and choice % 16 != 15:
            if shape.listed:
                yield from self._list(shape, depth)
            else:
                yield from self._object(shape, depth)
            return
        values = self._grammar.values.get(name, ())
        if values and choice % 8 != 7:
            yield json.dumps(values[choice // 8 % len(values)], ensure_ascii=bool(choice & 1))
        elif choice % 3:
            yield json.dumps(TEXTS[self._next() % len(TEXTS)], ensure_ascii=bool(choice & 1))
        else:
            yield PLAIN[self._next() % len(PLAIN)].decode()

    def _list(self, shape: Shape, depth: int) -> Iterator[str]:
        yield "["
        for number in range(self._next() % 5):
            yield self._gap() + ("," if number else "")
            yield from self._object(shape, depth + 1)
        yield "]"

    def _object(self, shape: Shape, depth: int) -> Iterator[str]:
        left_out = self._next()
        names = [name for place, name in enumerate(shape.usual) if left_out != place + 1]
        every = shape.others + shape.usual
        names += [every[self._next() % len(every)] for _ in range(self._next() % 4)]
        if self._next() % 4 == 3:
            names.reverse()
        yield "{"
        for number, name in enumerate(names):
            yield ("," if number else "") + self._gap() + self._spelled(name) + self._gap() + ":"
            yield from self.value(name, depth + 1)
        yield self._gap() + "}"

    def _spelled(self, name: str) -> str:
        how, place = self._next() % 32, self._next() % len(name)
        if how == 25:
            name = "".join(f"_{char.lower()}" if char.isupper() else char for char in name)
        elif how == 26:
            name = name.replace("_", "", 1)
        if how == 27:
            return f'"{name[:place]}\\u{ord(name[place]):04x}{name[place + 1 :]}"'
        if how == 28:
            name = name[:place] + name[place].swapcase() + name[place + 1 :]
        elif how == 29:
            name = "".join(LOOKS_LIKE.get(char, char) for char in name)
        elif how == 30:
            name += ODD[place % len(ODD)]
        elif how == 31:
            name = TEXTS[place % len(TEXTS)]
        return json.dumps(name, ensure_ascii=bool(place & 1))

    def _gap(self) -> str:
        return ("", "", "", " ", "\n", "\t\r")[self._next() % 6]

    def _next(self) -> int:
        return next(self._bytes, 0)
