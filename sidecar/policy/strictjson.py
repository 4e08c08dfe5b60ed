"""The one strict JSON reader of the house: what it lets through, every parser reads alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from sidecar.denials import InvalidJson, InvalidRequest

_MOST_PARTS: Final = 200_000
"""Objects and arrays in one document. The parser lets no other thread run meanwhile: for 50 ms with so many, and for
700 ms with the 2 million that 4 MiB can hold. As many pairs of coordinates as fit into 4 MiB are fewer."""


def loads(data: bytes, *, max_depth: int = 128) -> Any:
    """Read one JSON document (RFC 8259) that has only one reading, or refuse it.

    Refused beyond bad syntax: anything but UTF-8, a byte order mark, NaN and numbers beyond a double, lone
    surrogates, a raw NUL, nesting deeper than `max_depth`, more than 200 000 objects and arrays, and a name that
    comes twice in one object, however it is escaped. Integers of 2**64 and more come back as floats: forward the
    bytes, never the value.

    Raises:
        InvalidJson: reason ``json_encoding``, ``json_syntax``, ``json_depth`` or ``json_too_many_parts``.
        InvalidRequest: reason ``json_duplicate_name``; the document is JSON, what it means depends on the reader.
    """
    # As with colons below: all brackets are the cheap upper bound, those outside strings are the exact count.
    if _count_parts(data) > _MOST_PARTS and _count_parts(_outside_strings(data)) > _MOST_PARTS:
        raise InvalidJson("json_too_many_parts", f"The body holds more than {_MOST_PARTS} objects and arrays")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _not_json(data, error) from error
    members = _count_members(value, max_depth)
    # A doubled name has been merged by now, so the text then holds more colons than the value has members.
    # All colons are the cheap upper bound; those outside strings are the exact count.
    if members != data.count(b":") and members != _outside_strings(data).count(b":"):
        raise InvalidRequest("json_duplicate_name", "A name occurs twice in one JSON object")
    return value


def _count_parts(data: bytes) -> int:
    return data.count(b"[") + data.count(b"{")


def _count_members(value: Any, max_depth: int) -> int:
    """Count the members of all objects, level by level; refuse a level too many."""
    members = depth = 0
    level = [value] if isinstance(value, dict | list) else []
    while level:
        depth += 1
        if depth > max_depth:
            raise InvalidJson("json_depth", f"The body nests deeper than {max_depth} levels")
        below = []
        for node in level:
            children: Iterable[Any] = node
            if type(node) is dict:
                members += len(node)
                children = node.values()
            for child in children:
                kind = type(child)
                if kind is dict or kind is list:
                    below.append(child)
        level = below
    return members


def _outside_strings(data: bytes) -> bytes:
    """Return a valid document without its strings; of another one, at least what is outside strings before its fault.

    Within a string every run of backslashes begins with an escape, so that taking pairs away first leaves an
    escaped quote as the only backslash before a quote.
    """
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(unescaped.split(b'"')[::2])


def _not_json(data: bytes, error: orjson.JSONDecodeError) -> InvalidJson:
    detail = f"{error.msg} at character {error.pos}"
    try:
        encoded = not data.decode().startswith("\ufeff")
    except UnicodeDecodeError:
        encoded = False
    if not encoded:
        return InvalidJson("json_encoding", "The body must be UTF-8 without a byte order mark", detail=detail)
    return InvalidJson("json_syntax", "The body is not valid JSON", detail=detail)
