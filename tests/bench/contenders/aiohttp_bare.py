"""aiohttp on both sides: the least that a proxy written with it costs, without any policy."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.contenders.contender import Contender
from tests.bench.processes import free_port, listens, running
from tests.bench.upstream import Upstream


@contextlib.contextmanager
def aiohttp_bare(directory: Path, upstream: Upstream) -> Iterator[Contender]:
    """Run `aiohttp_program`."""
    port = free_port()
    origin = f"http://127.0.0.1:{upstream.port}"
    command = [sys.executable, "-m", "tests.bench.contenders.aiohttp_program", str(port), origin]
    with running("aiohttp", command, directory, lambda: listens(port)) as process:
        yield Contender("aiohttp", port, process, upstream)
