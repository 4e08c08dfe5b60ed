"""From a document to dataclasses, by one rule for each field. Knows YAML's shapes and no setting of ours.

A rule takes an entry of the document and returns its value, or raises `Refused`. Then `UNREADABLE` stands where the
value would, and reading goes on, so that every problem is told at once: checks between values leave out what is
unreadable and judge the rest.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeVar, cast

from sidecar.config.document import (
    ConfigError,
    Document,
    Entry,
    Problem,
    ReadFile,
    Refused,
    compose,
    key_below,
)

T = TypeVar("T")
Rule = Callable[[Entry], T]
Complaint = tuple[str, str]
"""A key and what is wrong with it."""
Prepare = Callable[[dict[str, Any]], Iterator[Complaint]]
"""Completes the values of a section by file name before it is built, and tells which of them don't go together, by the
key below the section, or an empty one for the whole of it."""
CrossRule = tuple[tuple[str, ...], Callable[[T], Iterator[Complaint]]]
"""The keys that a rule over several sections reads, and the rule. Their lines stand for that of a key that is not in
the file."""

_HIDDEN: Final = "(hidden)"


class _Unreadable:
    """A value that could not be read, and so is all below it. As a list it has no items. It is in no `Config`."""

    def __getattr__(self, name: str) -> _Unreadable:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __repr__(self) -> str:
        return "UNREADABLE"


UNREADABLE: Final[Any] = _Unreadable()


def readable(*values: Any) -> bool:
    """Tell whether each of these could be read, with all items of those that are lists."""
    return all(readable(*value) if isinstance(value, tuple) else value is not UNREADABLE for value in values)


def setting(
    rule: Rule[T],
    default: Any = dataclasses.MISSING,
    *,
    key: str | None = None,
    secret: bool = False,
    shown: Callable[[Any], Any] | None = None,
) -> T:
    """Declare a dataclass field that is read by `rule`; without a default it has to be in the file.

    `key` is its name in the file when that differs. A `secret` is in no repr and no listing; `shown` is for one of
    which some part may be listed.
    """
    metadata = {"rule": rule, "key": key, "shown": shown}
    return cast(T, dataclasses.field(default=default, repr=not (secret or shown), metadata=metadata))


def nested(build: Callable[..., T]) -> T:
    """Declare a dataclass field that is itself a section, read by the rules of its own fields."""
    return setting(section(build), build())


def section(
    build: Callable[..., T], rules: Mapping[str, Rule[Any]] | None = None, *, prepare: Prepare | None = None
) -> Rule[T]:
    """Return the rule for a mapping. Without `rules`, they are those that the dataclass's fields declare."""
    declared = _declared(build) if rules is None else {name: (name, rule) for name, rule in rules.items()}
    required = [
        name for name, field in inspect.signature(build).parameters.items() if field.default is inspect.Parameter.empty
    ]

    def read(entry: Entry) -> T:
        given = entry.fields()
        _refuse_unknown(entry, given, declared)
        values = {name: _read(given[name], rule) for name, (_, rule) in declared.items() if name in given}
        for name in required:
            if name in declared and name not in given:
                entry.document.refuse(key_below(entry.key, name), entry.line, "is required")
        for name, message in prepare(values) if prepare else ():
            key = key_below(entry.key, name) if name else entry.key
            entry.document.refuse(key, entry.document.line_of(key), message)
        fields = {declared[name][0] if name in declared else name: value for name, value in values.items()}
        return build(**dict.fromkeys(required, UNREADABLE) | fields)

    return read


def listed(rule: Rule[T], *, at_least: int = 0, unique: str | None = "", of: str = "value") -> Rule[tuple[T, ...]]:
    """Return the rule for a list.

    Values must differ from each other: as a whole, or in the attribute that `unique` names; None lets them repeat.
    """

    def read(entry: Entry) -> tuple[T, ...]:
        items = entry.items()
        if len(items) < at_least:
            raise Refused(f"must name at least one {of}")
        values = tuple(_read(item, rule) for item in items)
        if unique is not None:
            _refuse_repeats(items, values, unique)
        return values

    return read


def optional(rule: Rule[T]) -> Rule[T | None]:
    """Return the rule for a value that may be null."""
    return lambda entry: None if entry.is_null else rule(entry)


def read(
    text: str,
    environ: Mapping[str, str],
    read_file: ReadFile,
    rule: Rule[T],
    cross_rules: Iterable[CrossRule[T]],
    overrides: Mapping[str, str],
) -> T:
    """Read a whole document.

    Raises:
        ConfigError: with every problem there is, by line.
    """
    document = Document(environ, read_file)
    value = _read(compose(text, document, overrides), rule)
    _cross_check(document, value, cross_rules)
    if document.problems:
        raise ConfigError(tuple(sorted(document.problems, key=_by_line)))
    return cast(T, value)


def listing(value: Any) -> Any:
    """Return a dataclass as plain data in the shape of the file, secrets hidden."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.metadata.get("key") or field.name: _listed_field(value, field) for field in fields}
    if isinstance(value, tuple):
        return [listing(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _listed_field(value: Any, field: dataclasses.Field[Any]) -> Any:
    content = getattr(value, field.name)
    if field.repr or content is None:
        return listing(content)
    shown = field.metadata.get("shown")
    return shown(content) if shown else _HIDDEN


def _declared(build: Any) -> dict[str, tuple[str, Rule[Any]]]:
    fields = dataclasses.fields(build)
    return {field.metadata["key"] or field.name: (field.name, field.metadata["rule"]) for field in fields}


def _read(entry: Entry, rule: Rule[Any]) -> Any:
    try:
        return rule(entry)
    except Refused as refusal:
        entry.document.refuse(entry.key, entry.line, str(refusal))
        return UNREADABLE


def _refuse_unknown(entry: Entry, given: Mapping[str, Entry], known: Mapping[str, object]) -> None:
    for name, item in given.items():
        if name in known:
            continue
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"
        entry.document.refuse(item.key, item.line, f"is not a known key{hint}")


def _refuse_repeats(items: list[Entry], values: tuple[Any, ...], attribute: str) -> None:
    seen: dict[Any, str] = {}
    for item, value in zip(items, values, strict=True):
        compared = getattr(value, attribute) if attribute else value
        if not readable(compared):
            continue
        key = f"{item.key}.{attribute}" if attribute else item.key
        first = seen.setdefault(compared, key)
        if first != key:
            item.document.refuse(key, item.document.line_of(key), f"must not be the same as {first}")


def _cross_check(document: Document, value: T, cross_rules: Iterable[CrossRule[T]]) -> None:
    for keys, rule in cross_rules:
        for key, message in rule(value):
            lines = (document.line_of(one) for one in (key, *keys))
            document.refuse(key, next((line for line in lines if line), None), message)


def _by_line(problem: Problem) -> tuple[bool, int, str]:
    return (problem.line is None, problem.line or 0, problem.key)
