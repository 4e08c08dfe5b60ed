"""The programs of others that the tests run, each installed once, from the pinned lists beside this file."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CACHE: Final = HERE / ".cache"
MODULES: Final = HERE / "node_modules"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program left behind."""

    code: int
    out: str
    err: str


def missing_programs() -> list[str]:
    """Return which of the two programs that everything here needs are not on the PATH."""
    return [name for name in ("node", "npm") if shutil.which(name) is None]


@contextmanager
def alone(name: str) -> Iterator[Path]:
    """Be the only process that makes what is called so in the cache; yield its path."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield CACHE / name


def install() -> None:
    """Install what the lock file says, unless that is what is installed."""
    with alone("installed") as stamp:
        wanted = (HERE / "package-lock.json").read_text()
        if MODULES.is_dir() and stamp.is_file() and stamp.read_text() == wanted:
            return
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True, timeout=600)
        stamp.write_text(wanted)


def python_of_mcp_1() -> str:
    """Return the interpreter of a virtual environment with the newest 1.x of the Python SDK, made when needed."""
    with alone("mcp1") as home:
        pinned, stamp = HERE / "mcp1-requirements.txt", home / "installed"
        python = str(home / "bin" / "python")
        if not (stamp.is_file() and stamp.read_text() == pinned.read_text()):
            shutil.rmtree(home, ignore_errors=True)
            venv.create(home, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", str(pinned)], check=True, timeout=600)
            stamp.write_text(pinned.read_text())
        return python


def environment() -> dict[str, str]:
    """Return the environment in which `node` is the pinned one."""
    return {**os.environ, "PATH": f"{MODULES / '.bin'}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}


async def run(*command: str, timeout_s: float, given: Mapping[str, str] | None = None) -> Outcome:
    """Run a program to its end, by its name in `node_modules/.bin` or on the PATH.

    Raises:
        TimeoutError: it took too long; it was ended.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=HERE,
        env={**environment(), **(given or {})},
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return Outcome(process.returncode or 0, out.decode(), err.decode())
