"""``python -m tests.bench``: measures, and prints one table."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from datetime import UTC, datetime
from types import FrameType
from typing import NoReturn

from tests.bench.asked import verdicts
from tests.bench.errors import Missing, NotStarted
from tests.bench.options import Options, read_options
from tests.bench.processes import raise_descriptor_limit
from tests.bench.results import Row
from tests.bench.scenarios import SCENARIOS
from tests.bench.session import Session, session
from tests.bench.table import table


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; what is done when it is interrupted is shown all the same."""
    options = read_options(arguments, {name: scenario.question for name, scenario in SCENARIOS.items()})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    raise_descriptor_limit()
    rows: list[Row] = []
    interrupted = False
    try:
        with session(options) as opened:
            _run(opened, rows)
    except Missing as problem:
        sys.stderr.write(f"nothing can be measured: {problem}\n")
        return 1
    except KeyboardInterrupt:
        interrupted = True
    _show(options, rows)
    return 1 if interrupted or any(row.problem.startswith("WRONG") for row in rows) else 0


def _run(opened: Session, rows: list[Row]) -> None:
    for name in opened.options.scenarios:
        opened.say(f"{name}: {SCENARIOS[name].question}")
        try:
            rows += SCENARIOS[name].run(opened, name)
        except Missing as problem:
            rows.append(Row(name, "all", "", problem=f"missing: {problem}"))
        except (NotStarted, OSError, RuntimeError) as problem:
            rows.append(Row(name, "all", "", problem=f"WRONG: {problem}"))


def _show(options: Options, rows: list[Row]) -> None:
    rounds = f"{options.rounds} rounds of {options.scale.run_s:g} s"
    sys.stdout.write(f"{rounds}; {_about_this_machine()} at the end\n\n{table(rows)}\n{verdicts(rows)}")
    if options.json_file is not None:
        options.json_file.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Begin to end everything, and do not be interrupted at that."""
    del frame
    sys.stderr.write(f"{signal.Signals(number).name}: ending everything\n")
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    raise KeyboardInterrupt


def _about_this_machine() -> str:
    cores, load = os.cpu_count(), os.getloadavg()[0]
    today = datetime.now(UTC).date().isoformat()
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{today}, {cores} cores, {system}, load {load:.1f}"


if __name__ == "__main__":
    sys.exit(main())
