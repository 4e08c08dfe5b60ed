"""Which name could another reader take this one for?"""

from __future__ import annotations

import unicodedata
from itertools import chain
from typing import Final

_LAST_COMPATIBLE: Final = 0x1FFFF
"""The planes above hold ideographs, tags and private characters: none of them stands for an ASCII character."""
_UNSEEN: Final = frozenset(
    map(
        chr,
        chain(
            (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0),
            range(0xFE00, 0xFE10),
            range(0xE0100, 0xE01F0),
        ),
    )
)
"""Default ignorable characters (Unicode, DerivedCoreProperties) that `str.isprintable` lets through."""
BLANK: Final = _UNSEEN | {"\u2800"}
"""What people do not see although `str.isprintable` lets it through; a Braille pattern without dots too."""
_SKIPPED: Final = " _-"
"""Readers that match names loosely skip these: Go's encoding/json/v2, and whoever takes snake_case for camelCase."""


def fold(name: str) -> str | None:
    """Return what is left of a member's name for the most lenient of readers, or None: then it is no ASCII name.

    Such a reader folds case and compatibility characters (Unicode NFKC), and does not see what nobody sees: spaces,
    control and ignorable characters, `_` and `-`. Takes time by the length of the name alone, whatever is in it.
    """
    folded = []
    for char in filter(str.isprintable, name):
        piece = _PIECES.get(char)
        if piece is None:
            return None
        folded.append(piece)
    return "".join(folded)


def _pieces() -> dict[str, str]:
    """Return, for each printable character that stands for ASCII characters or none, those characters."""
    pieces = {}
    for char in filter(str.isprintable, map(chr, range(_LAST_COMPATIBLE + 1))):
        piece = unicodedata.normalize("NFKC", char).casefold()
        if piece.isascii():
            pieces[char] = "".join(part for part in piece if part not in _SKIPPED)
    return pieces | dict.fromkeys(_UNSEEN, "") | {"\u0131": "i", "\u0130": "i"}  # Java's simple case mapping


_PIECES: Final = _pieces()
