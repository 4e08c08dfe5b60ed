"""One YAML document with the line of every value, the environment filled in, and every problem in one list.

YAML 1.1's traps are shut: only ``true`` and ``false`` are booleans, ``on``, ``60:30`` and ``1_000`` are text, and a
number with leading zeros is text too, so that nobody gets a value that they did not write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

ReadFile = Callable[[str], bytes]
Plain = str | int | float | bool | None

_MAX_DEPTH: Final = 20
_SHOWN: Final = 200
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_ORDINARY_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLAIN: Final[Mapping[str, Plain]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
"""YAML 1.2.2 section 10.3.2."""
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]{1,18}|(0|[1-9][0-9]{0,17})(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,3})?")
_NO_ALIAS: Final = 'anchors and aliases are not used here; text that begins with "*" or "&" goes in quotes'
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters and line ends, and the lone surrogates that stand for what can't be encoded."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps the settings from being used. Never holds a secret's value."""

    key: str
    """Dotted, with indices: ``limits.policies[1].window_s``; empty when the document itself can't be read."""
    line: int | None
    """From 1; None for what is not in the file."""
    message: str

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}: "
        return f"{where}{self.key}: {self.message}" if self.key else f"{where}{self.message}"


class ConfigError(Exception):
    """The settings can't be used; `problems` says why, all at once, by line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Refused(Exception):  # noqa: N818 - the reader's word to itself, becomes a Problem
    """A value is not what its key allows."""


@dataclass(slots=True)
class Document:
    """What reading a document needs, and what it leaves behind."""

    environ: Mapping[str, str] = field(repr=False)
    read_file: ReadFile
    problems: list[Problem] = field(default_factory=list)
    lines: dict[str, int | None] = field(default_factory=dict)

    def refuse(self, key: str, line: int | None, message: str) -> None:
        self.problems.append(Problem(key, line, message))

    def line_of(self, key: str) -> int | None:
        """Return the line of this key, or of the nearest one above it that is in the file."""
        while key not in self.lines and key:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.lines.get(key)


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of the document, and where it stands."""

    key: str
    line: int | None
    node: yaml.Node
    document: Document

    @property
    def kind(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        return "a list" if isinstance(self.node, yaml.SequenceNode) else "a single value"

    @property
    def is_null(self) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.value() is None

    @property
    def shown(self) -> str:
        """A single value as the file writes it: what the environment fills in is never repeated."""
        raw = str(self.node.value)
        if getattr(self.node, "style", None) is None and not isinstance(plain(raw), str):
            return raw or "nothing"
        return json.dumps(raw[:_SHOWN], ensure_ascii=False)

    @property
    def is_filled(self) -> bool:
        """Whether the environment had a part in this value."""
        return isinstance(self.node, yaml.ScalarNode) and any(
            match[1] is not None for match in _REFERENCE.finditer(self.node.value)
        )

    def text(self) -> str:
        """Return a single value as text, quoted or not, with the environment filled in."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise Refused(f"must be a single value, not {self.kind}")
        text = _filled(self.node.value, self.document.environ)
        if _CONTROL.search(text):
            raise Refused("must be one line of text without control characters")
        return text

    def value(self) -> Plain:
        """Return a single value, typed if it is not in quotes."""
        text = self.text()
        return plain(text) if getattr(self.node, "style", None) is None else text

    def items(self) -> list[Entry]:
        """Return the values of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise Refused(f"must be a list, [] for none, not {self.kind}")
        return [self._below(f"{self.key}[{index}]", node, node) for index, node in enumerate(self.node.value)]

    def fields(self) -> dict[str, Entry]:
        """Return the values of a mapping by name; nothing at all is an empty one. Reports doubled names."""
        if self.is_null:
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise Refused(f"must be a mapping of names to values, not {self.kind}")
        fields: dict[str, Entry] = {}
        for name_node, node in self.node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                self.document.refuse(self.key, _line(name_node), "has a name that is a list or a mapping")
                continue
            entry = self._below(key_below(self.key, name_node.value), node, name_node)
            if (first := fields.setdefault(name_node.value, entry)) is not entry:
                self.document.refuse(entry.key, entry.line, f"is given twice; the first is on line {first.line}")
        return fields

    def _below(self, key: str, node: yaml.Node, place: yaml.Node) -> Entry:
        line = _line(place)
        self.document.lines.setdefault(key, line)
        return Entry(key, line, node, self.document)


def plain(text: str) -> Plain:
    """Type an unquoted scalar by YAML 1.2's core schema, decimal numbers only. Never raises."""
    if text in _PLAIN:
        return _PLAIN[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def key_below(key: str, name: str) -> str:
    """Return the dotted key of a name in the mapping at `key`."""
    shown = name if _ORDINARY_KEY.fullmatch(name) else json.dumps(name[:_SHOWN])
    return f"{key}.{shown}" if key else shown


def compose(text: str, document: Document, overrides: Mapping[str, str]) -> Entry:
    """Read one YAML document. `overrides` replaces single values by dotted key, outside any list.

    Raises:
        ConfigError: when the text is not one YAML document.
    """
    root = _parsed(text) or yaml.MappingNode(_Composer.DEFAULT_MAPPING_TAG, [])
    for key, value in overrides.items():
        _override(root, key.split("."), value)
    return Entry("", _line(root), root, document)


class _Composer(yaml.SafeLoader):
    """YAML without what settings don't need: aliases (and the bombs made of them), tags, and deep nesting."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - declared so by PyYAML; read only
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it untyped
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(None, None, _NO_ALIAS, event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(None, None, "tags are not used here; put text in quotes", event.start_mark)
        if self.depth >= _MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, "this is nested too deeply", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _parsed(text: str) -> yaml.Node | None:
    loader: _Composer | None = None
    try:
        loader = _Composer(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError((Problem("", line, _explained(error, text, line)),)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError((Problem("", line, "has a character that YAML does not allow"),)) from error
    except (ValueError, OverflowError) as error:  # PyYAML lets them out for escapes like "\UFFFFFFFF"
        line = None if loader is None else loader.line + 1
        raise ConfigError((Problem("", line, "has a character or number that YAML does not allow"),)) from error


def _explained(error: yaml.MarkedYAMLError, text: str, line: int | None) -> str:
    problem = error.problem or "unreadable"
    if "found character '\\t'" in problem:
        problem = "a tab where only spaces may indent"
    if error.context in ("while scanning an alias", "while scanning an anchor"):
        problem = _NO_ALIAS
    if problem == "but found another document":
        problem = "this is a second document, and only one is read"
    lines = text.splitlines()
    unquoted = line is not None and line <= len(lines) and "${" in lines[line - 1]
    return f"is not valid YAML: {problem}" + ("; between { } or [ ], put ${NAME} in quotes" if unquoted else "")


def _override(root: yaml.Node, path: list[str], value: str) -> None:
    scalar = yaml.ScalarNode(_Composer.DEFAULT_SCALAR_TAG, value)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    child = next((node for name, node in pairs if name.value == path[0]), None)
    if len(path) > 1 and isinstance(child, yaml.MappingNode):
        _override(child, path[1:], value)
        return
    node: yaml.Node = scalar
    for name in reversed(path[1:]):
        node = yaml.MappingNode(scalar.tag, [(yaml.ScalarNode(scalar.tag, name), node)])
    pairs[:] = [pair for pair in pairs if pair[0].value != path[0]]
    pairs.append((yaml.ScalarNode(scalar.tag, path[0]), node))


def _filled(raw: str, environ: Mapping[str, str]) -> str:
    names = [match[1] for match in _REFERENCE.finditer(raw) if match[1] is not None]
    if not all(_NAME.fullmatch(name) for name in names) or not all(
        match[2] for match in _REFERENCE.finditer(raw) if match[1] is not None
    ):
        raise Refused("takes values from the environment as ${NAME} and in no other form; write $${ for a literal ${")
    if unset := sorted({name for name in names if name not in environ}):
        raise Refused(f"needs {', '.join(unset)} from the environment, which is not set")
    return _REFERENCE.sub(lambda match: "${" if match[1] is None else environ[match[1]], raw)


def _line(node: yaml.Node) -> int | None:
    return node.start_mark.line + 1 if node.start_mark else None
