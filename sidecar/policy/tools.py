"""Is this tool a read, a write or destructive?"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sidecar.bounded import BoundedCache
from sidecar.model import ToolClass

_REMEMBERED: Final = 4096
_MOST_DANGEROUS_FIRST: Final[tuple[ToolClass, ...]] = ("destructive", "write", "read")


@dataclass(frozen=True, slots=True)
class ToolFinding:
    """What a tool is, and why: an entry of the operator's list, the upstream's annotation, or nobody's word."""

    tool_class: ToolClass
    because: Literal["list", "annotation", "default"]
    entry: str | None = None
    """As it stands in the list."""


class ToolLists:
    """The operator's own word on tools: exact names or globs, case-sensitive. The most dangerous match counts.

    What it is is remembered for 4096 names, which makes no difference to it: the lists never change.
    """

    def __init__(self, lists: Mapping[ToolClass, Iterable[str]]) -> None:
        self._patterns = tuple(
            (tool_class, names_or_globs(lists.get(tool_class, ()))) for tool_class in _MOST_DANGEROUS_FIRST
        )
        self._texts = {tool_class: tuple(lists.get(tool_class, ())) for tool_class in _MOST_DANGEROUS_FIRST}
        self._remembered: BoundedCache[str, ToolClass | None] = BoundedCache(_REMEMBERED)

    def declared(self, tool: str) -> ToolClass | None:
        """Return the class that the operator gave this tool, or None when no list names it."""
        if tool in self._remembered:
            return self._remembered[tool]
        declared = next((tool_class for tool_class, pattern in self._patterns if pattern.fullmatch(tool)), None)
        self._remembered[tool] = declared
        return declared

    def entry(self, tool: str) -> str | None:
        """Return the entry that makes it what `declared` says, the first one of that list; None when no list has it."""
        declared = self.declared(tool)
        if declared is None:
            return None
        return next(text for text in self._texts[declared] if names_or_globs([text]).fullmatch(tool))


def names_or_globs(texts: Iterable[str]) -> re.Pattern[str]:
    """Return what matches whole names, by case: each text as it stands, and as a glob (`*`, `?`, `[...]`)."""
    alternatives = [form for text in texts for form in (re.escape(text), fnmatch.translate(text))]
    return re.compile("|".join(alternatives) if alternatives else r"(?!)")


def class_of_annotations(annotations: object) -> ToolClass | None:
    """Return the class that a tool's annotations give it; None when they give none, which makes it a write.

    Only the JSON literal `true` counts (MCP 2025-03-26 and later, server/tools): absent, null, 1 and "true" do not.
    A tool that claims to be read-only and destructive at once is taken at its worst word.
    """
    if not isinstance(annotations, dict):
        return None
    if annotations.get("destructiveHint") is True:
        return "destructive"
    return "read" if annotations.get("readOnlyHint") is True else None


def least_trusted(classes: Iterable[ToolClass | None]) -> ToolClass | None:
    """Return what a tool is that is said to be all of these."""
    said = set(classes)
    if "destructive" in said:
        return "destructive"
    return "read" if said == {"read"} else None
