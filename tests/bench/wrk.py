"""Puts load on a port with wrk: many connections, each with one request after the other, and counts what comes back."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.errors import NotStarted
from tests.bench.figures import LOAD_MARK, LoadReport, UnreadableReport, load_report

Headers = tuple[tuple[str, str], ...]

_GRACE_S: Final = 30.0
_REPORT: Final = """
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '%s{"requests":%%d,"duration_us":%%d,"received_bytes":%%d,"p50_us":%%d,"p99_us":%%d,"max_us":%%d,' ..
    '"refused":%%d,"broken":%%d}\\n', summary.requests, summary.duration, summary.bytes, latency:percentile(50),
    latency:percentile(99), latency.max, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""
_IN_TURN: Final = """
local requests, at = {}, 0
init = function(arguments)
  for headers in io.lines(%s) do
    requests[#requests + 1] = wrk.format("POST", %s, load("return " .. headers)(), wrk.body)
  end
end
request = function()
  at = at %% #requests + 1
  return requests[at]
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk sends, and how hard it presses."""

    url: str
    body: bytes
    headers: Headers
    """Of every request."""
    connections: int
    duration_s: float
    in_turn: Sequence[Headers] = ()
    """Further headers, a set for each request; they are used one after the other, again and again."""
    pause_ms: int = 0
    """How long a connection waits before each request, on average."""
    pause_varies: bool = False
    """Whether pauses last anything from half to one and a half of that, so that connections do not move in step."""


class Wrk:
    """The load generator."""

    def __init__(self, executable: str, directory: Path) -> None:
        self._executable = executable
        self._directory = directory

    def run(self, load: Load, *, meanwhile: Callable[[], object] | None = None) -> LoadReport:
        """Put on the load and return what came of it; half-way through, `meanwhile` is called.

        Raises:
            NotStarted: wrk failed.
        """
        seconds = max(1, round(load.duration_s))
        command = [self._executable, "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "20s", "--latency"]
        command += ["-s", str(self._script(load)), load.url]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            try:
                if meanwhile is not None:
                    time.sleep(seconds / 2)
                    meanwhile()
                output, _ = process.communicate(timeout=seconds + _GRACE_S)
                return load_report(output)
            except (UnreadableReport, subprocess.TimeoutExpired) as error:
                raise NotStarted(f"wrk: {error}") from error
            finally:
                process.kill()

    def _script(self, load: Load) -> Path:
        headers = _table(load.headers)
        text = f'wrk.method = "POST"\nwrk.body = {_quoted(load.body.decode())}\nwrk.headers = {headers}\n'
        if load.in_turn:
            lists = self._directory / f"requests-{time.monotonic_ns()}.lua"
            lists.write_text("".join(_table((*load.headers, *each)) + "\n" for each in load.in_turn))
            path = "/" + load.url.split("/", 3)[3]
            text += _IN_TURN % (_quoted(str(lists)), _quoted(path))
        if load.pause_ms:
            shortest = load.pause_ms // 2 if load.pause_varies else load.pause_ms
            text += f"delay = function() return math.random({shortest}, {2 * load.pause_ms - shortest}) end\n"
        script = self._directory / f"load-{time.monotonic_ns()}.lua"
        script.write_text(text + _REPORT % LOAD_MARK)
        return script


def _table(headers: Headers) -> str:
    return "{" + ", ".join(f"[{_quoted(name)}] = {_quoted(value)}" for name, value in headers) + "}"


def _quoted(text: str) -> str:
    """Quote ASCII text for Lua, whose escapes JSON's are as long as no \\u is needed."""
    return json.dumps(text)
