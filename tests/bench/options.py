"""What was asked for on the command line, and how large everything is for it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Scale:
    """How long and how much. The figures asked for are those of `FULL`; `QUICK` shows that everything works."""

    rounds: int
    run_s: float
    """How long one measured run takes."""
    warm_up_s: float
    idle_streams: int
    idle_s: float
    """How long they are left alone: longer than the 15 s after which a silent stream gets a comment."""
    gigabyte_bytes: int
    restart_keys: int
    many_keys: int
    many_accounts: int
    storm_s: float


FULL: Final = Scale(
    rounds=3,
    run_s=5,
    warm_up_s=1,
    idle_streams=5_000,
    idle_s=20,
    gigabyte_bytes=1 << 30,
    restart_keys=1_000,
    many_keys=1_000_000,
    many_accounts=10_000,
    storm_s=8,
)
QUICK: Final = Scale(
    rounds=1,
    run_s=2,
    warm_up_s=1,
    idle_streams=500,
    idle_s=2,
    gigabyte_bytes=128 << 20,
    restart_keys=60,
    many_keys=20_000,
    many_accounts=500,
    storm_s=4,
)


@dataclass(frozen=True)
class Options:
    """One run of the bench."""

    scenarios: tuple[str, ...]
    scale: Scale
    rounds: int
    may_install: bool
    json_file: Path | None


def read_options(arguments: list[str] | None, scenarios: Mapping[str, str]) -> Options:
    """Read the command line; `scenarios` are the names there are, each with what it asks."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure the sidecar beside nginx, HAProxy, Envoy, FastMCP's proxy and bare aiohttp, in turns, on "
        "this machine's loopback. CPU time is the operating system's account of each process; every run is checked for "
        "right answers. What is not on the machine is installed (system packages as root, Envoy and FastMCP into "
        "tests/bench/.cache), and named as missing where that can't be.",
        epilog="scenarios:\n"
        + "\n".join(f"  {name:<14} {question}" for name, question in scenarios.items())
        + "\n\nexamples:\n  python -m tests.bench --quick\n  python -m tests.bench --scenario small-32 --rounds 5"
        "\n  python -m tests.bench --json figures.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--quick", action="store_true", help="one short round of everything, smaller: does it work?")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=tuple(scenarios),
        metavar="NAME",
        help="only this one; may be repeated",
    )
    parser.add_argument("--rounds", type=_at_least_one, metavar="N", help="how often each contender has its turn")
    parser.add_argument("--no-install", action="store_true", help="use only what is on the machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every round there")
    given = parser.parse_args(arguments)
    scale = QUICK if given.quick else FULL
    return Options(
        scenarios=tuple(given.scenario or scenarios),
        scale=scale,
        rounds=given.rounds or scale.rounds,
        may_install=not given.no_install,
        json_file=given.json,
    )


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
