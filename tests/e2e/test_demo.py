"""The demo starts, its commands give the printed answers as pasted, and Ctrl-C ends all of it."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

STEP = re.compile(r"^\d\. (?P<title>[^\n]+)\n\n(?P<command>.+?)\n\n", re.MULTILINE | re.DOTALL)
EXPECTED = re.compile(r"-> (\d{3})( [A-Z_]+)?")


@asynccontextmanager
async def demo() -> AsyncIterator[tuple[Process, str]]:
    """Run the demo and yield what it printed until it was ready."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "sidecar.demo.run", stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            yield process, (await process.stdout.readuntil(b"Press Ctrl-C")).decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def pasted(command: str) -> str:
    """Run a command in a shell, as somebody who pastes it would."""
    shell = await asyncio.create_subprocess_shell(command, stdout=PIPE)
    output, _ = await shell.communicate()
    assert shell.returncode == 0, command
    return output.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the demo's commands need curl")
async def test_what_the_demo_prints_is_what_happens() -> None:
    async with demo() as (process, text):
        tried, outputs = 0, list[str]()
        for step in STEP.finditer(text):
            expected = EXPECTED.search(step["title"])
            if "npx" in step["command"]:
                continue  # would fetch the Inspector
            output = await pasted(step["command"])
            if expected is None:
                outputs.append(output)
                continue
            assert output.startswith(f"HTTP/1.1 {expected[1]} "), step["title"]
            assert (expected[2] or "").strip() in output
            tried += 1
        listing, metrics = outputs
        assert tried == 6
        assert "reader" in listing
        assert "writer" in listing
        assert "sidecar_requests_total" in metrics
        config_file = re.search(r"config +(\S+)", text)
        assert config_file is not None
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert not Path(config_file[1]).parent.exists()
