"""Runs the fuzz targets one after another, for so long each, and exits 1 when anything was found."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Final

from tests.fuzz.targets import FINDS, TARGETS

SAY_EVERY: Final = 5
"""Of the reports that come once a second, one in so many is shown."""
COLUMNS: Final = ("tried", "refused", "passed", "crashes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each target (20)")
    parser.add_argument("--runs", type=int, default=-1, help="at most so many inputs for each target")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one; may come again")
    parser.add_argument("--keep", type=Path, help="a directory for inputs that led somewhere new, for the next time")
    asked = parser.parse_args()
    found = False
    with tempfile.TemporaryDirectory() as directory:
        for name in asked.target or TARGETS:
            found |= not passes(name, asked.seconds, asked.runs, (asked.keep or Path(directory)) / name)
    return 1 if found else 0


def passes(name: str, seconds: float, runs: int, found: Path) -> bool:
    """Run one target, and tell whether nothing was found."""
    before = set((FINDS / name).glob("*"))
    command = (sys.executable, "-m", "tests.fuzz.engine", name, str(seconds), str(runs), str(found))
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as engine,
    ):
        assert engine.stdout is not None
        last = follow(name, engine.stdout)
        code = engine.wait()
        whole = code == 0 and last.get("done", False)
        if not whole:
            log.seek(0)
            say(log.read().decode(errors="replace")[-3000:])
            say(f"{name}: the engine ended early, with {code}")
    new = sorted(set((FINDS / name).glob("*")) - before)
    for path in new:
        say(f"{name}: found {path}")
    with contextlib.suppress(OSError):  # it holds finds
        (FINDS / name).rmdir()
        FINDS.rmdir()
    return whole and not new and not last["crashes"]


def follow(name: str, lines: IO[str]) -> dict[str, Any]:
    """Show what the engine reports; return its last report."""
    last: dict[str, Any] = {}
    for number, line in enumerate(lines):
        report = json.loads(line)
        if "tried" not in report:
            say(f"{name}: " + ", ".join(f"{key} {value}" for key, value in report.items()))
            continue
        last = report
        if report["done"] or number % SAY_EVERY == 0:
            counts = "  ".join(f"{report[column]:>9} {column}" for column in COLUMNS)
            say(f"{name:<8} {report['seconds']:>6.1f} s  {counts}{'  done' if report['done'] else ''}")
    return last


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
