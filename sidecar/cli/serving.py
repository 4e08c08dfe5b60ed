"""The commands that run the proxy, show it off, and look at its settings before it runs."""

from __future__ import annotations

import argparse
import signal
from importlib.util import find_spec
from typing import Final

import yaml

from sidecar import process
from sidecar.cli.grammar import Commands, command
from sidecar.cli.output import CommandError, Outcome, write_warnings
from sidecar.cli.settings import SettingsFiles, load_settings
from sidecar.config import ConfigError, settings, warnings

_DEMO_PACKAGES: Final = ("mcp", "uvicorn")
"""What its MCP server needs and the proxy does not."""


def add_to(commands: Commands) -> None:
    """Add these commands to the grammar."""
    serve = command(
        commands,
        "serve",
        _serve,
        "Run the proxy until it is told to stop.",
        "sidecar serve --upstream http://127.0.0.1:3000/mcp --listen 127.0.0.1:8080",
        answers=False,
    )
    serve.add_argument("--upstream", metavar="URL", help="the MCP server to guard, instead of the file's")
    serve.add_argument(
        "--listen", type=_read_listen, metavar="HOST:PORT", help="where to listen, instead of the file's"
    )
    command(
        commands,
        "demo",
        _demo,
        "Run everything on this machine: an MCP server, a token issuer and the proxy, with commands to try. "
        "The demo brings its own settings, whatever --config says.",
        "sidecar demo",
        answers=False,
    )
    command(
        commands,
        "check-config",
        _check_config,
        "Name every problem of the settings at once, each with key and line; without one, print what takes effect.",
        "sidecar check-config --config /etc/sidecar/config.yaml",
    )


def _serve(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something that it could reload
    overrides = {} if args.upstream is None else {"upstream.url": args.upstream}
    if args.listen is not None:
        overrides["listen.host"], overrides["listen.port"] = args.listen
    files = SettingsFiles(args, overrides)
    config, missing = files.load()
    return process.serve(config, files, config_warnings=(*missing, *warnings(config)))


def _read_listen(text: str) -> tuple[str, str]:
    """Split an address; what host and port may be is for the settings to judge."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port:
        raise argparse.ArgumentTypeError("must be HOST:PORT, like 127.0.0.1:8080 or [::1]:8080")
    return host.removeprefix("[").removesuffix("]"), port


def _demo(_args: argparse.Namespace) -> int:
    missing = [package for package in _DEMO_PACKAGES if find_spec(package) is None]
    if missing:
        raise CommandError("FAILED", f"the demo needs {' and '.join(missing)}: pip install 'mcp-sidecar[demo]'")
    # Not above: no other command needs the demo, which is not there in every installation.
    from sidecar.demo import run

    return run.main()


def _check_config(args: argparse.Namespace) -> Outcome:
    try:
        config, missing = load_settings(args)
    except ConfigError as error:
        if not args.json:
            raise
        problems = [{"key": found.key, "line": found.line, "message": found.message} for found in error.problems]
        return Outcome({"ok": False, "problems": problems, "settings": None}, "", code=1)
    write_warnings((*missing, *warnings(config)), as_json=args.json)
    effective = settings(config)
    return Outcome({"ok": True, "problems": [], "settings": effective}, yaml.safe_dump(effective, sort_keys=False))
