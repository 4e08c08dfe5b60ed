"""The pages for people, as files: HTML, one style, and ES modules that browsers run as they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_SUFFIXES = (".html", ".css", ".js")


@cache
def contents() -> Mapping[str, bytes]:
    """Return the files by name; they are read once."""
    static = files(__name__) / "static"
    return MappingProxyType(
        {file.name: file.read_bytes() for file in static.iterdir() if file.name.endswith(_SUFFIXES)}
    )
