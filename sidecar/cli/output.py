"""What a command has to say, and how it is written: words for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from sidecar.config import ConfigError
from sidecar.denials import Denial


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did: the same thing twice, and the exit code."""

    document: dict[str, Any] = field(repr=False)
    text: str = field(repr=False)
    code: int = 0


class CommandError(Exception):
    """A command could not do what it was asked. `error_type` is for programs, the text for people."""

    def __init__(self, error_type: str, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.code = code

    @classmethod
    def refused(cls, denial: Denial) -> CommandError:
        """Say what a client would hear, and what only the log would: whoever runs a command is the operator."""
        return cls(denial.error_type, f"{denial.message} ({denial.detail})" if denial.detail else denial.message)

    @classmethod
    def unusable(cls, error: ConfigError) -> CommandError:
        """Name every problem of the settings."""
        return cls("INVALID_CONFIG", "\n  ".join(["the settings can't be used:", *map(str, error.problems)]))


def write_outcome(outcome: Outcome, *, as_json: bool) -> int:
    """Write to standard output, and return the exit code."""
    _write(sys.stdout, json.dumps(outcome.document, indent=2) if as_json else outcome.text)
    return outcome.code


def write_error(error: CommandError, *, as_json: bool) -> int:
    """Write to standard error, and return the exit code."""
    document = {"error": {"errorType": error.error_type, "message": str(error)}}
    _write(sys.stderr, json.dumps(document) if as_json else f"sidecar: {error}")
    return error.code


def write_warnings(warnings: Iterable[str], *, as_json: bool) -> None:
    """Write to standard error, where a program that asked for JSON expects failures only."""
    for warning in () if as_json else warnings:
        _write(sys.stderr, f"sidecar: warning: {warning}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out columns, each as wide as its widest cell."""
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def lines(document: dict[str, Any]) -> str:
    """Lay out the members of a document, one a line."""
    return "\n".join(f"{name + ':':<12} {_words(value)}" for name, value in document.items())


def _words(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value)
    return "-" if value is None else str(value)


def _write(stream: TextIO, text: str) -> None:
    # A terminal that can't show a character gets it escaped rather than a traceback.
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding).rstrip("\n") + "\n")
    stream.flush()
