"""How is JSON that somebody else wrote shown, so that nothing in it is out of sight and nothing of it is changed?"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Final

from sidecar.policy import jsonparts
from sidecar.policy.pins import inert

_TOKEN: Final = re.compile(r'[ \t\n\r]*([\[\]{},:]|[-+.0-9A-Za-z]+|"(?:[^"\\]|\\.)*(?:"|\\?\Z)|\Z)', re.DOTALL)
"""At the end of a text that was cut, also a string that does not end."""
_BRACKETS: Final = frozenset("[]{}")
_MARKS: Final = _BRACKETS | frozenset(",:")
_WRITTEN: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|[^ -~]", re.DOTALL
)
"""In a string: an escape (a surrogate pair is one), or what is not plain ASCII."""
_MANY_SPACES: Final = re.compile("(?<= {40}) +")
_INDENT: Final = "  "
_DEEPEST_INDENT: Final = 20


def laid_out(text: str, *, is_cut: bool) -> str | None:
    """Return this JSON text with white space of our own, and in strings whatever can be seen as itself.

    It has the same tokens in the same order, numbers just as they are written. What is invisible, turns the direction
    of text or could push the rest out of sight is escaped, also where it was not. Long strings stay whole. None when it
    is no JSON that has one reading; where `is_cut`, when it can't be how JSON begins.
    """
    if not is_cut and not _is_json(text):
        return None
    tokens = _tokens(text)
    return None if tokens is None else _lines(tokens)


def _is_json(text: str) -> bool:
    try:
        jsonparts.read(text, 0)
    except ValueError:
        return False
    return True


def _tokens(text: str) -> list[str] | None:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        at = match.end()
        found.append(match[1])
    tokens = [token for token in found if token]
    if any(one not in _MARKS and other not in _MARKS for one, other in pairwise(tokens)):
        return None
    return tokens


def _lines(tokens: list[str]) -> str | None:
    pieces: list[str] = []
    between: list[str] = []
    for at, part in enumerate(tokens):
        if part in ("{", "["):
            has_lines = _has_lines(tokens, at)
            between.append(_break(len(between) + 1) if has_lines else " ")
            pieces.append(part + between[-1] if has_lines else part)
        elif part in ("}", "]"):
            if not between:
                return None
            pieces.append(part if between.pop() == " " else _break(len(between)) + part)
        elif part == ",":
            pieces.append(part + (between[-1] if between else " "))
        elif part == ":":
            pieces.append(": ")
        else:
            shown = _WRITTEN.sub(_shown, part)
            pieces.append(_MANY_SPACES.sub(lambda match: "\\u0020" * len(match[0]), shown))
    return "".join(pieces).rstrip("\n ")


def _has_lines(tokens: list[str], at: int) -> bool:
    """Tell whether what is inside of this bracket has lines of its own: not in `{}`, nor in a list of plain values."""
    if tokens[at] == "{":
        return tokens[at + 1 : at + 2] != ["}"]
    brackets = (tokens[later] for later in range(at + 1, len(tokens)) if tokens[later] in _BRACKETS)
    return next(brackets, "]") != "]"


def _break(depth: int) -> str:
    return "\n" + _INDENT * min(depth, _DEEPEST_INDENT)


def _shown(match: re.Match[str]) -> str:
    written = match[0]
    if written[0] != "\\":
        return written if inert(written) == written else json.dumps(written)[1:-1]
    if written == "\\/":
        return "/"
    if len(written) == 2:
        return written
    char = json.loads(f'"{written}"')
    if char in ('"', "\\"):
        return f"\\{char}"
    return char if inert(char) == char else written
