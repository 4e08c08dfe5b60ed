"""Tries inputs on one target, in a process of its own: guided by coverage where Atheris is installed, else blindly.

Atheris (Apache-2.0) has wheels for Linux on x86-64 only, so it is not among the development dependencies:
`.venv/bin/pip install --group fuzz`. What it prints goes to stderr; what is counted, as JSON lines, to stdout.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

LARGEST: Final = 4096
REPORT_S: Final = 1.0
SLOW_S: Final = 10
"""An input that takes longer is a find."""
SMALLER_S: Final = 4
"""How long is tried to make a find smaller."""


class Trial:
    """Counts what becomes of inputs, and keeps the smallest one of each way to break the target."""

    def __init__(self, target: Any, finds: Path, *, seconds: float, runs: int) -> None:
        self._target = target
        self._finds = finds
        self._runs = runs
        self._began = self._reported = time.monotonic()
        self._ends = self._began + seconds
        self._passed = self._refused = self._crashes = 0
        self._known: set[str] = set()

    def try_one(self, data: bytes) -> None:
        fault = None
        try:
            if self._target.check(data):
                self._passed += 1
            else:
                self._refused += 1
        except Exception as error:
            self._crashes += 1
            fault = fault_of(error)
        if fault is not None and fault not in self._known:
            self._known.add(fault)
            self._keep(data, fault)
        now = time.monotonic()
        if now >= self._ends or self.tried == self._runs:
            self.report(done=True)
            sys.stderr.flush()
            os._exit(0)  # the engine below has no other end
        if now - self._reported > REPORT_S:
            self._reported = now
            self.report()

    @property
    def tried(self) -> int:
        return self._passed + self._refused + self._crashes

    def report(self, *, done: bool = False) -> None:
        counts = {"tried": self.tried, "refused": self._refused, "passed": self._passed, "crashes": self._crashes}
        say({**counts, "seconds": round(time.monotonic() - self._began, 1), "done": done})

    def _keep(self, data: bytes, fault: str) -> None:
        smallest = smaller(data, lambda other: self._fault(other) == fault)
        self._finds.mkdir(parents=True, exist_ok=True)
        path = self._finds / hashlib.sha256(smallest).hexdigest()[:16]
        path.write_bytes(smallest)
        say({"find": str(path), "fault": fault, "input": repr(smallest)})

    def _fault(self, data: bytes) -> str | None:
        try:
            self._target.check(data)
        except Exception as error:
            return fault_of(error)
        return None


def say(members: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


def fault_of(error: Exception) -> str:
    """Name a fault by its kind and place, so that one fault is kept once."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}: {str(error)[:200]}".split("\n")[0]


def smaller(data: bytes, still: Callable[[bytes], bool]) -> bytes:
    """Take away whatever can be taken away, in ever smaller pieces."""
    ends, size = time.monotonic() + SMALLER_S, (len(data) + 1) // 2
    while size:
        at = 0
        while at < len(data) and time.monotonic() < ends:
            without = data[:at] + data[at + size :]
            if still(without):
                data = without
            else:
                at += size
        size //= 2
    return data


def mutated(rng: random.Random, seeds: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """Change a seed here and there: the blind engine, and what the test suite does for a moment."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        until = at + rng.choice((0, 0, 1, 2, 8))
        other = rng.choice(seeds)
        cut = rng.randrange(len(other) + 1)
        data[at:until] = rng.choice(
            (
                b"",
                rng.choice(words),
                rng.randbytes(1),
                other[cut : cut + rng.randrange(1, 20)],
                bytes(data[at:until]) * 2,
            )
        )
    return bytes(data[:LARGEST])


def blindly(trial: Trial, target: Any, seeds: list[bytes]) -> None:
    rng = random.Random(20261123)  # noqa: S311 - a seed makes the same mutations every time
    for seed in seeds:
        trial.try_one(seed)
    while True:
        trial.try_one(mutated(rng, seeds or [b""], target.words))


def guided(atheris: Any, trial: Trial, target: Any, found: Path, corpus: Path, finds: Path) -> None:
    words = found / "words"
    found.mkdir(parents=True, exist_ok=True)
    words.write_text("".join(f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in word)}"\n' for word in target.words))
    inputs = found / "inputs"
    inputs.mkdir(exist_ok=True)
    finds.mkdir(parents=True, exist_ok=True)
    flags = (f"-max_len={LARGEST}", f"-dict={words}", f"-timeout={SLOW_S}", f"-artifact_prefix={finds}{os.sep}")
    atheris.Setup([sys.argv[0], *flags, "-verbosity=0", str(inputs), str(corpus)], trial.try_one)
    atheris.Fuzz()


def main(name: str, seconds: str, runs: str, found: str) -> None:
    atheris: Any = None
    watched: Any = contextlib.nullcontext()
    with contextlib.suppress(ImportError):
        atheris = importlib.import_module("atheris")
        watched = atheris.instrument_imports(include=["sidecar"])
    with watched:
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    corpus, finds = targets.CORPUS / name, targets.FINDS / name
    trial = Trial(target, finds, seconds=float(seconds), runs=int(runs))
    say({"engine": "blind" if atheris is None else "atheris"})
    if atheris is None:
        blindly(trial, target, [path.read_bytes() for path in targets.inputs(name)])
    else:
        guided(atheris, trial, target, Path(found), corpus, finds)


if __name__ == "__main__":
    main(*sys.argv[1:])
