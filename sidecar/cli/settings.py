"""The settings that a command runs under: a file, the environment, and for ``serve`` two options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sidecar.cli.grammar import DEFAULT_FILE
from sidecar.config import Config, ConfigError, Problem, load

_NO_FILE: Final = f"there is no {DEFAULT_FILE} here, so the built-in defaults apply; name a file with --config"


_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def load_settings(args: argparse.Namespace, overrides: Mapping[str, str] = _NOTHING) -> tuple[Config, tuple[str, ...]]:
    """Return the settings, and a warning when they are the built-in ones for want of a file.

    `overrides` has values by dotted key that come before the file's.

    Raises:
        ConfigError: naming every problem; a file that was asked for and is not there is one.
    """
    path = getattr(args, "config", None)
    text = ""
    warnings: tuple[str, ...] = ()
    try:
        text = Path(path or DEFAULT_FILE).read_text("utf-8")
    except FileNotFoundError as error:
        if path is not None:
            raise _unreadable(path, "there is no such file") from error
        warnings = (_NO_FILE,)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path or DEFAULT_FILE, f"can't be read: {error}") from error
    return load(text, os.environ, _read_file, overrides=overrides), warnings


def _unreadable(path: str, why: str) -> ConfigError:
    return ConfigError((Problem("", None, f"{path}: {why}"),))


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()
