"""The `sidecar` command. Exit codes: 0 is done, 1 refused or failed, 2 wrong usage."""

from __future__ import annotations

import os
import sys

from sidecar.cli import approvals, audit, catalogue, explain, keys, serving, tokens
from sidecar.cli.grammar import Parser, add_config
from sidecar.cli.output import CommandError, Outcome, write_error, write_outcome
from sidecar.config import ConfigError
from sidecar.denials import Denial

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    try:
        return _run(arguments, as_json)
    except CommandError as error:
        return write_error(error, as_json=as_json)
    except Denial as denial:
        return write_error(CommandError.refused(denial), as_json=as_json)
    except ConfigError as error:
        return write_error(CommandError.unusable(error), as_json=as_json)
    except BrokenPipeError:
        # Whoever read our output has seen enough; without this the interpreter complains once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return write_error(CommandError("FAILED", str(error)), as_json=as_json)
    except KeyboardInterrupt:
        return 1


def _run(arguments: list[str], as_json: bool) -> int:
    try:
        args = _grammar().parse_args(arguments)
    except SystemExit as done:  # after --help
        return int(done.code or 0)
    result: Outcome | int = args.run(args)
    return result if isinstance(result, int) else write_outcome(result, as_json=as_json)


def _grammar() -> Parser:
    root = Parser(
        prog="sidecar",
        description="Guards an MCP server: JWTs and API keys in, a signed X-Account-Id out.",
        epilog="Every command explains itself, with an example: sidecar keys create --help",
        allow_abbrev=False,
    )
    add_config(root)
    commands = root.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    serving.add_to(commands)
    keys.add_to(commands)
    tokens.add_to(commands)
    approvals.add_to(commands)
    catalogue.add_to(commands)
    audit.add_to(commands)
    explain.add_to(commands)
    return root
