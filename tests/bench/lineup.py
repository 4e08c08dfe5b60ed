"""Starts the contenders of a scenario side by side; who can't be had is named, never left out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.bench.contenders.aiohttp_bare import aiohttp_bare
from tests.bench.contenders.contender import Contender
from tests.bench.contenders.direct import direct
from tests.bench.contenders.envoy import envoy
from tests.bench.contenders.fastmcp import fastmcp
from tests.bench.contenders.haproxy import haproxy
from tests.bench.contenders.nginx import nginx
from tests.bench.contenders.sidecar import Signature, sidecar
from tests.bench.errors import Missing, NotStarted
from tests.bench.key_loading import load_keys
from tests.bench.results import Row
from tests.bench.session import Session
from tests.bench.upstream import Upstream, streaming_upstream
from tests.redis_server import RedisServer

Name = Literal["direct", "nginx", "haproxy", "envoy", "sidecar", "sidecar ed25519", "aiohttp", "fastmcp"]
REFERENCES: Final = ("nginx", "haproxy", "envoy")


@dataclass
class LineUp:
    """The contenders of a scenario."""

    contenders: list[Contender] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Why each of those that should be here is not."""

    def absent_rows(self, scenario: str, compared_by: str) -> list[Row]:
        return [Row(scenario, name, compared_by, problem=why) for name, why in self.absent.items()]


@contextlib.contextmanager
def lined_up(
    session: Session, names: Sequence[Name], upstream: Upstream, *, with_key: bool = False
) -> Iterator[LineUp]:
    """Run these in front of the upstream until the end of the block; `with_key`: the sidecar with an API key too."""
    with contextlib.ExitStack() as running:
        line_up = LineUp()
        for name in names:
            try:
                line_up.contenders += running.enter_context(_started(session, name, upstream, with_key))
            except Missing as problem:
                line_up.absent[name] = f"missing: {problem}"
            except NotStarted as problem:
                line_up.absent[name] = f"WRONG: {problem}"
        yield line_up


@contextlib.contextmanager
def _started(session: Session, name: Name, upstream: Upstream, with_key: bool) -> Iterator[list[Contender]]:
    session.say(f"starting {name}")
    if name == "direct":
        yield [direct(upstream)]
    elif name == "sidecar" or name == "sidecar ed25519":
        with _sidecar(session, name, upstream, with_key and name == "sidecar") as views:
            yield views
    else:
        with _PEERS[name](session, upstream) as peer:
            yield [peer]


@contextlib.contextmanager
def _sidecar(session: Session, name: Name, upstream: Upstream, with_key: bool) -> Iterator[list[Contender]]:
    signature: Signature = "ed25519" if name == "sidecar ed25519" else "hmac-sha256"
    key = next(session.issuer.api_keys(1))
    with RedisServer() as store:
        load_keys(store.url, [key])
        with sidecar(session.directory, upstream, session.issuer, store, name=name, signature=signature) as started:
            yield [started.for_tokens(), *([started.for_key(key)] if with_key else [])]


@contextlib.contextmanager
def _fastmcp(session: Session, upstream: Upstream) -> Iterator[Contender]:
    """Run it in front of an upstream of its own: it opens sessions, which a static one can't answer."""
    del upstream
    python = session.programs.fastmcp_python()
    with (
        streaming_upstream(session.directory) as own,
        fastmcp(python, session.directory, own, session.issuer) as contender,
    ):
        yield contender


_Start = Callable[[Session, Upstream], contextlib.AbstractContextManager[Contender]]
_PEERS: Final[dict[str, _Start]] = {
    "nginx": lambda session, upstream: nginx(session.programs.nginx(), session.directory, upstream),
    "haproxy": lambda session, upstream: haproxy(
        session.programs.haproxy(), session.directory, upstream, session.issuer
    ),
    "envoy": lambda session, upstream: envoy(session.programs.envoy(), session.directory, upstream, session.issuer),
    "aiohttp": lambda session, upstream: aiohttp_bare(session.directory, upstream),
    "fastmcp": _fastmcp,
}
