"""The settings that a command runs under: a file, the environment, and for ``serve`` two options."""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sidecar import regular_file
from sidecar.cli.grammar import DEFAULT_FILE
from sidecar.config import Config, ConfigError, Problem, load

_MAX_BYTES: Final = 16 * 1024 * 1024
"""Of one file; far more than any that means something."""
_NO_FILE: Final = f"there is no {DEFAULT_FILE} here, so the built-in defaults apply; name a file with --config"


_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def load_settings(args: argparse.Namespace, overrides: Mapping[str, str] = _NOTHING) -> tuple[Config, tuple[str, ...]]:
    """Return the settings and a warning or none, as `SettingsFiles.load` does."""
    return SettingsFiles(args, overrides).load()


class SettingsFiles:
    """The file that a command was told to go by, and those that it names.

    `overrides` has values by dotted key that come before the file's. Once settings were read, a file that is gone, or
    holds none, is a mistake and not a wish for the built-in ones; and what is no regular file is not waited for.
    """

    def __init__(self, args: argparse.Namespace, overrides: Mapping[str, str] = _NOTHING) -> None:
        self.contents: Mapping[str, bytes | None] = {}
        """A digest of each file when it was last read, by path; None for one that could not be."""
        self._path: str | None = getattr(args, "config", None)
        self._holds_settings = False
        """Whether there was anything in the file when it was last read well."""
        self._overrides = overrides

    def load(self) -> tuple[Config, tuple[str, ...]]:
        """Return the settings, and a warning when they are the built-in ones for want of a file.

        Raises:
            ConfigError: naming every problem; a file that was asked for and is not there is one.
        """
        path = self._path or DEFAULT_FILE
        read: dict[str, bytes | None] = {path: None}
        self.contents = read

        def read_file(name: str) -> bytes:
            read[name] = None
            content = regular_file.read(name, _MAX_BYTES) if self._holds_settings else Path(name).read_bytes()
            read[name] = _digest(content)
            return content

        text = ""
        missing: tuple[str, ...] = ()
        try:
            text = read_file(path).decode("utf-8")
        except FileNotFoundError as error:
            if self._path is not None or self._holds_settings:
                raise _unreadable(path, "there is no such file") from error
            missing = (_NO_FILE,)
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, f"can't be read: {error}") from error
        if self._holds_settings and not _has_settings(text):
            raise _unreadable(path, "holds no settings any more")
        config = load(text, os.environ, read_file, overrides=self._overrides)
        self._holds_settings = _has_settings(text)
        return config, missing

    def look(self) -> Mapping[str, bytes | None]:
        """Return what is in the same files now. What is no file, such as a pipe, is read once and not looked at."""
        return {path: _digest_of(path, last) for path, last in self.contents.items()}


def _digest_of(path: str, last: bytes | None) -> bytes | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return last
        return _digest(regular_file.read(path, _MAX_BYTES))
    except (OSError, ValueError):
        return None


def _has_settings(text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _unreadable(path: str, why: str) -> ConfigError:
    return ConfigError((Problem("", None, f"{path}: {why}"),))
