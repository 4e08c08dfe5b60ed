"""One very large answer: how fast does it pass, and does it stay out of memory?"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.bench.accounting import cpu_us, rss_bytes
from tests.bench.calls import GIGABYTE_CALL
from tests.bench.checks import CALL_HEADERS
from tests.bench.contenders.contender import Contender
from tests.bench.errors import WrongAnswer
from tests.bench.figures import Figures
from tests.bench.gigabyte_file import BLOCK_BYTES, block
from tests.bench.lineup import REFERENCES, Name, lined_up
from tests.bench.measuring import MIB, attempt
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import static_upstream

THROUGHPUT: Final = "mib_per_s"
_NAMES: Final[tuple[Name, ...]] = ("direct", "nginx", "haproxy", "envoy", "sidecar", "aiohttp")
_TIMEOUT_S: Final = 60.0
_LOOK_S: Final = 0.02


def gigabyte(session: Session, scenario: str) -> list[Row]:
    """Measure throughput, CPU and the most memory; before, once for each, that every byte is right."""
    size = session.scale.gigabyte_bytes
    nginx = session.programs.nginx()
    with (
        static_upstream(nginx, session.directory, gigabyte_bytes=size) as upstream,
        lined_up(session, _NAMES, upstream) as line_up,
    ):
        rows = [Row(scenario, contender.name, THROUGHPUT) for contender in line_up.contenders]
        for number in range(session.options.rounds):
            for row, contender in zip(rows, line_up.contenders, strict=True):
                attempt(session, row, number, partial(_measure, contender, size, look=number == 0))
    compare(rows, REFERENCES)
    return [*rows, *line_up.absent_rows(scenario, THROUGHPUT)]


def _measure(contender: Contender, size: int, *, look: bool) -> Figures:
    if look:
        _receive(contender, size, look=True)
    if contender.pid is None:
        seconds = _receive(contender, size, look=False)
        return {THROUGHPUT: size / MIB / seconds}
    before, cpu = rss_bytes(contender.pid), cpu_us(contender.pid)
    with _watched(contender.pid) as most:
        seconds = _receive(contender, size, look=False)
    return {
        THROUGHPUT: size / MIB / seconds,
        "cpu_s_per_gib": (cpu_us(contender.pid) - cpu) / 1e6 / (size / (1 << 30)),
        "rss_growth_mib": max(0, most[0] - before) / MIB,
        "rss_mib": most[0] / MIB,
    }


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """Keep the most memory that was seen in use during the block, in bytes, in the list's one place."""
    most = [rss_bytes(pid)]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            most[0] = max(most[0], rss_bytes(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def _receive(contender: Contender, size: int, *, look: bool) -> float:
    """Make the call and return how many seconds its body took; `look` compares every byte, which takes longer."""
    lines = [f"{name}: {value}" for name, value in (*CALL_HEADERS, *contender.credential)]
    lines += ["Host: 127.0.0.1", f"Content-Length: {len(GIGABYTE_CALL.body)}"]
    head = "\r\n".join((f"POST {contender.path}{GIGABYTE_CALL.query} HTTP/1.1", *lines, "", "")).encode()
    try:
        with socket.create_connection(("127.0.0.1", contender.port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(head + GIGABYTE_CALL.body)
            with connection.makefile("rb") as answer:
                return _read(answer, size, look=look)
    except OSError as error:
        raise WrongAnswer(f"no answer: {error!r}") from error


def _read(answer: io.BufferedReader, size: int, *, look: bool) -> float:
    status, headers = answer.readline(), http.client.parse_headers(answer)
    if b" 200 " not in status or headers.get("Content-Length") != str(size):
        raise WrongAnswer(f"{status!r}, Content-Length {headers.get('Content-Length')}, not {size}")
    began = time.perf_counter()
    for number in range(size // BLOCK_BYTES):
        piece = answer.read(BLOCK_BYTES)
        if len(piece) != BLOCK_BYTES:
            raise WrongAnswer(f"the answer broke off in MiB {number} of {size // BLOCK_BYTES}")
        if look and piece != block(number):
            raise WrongAnswer(f"MiB {number} of the answer is not the upstream's")
    return time.perf_counter() - began
