"""Does it matter how many accounts call at the same time, each with a token and limits of its own?"""

from __future__ import annotations

import contextlib
from typing import Final

from tests.bench.calls import SMALL_CALL
from tests.bench.contenders.sidecar import SidecarContender, sidecar
from tests.bench.credentials import ACCOUNT
from tests.bench.measuring import Work, interleaved
from tests.bench.results import Row, compare
from tests.bench.session import Session
from tests.bench.upstream import static_upstream
from tests.bench.wrk import Headers
from tests.redis_server import RedisServer

FEW: Final = "1 account"
_CONNECTIONS: Final = 32


def many_accounts(session: Session, scenario: str) -> list[Row]:
    """Measure sidecars in turns: a single caller, very many, and a fifth more than that, who call one after another.

    The fifth more is to see what happens when there are more than the sidecar remembers, which is 10 000.
    """
    counts = (1, session.scale.many_accounts, session.scale.many_accounts * 6 // 5)
    session.say(f"signing {counts[-1]} tokens")
    accounts = tuple(f"{ACCOUNT}-{number}" for number in range(counts[-1]))
    tokens: list[Headers] = [(("Authorization", f"Bearer {session.issuer.token(account)}"),) for account in accounts]
    with (
        static_upstream(session.programs.nginx(), session.directory) as upstream,
        contextlib.ExitStack() as running,
    ):
        turns: list[tuple[SidecarContender, Work]] = []
        for count in counts:
            name = FEW if count == 1 else f"{count} accounts"
            store = running.enter_context(RedisServer())
            started = running.enter_context(sidecar(session.directory, upstream, session.issuer, store, name=name))
            contender = started.for_tokens()
            contender.account, contender.accounts, contender.credential = accounts[0], accounts[:count], tokens[0]
            turns.append((contender, Work(SMALL_CALL, _CONNECTIONS, in_turn=tokens[:count])))
        rows = interleaved(session, scenario, turns)
    compare(rows, [FEW])
    return rows
