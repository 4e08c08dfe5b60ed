"""Thousands of open streams on which nothing happens: how much memory, and how much time, does each cost?"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.bench.accounting import cpu_us, rss_bytes
from tests.bench.calls import event
from tests.bench.contenders.contender import Contender
from tests.bench.errors import WrongAnswer
from tests.bench.figures import Figures
from tests.bench.lineup import REFERENCES, Name, lined_up
from tests.bench.measuring import MIB, attempt
from tests.bench.processes import max_connections
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import streaming_upstream

PER_STREAM: Final = "kib_per_stream"
_NAMES: Final[tuple[Name, ...]] = ("nginx", "haproxy", "envoy", "sidecar", "aiohttp")
_WARM_UP_STREAMS: Final = 64
_SETTLE_S: Final = 1.0
_TIMEOUT_S: Final = 20.0


def idle_streams(session: Session, scenario: str) -> list[Row]:
    """Measure one round: it takes long, and memory varies little."""
    with streaming_upstream(session.directory) as upstream, lined_up(session, _NAMES, upstream) as line_up:
        rows = [Row(scenario, contender.name, PER_STREAM) for contender in line_up.contenders]
        for row, contender in zip(rows, line_up.contenders, strict=True):
            attempt(session, row, 0, partial(_measure, session, contender))
    compare(rows, REFERENCES)
    return [*rows, *line_up.absent_rows(scenario, PER_STREAM)]


def _measure(session: Session, contender: Contender) -> Figures:
    if contender.pid is None:
        raise WrongAnswer("there is no process to measure")
    count = min(session.scale.idle_streams, max_connections() - _WARM_UP_STREAMS)
    with _open(contender, _WARM_UP_STREAMS):
        time.sleep(_SETTLE_S)
    time.sleep(_SETTLE_S)
    before = rss_bytes(contender.pid)
    with _open(contender, count) as streams:
        time.sleep(_SETTLE_S)
        cpu = cpu_us(contender.pid)
        time.sleep(session.scale.idle_s)
        cpu, after = cpu_us(contender.pid) - cpu, rss_bytes(contender.pid)
        _require_open(streams)
    return {
        PER_STREAM: (after - before) / 1024 / count,
        "streams": count,
        "rss_mib": after / MIB,
        "idle_cpu_percent": cpu / (session.scale.idle_s * 1e6) * 100,
    }


@contextlib.contextmanager
def _open(contender: Contender, count: int) -> Iterator[list[socket.socket]]:
    """Open streams one after the other, each once it has said its first event."""
    lines = ["Host: 127.0.0.1", "Accept: text/event-stream", "MCP-Protocol-Version: 2025-11-25"]
    lines += [f"{name}: {value}" for name, value in contender.credential]
    request = "\r\n".join((f"GET {contender.path} HTTP/1.1", *lines, "", "")).encode()
    streams: list[socket.socket] = []
    try:
        for _ in range(count):
            stream = socket.create_connection(("127.0.0.1", contender.port), timeout=_TIMEOUT_S)
            streams.append(stream)
            stream.sendall(request)
            _await_first_event(stream)
        yield streams
    except OSError as error:
        raise WrongAnswer(f"stream {len(streams)} of {count}: {error!r}") from error
    finally:
        for stream in streams:
            stream.close()


def _await_first_event(stream: socket.socket) -> None:
    received = bytearray()
    while event(0).strip() not in received:
        piece = stream.recv(4096)
        received += piece
        if not piece or (len(received) > 12 and b" 200 " not in received[:15]):
            raise WrongAnswer(f"no stream: {bytes(received[:200])!r}")


def _require_open(streams: list[socket.socket]) -> None:
    ended = sum(map(_has_ended, streams))
    if ended:
        raise WrongAnswer(f"{ended} of {len(streams)} streams have ended by themselves")


def _has_ended(stream: socket.socket) -> bool:
    stream.setblocking(False)
    try:
        received = stream.recv(65_536)
    except BlockingIOError:
        return False
    return not received or received.endswith(b"0\r\n\r\n")
