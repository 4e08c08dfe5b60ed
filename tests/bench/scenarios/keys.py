"""Does it matter how many API keys there are?"""

from __future__ import annotations

import time
from typing import Final

from tests.bench.accounting import cpu_us
from tests.bench.calls import SMALL_CALL
from tests.bench.contenders.sidecar import sidecar
from tests.bench.key_loading import load_keys
from tests.bench.measuring import Work, interleaved
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import static_upstream
from tests.redis_server import RedisServer

FEW: Final = "1 key"
_ACCOUNTS: Final = 100_000
_CONNECTIONS: Final = 32
_LONGEST_REST_S: Final = 120.0
_LOOK_S: Final = 2.0
_AT_REST_US_PER_S: Final = 10_000


def many_keys(session: Session, scenario: str) -> list[Row]:
    """Measure two sidecars in turns, one with a single key in its store and one with very many."""
    count = session.scale.many_keys
    with (
        static_upstream(session.programs.nginx(), session.directory) as upstream,
        RedisServer() as small,
        RedisServer() as large,
    ):
        used = next(session.issuer.api_keys(1))
        load_keys(small.url, [used])
        session.say(f"loading {count} keys")
        load_keys(large.url, session.issuer.api_keys(count - 1, accounts=_ACCOUNTS))
        load_keys(large.url, [used])
        with (
            sidecar(session.directory, upstream, session.issuer, small, name=FEW) as few,
            sidecar(session.directory, upstream, session.issuer, large, name=f"{count} keys") as many,
        ):
            contenders = [one.for_key(used, suffix="") for one in (few, many)]
            _await_rest(contenders[1].store_pid)
            work = Work(SMALL_CALL, _CONNECTIONS)
            rows = interleaved(session, scenario, [(contender, work) for contender in contenders])
    compare(rows, [FEW])
    return rows


def _await_rest(store_pid: int | None) -> None:
    """Wait until Redis has put its tables in order after the loading, which it does in the background."""
    deadline = time.monotonic() + _LONGEST_REST_S
    while store_pid is not None and time.monotonic() < deadline:
        before = cpu_us(store_pid)
        time.sleep(_LOOK_S)
        if cpu_us(store_pid) - before < _AT_REST_US_PER_S * _LOOK_S:
            return
