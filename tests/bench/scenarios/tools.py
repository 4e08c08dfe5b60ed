"""Does it matter how many tools the upstream has, or the operator has named?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from tests.bench.calls import TOOL, call_of
from tests.bench.contenders.sidecar import SidecarContender, sidecar
from tests.bench.measuring import Work, interleaved
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import static_upstream
from tests.redis_server import RedisServer

FEW: Final = "10 tools"
MANY: Final = "1000 tools"
NAMED: Final = "1000 tools, named in the settings"
_CONNECTIONS: Final = 32
_FEW: Final = 10
_MANY: Final = 1000


def many_tools(session: Session, scenario: str) -> list[Row]:
    """Measure calls of the last tool: its class is known from the upstream's list, or from the operator's."""
    cases = {FEW: (_FEW, False), MANY: (_MANY, False), NAMED: (_MANY, True)}
    with contextlib.ExitStack() as running:
        turns = []
        for name, (count, named) in cases.items():
            contender = running.enter_context(_sidecar_with(session, name, count, named))
            turns.append((contender, Work(call_of(f"{TOOL}_{count - 1}"), _CONNECTIONS)))
        rows = interleaved(session, scenario, turns)
    compare(rows, [FEW])
    return rows


@contextlib.contextmanager
def _sidecar_with(session: Session, name: str, tools: int, named: bool) -> Iterator[SidecarContender]:
    """Run a sidecar in front of so many tools."""
    read = [f"{TOOL}_{number}" for number in range(1, tools)] if named else []
    settings: dict[str, Any] = {"access": {"tools": {"read": read}, "trust_annotations": not named}}
    with (
        static_upstream(session.programs.nginx(), session.directory, tools=tools) as upstream,
        RedisServer() as store,
        sidecar(session.directory, upstream, session.issuer, store, name=name, settings=settings) as started,
    ):
        yield started.for_tokens()
