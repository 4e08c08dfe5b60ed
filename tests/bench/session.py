"""What every scenario works with: the options, the programs, a place for files, and the load generator."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.credentials import Credentials
from tests.bench.options import Options, Scale
from tests.bench.programs import Programs
from tests.bench.wrk import Wrk


@dataclass
class Session:
    """One run of the bench."""

    options: Options
    programs: Programs
    directory: Path
    issuer: Credentials
    wrk: Wrk
    started_at: float

    @property
    def scale(self) -> Scale:
        return self.options.scale

    def say(self, text: str) -> None:
        """Show on standard error what goes on."""
        sys.stderr.write(f"[{time.monotonic() - self.started_at:5.0f} s] {text}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def session(options: Options) -> Iterator[Session]:
    """Have a session; its files are gone afterwards.

    Raises:
        Missing: there is no load generator, and so nothing can be measured.
    """
    programs = Programs(may_install=options.may_install)
    wrk = programs.wrk()
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as name:
        directory = Path(name)
        yield Session(options, programs, directory, Credentials(directory), Wrk(wrk, directory), time.monotonic())
