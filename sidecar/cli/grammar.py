"""How commands are spelled: options that they share, and help that teaches."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, NoReturn, TypeAlias

from sidecar.cli.output import CommandError, Outcome

DEFAULT_FILE: Final = "config.yaml"

_UNIX_SECONDS: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")


class Parser(argparse.ArgumentParser):
    """Argparse, with its complaints raised instead of printed, so that `--json` holds for them too."""

    def error(self, message: str) -> NoReturn:
        raise CommandError("WRONG_USAGE", f"{message}\n{self.format_usage().strip()}", code=2)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
Run: TypeAlias = Callable[[argparse.Namespace], Outcome | int]


def group(commands: Commands, name: str, purpose: str) -> Commands:
    """Add a command that only has commands below it."""
    parser = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
    add_config(parser)
    return parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)


def command(
    commands: Commands, name: str, run: Run, purpose: str, example: str, *, more: str = "", answers: bool = True
) -> Parser:
    """Add a command; one that `answers` takes ``--json``. `more` is told by its own ``--help`` alone."""
    parser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose}\n\n{more}" if more else purpose,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add_config(parser)
    if answers:
        parser.add_argument("--json", action="store_true", help="write one JSON document; failures to standard error")
    return parser


def add_config(parser: Parser) -> None:
    """Let ``--config`` stand at any level of the command."""
    # No default: the innermost parser would write it over what an outer one was told.
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"the settings; {DEFAULT_FILE} in the working directory unless given",
    )


def read_moment(text: str) -> float:
    """Read RFC 3339 or Unix seconds.

    Raises:
        argparse.ArgumentTypeError: for anything else, or a time without its offset from UTC.
    """
    if _UNIX_SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
        seconds = moment.timestamp() if moment.tzinfo is not None else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if math.isnan(seconds):
        raise argparse.ArgumentTypeError("must be RFC 3339 like 2026-11-23T14:00:00Z, or Unix seconds")
    return seconds
