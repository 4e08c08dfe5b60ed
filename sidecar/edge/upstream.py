"""Our HTTP/1.1 client to the upstream: a pool of kept connections, and the head of every request."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

from sidecar.denials import BadGateway, Denial, GatewayTimeout
from sidecar.edge.upstream_answer import Answer
from sidecar.edge.upstream_connection import Connection
from sidecar.edge.upstream_dialing import Dialer
from sidecar.model import Headers

W = TypeVar("W")

_PORTS: Final = {"http": 80, "https": 443}
_METHODS: Final = {"GET": b"GET ", "POST": b"POST ", "DELETE": b"DELETE "}
"""HEAD and CONNECT change what follows an answer's head, and nobody needs them here."""
_TARGET: Final = re.compile(rb"/[!-~\x80-\xff]*")
_ORDINARY: Final = bytes(set(range(256)) - set(b"\r\n\0"))
_OURS: Final = re.compile(rb"\n(?:host|content-length|transfer-encoding|connection|upgrade|expect)[ \t]*:", re.I)
_REMEMBERED_TARGETS: Final = 64
_SMALL_BODY_BYTES: Final = 65_536
_SHORTEST_TIMER_S: Final = 0.001
_REACHABLE_S: Final = 0.5
"""An orchestrator that asks gives up after a second."""


class Deadlines(Generic[W]):
    """One timer for many waits of the same length, which therefore end in the order in which they began."""

    def __init__(self, wait_s: float, expire: Callable[[W], None]) -> None:
        self._wait_s = wait_s
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None
        self.due: dict[W, float] = {}
        """What waits, longest first, and until when by the clock that never goes back."""

    def start(self, waiting: W) -> None:
        self.due[waiting] = time.monotonic() + self._wait_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_s, self._fire)

    def stop(self, waiting: W) -> None:
        self.due.pop(waiting, None)

    def restart(self, waiting: W) -> None:
        self.stop(waiting)
        self.start(waiting)

    def clear(self) -> None:
        self.due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = time.monotonic()
        while self.due:
            waiting, until = next(iter(self.due.items()))
            if until > now:
                self._timer = loop.call_later(max(until - now, _SHORTEST_TIMER_S), self._fire)
                return
            del self.due[waiting]
            self._expire(waiting)


class UpstreamClient:
    """Implements `ports.Upstream` for the origin of `url`, which is ``http://`` or ``https://``.

    A request is never sent twice. A kept connection is looked at right before it is used and replaced when it is
    closed, and a new one that is refused is asked for once more; once a request was written, whatever breaks is a
    `BadGateway`: a POST may have been acted on (RFC 9110 section 9.2.2). Kept connections are closed after `idle_s`,
    before common servers do it (at 5 s).

    `per_account`: a kept connection carries requests of one account only. Then even an upstream that answers out of
    turn can't hand one account what is another's; else that is noticed only while the connection is idle.

    `socket_path`: connections lead to that unix socket, and the URL says what is asked for there.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout_s: float,
        response_timeout_s: float,
        socket_path: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        per_account: bool = False,
        max_idle: int = 64,
        idle_s: float = 3.0,
        max_head_bytes: int = 65536,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("the upstream's URL must be http://host or https://host")
        address = parts.hostname.encode("idna").decode("ascii")
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        host = _host(address, port, _PORTS[parts.scheme])
        self._opening = b" HTTP/1.1\r\nHost: " + host
        self.authority = host.decode("ascii")
        """What every request's `Host` says: lower-case, without the scheme's default port."""
        self._dialer = Dialer(
            lambda: Connection(max_head_bytes, self._keep, self._forget),
            host=address,
            port=port,
            tls=(ssl_context or ssl.create_default_context()) if parts.scheme == "https" else None,
            socket_path=socket_path,
            timeout_s=connect_timeout_s,
        )
        self._per_account = per_account
        self._max_idle = max_idle
        self._idle: Deadlines[Connection] = Deadlines(idle_s, Connection.close)
        self._awaiting: Deadlines[Answer] = Deadlines(response_timeout_s, _time_out)
        self._open: set[Connection] = set()
        self._closed = False
        self._all_lost = asyncio.Event()

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes | None,
        *,
        account: str = "",
        idle_timeout_s: float | None = None,
    ) -> Answer:
        """Send one request and return when the head of its answer is here, as `ports.Upstream` says.

        Raises:
            Denial: as the port says.
            ValueError: nothing was sent, since the request would not be the one request it claims to be.
        """
        body = body or b""
        head = self._head(method, target, headers, body)
        owner = account if self._per_account else ""
        connection = self._reuse(owner) or await self._connect()
        connection.owner = owner
        answer = connection.begin(idle_timeout_s)
        self._awaiting.start(answer)
        try:
            if len(body) <= _SMALL_BODY_BYTES:
                connection.write(head + body)
            else:
                await connection.write_slowly(head, body, answer)
                self._awaiting.restart(answer)
            await answer.head(connection.loop)
        except BaseException:
            answer.close()
            raise
        finally:
            self._awaiting.stop(answer)
        return answer

    async def reachable(self) -> bool:
        """Tell, soon, whether a connection can be had; a new one is kept for the next request."""
        if any(connection.is_live() for connection in self._idle.due):
            return True
        try:
            async with asyncio.timeout(_REACHABLE_S):
                self._keep(await self._connect())
        except (Denial, TimeoutError):
            return False
        return True

    async def aclose(self) -> None:
        """Break off every answer and close every connection."""
        self._closed = True
        self._idle.clear()
        self._awaiting.clear()
        for connection in tuple(self._open):
            connection.abort()
        if self._open:
            await self._all_lost.wait()

    def _head(self, method: str, target: str, headers: Headers, body: bytes) -> bytes:
        """Build everything before the body. Policy has judged its parts; a slip there must not get past here."""
        path = _on_the_wire(target)
        if method not in _METHODS:
            raise ValueError("not a request line")
        fields = b"\r\n".join((b"", *map(b": ".join, headers)))
        if fields.translate(None, _ORDINARY) != b"\r\n" * len(headers) or _OURS.search(fields):
            raise ValueError("not a header, or one that belongs to the connection")
        length = b"\r\nContent-Length: %d" % len(body) if body or method == "POST" else b""
        return b"".join((_METHODS[method], path, self._opening, fields, length, b"\r\n\r\n"))

    def _reuse(self, owner: str) -> Connection | None:
        idle = self._idle.due
        for connection in reversed(tuple(idle)):
            if connection.owner == owner:
                del idle[connection]
                if connection.is_live():
                    return connection
                connection.abort()
        return None

    async def _connect(self) -> Connection:
        connection = await self._dialer.dial()
        if self._closed:
            connection.abort()
            raise BadGateway("upstream_connect", detail="closed before anything was asked")
        self._open.add(connection)
        return connection

    def _keep(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
            return
        self._idle.start(connection)
        if len(self._idle.due) > self._max_idle:
            oldest = next(iter(self._idle.due))
            self._idle.stop(oldest)
            oldest.close()

    def _forget(self, connection: Connection) -> None:
        self._idle.stop(connection)
        self._open.discard(connection)
        if self._closed and not self._open:
            self._all_lost.set()


@lru_cache(maxsize=_REMEMBERED_TARGETS)
def _on_the_wire(target: str) -> bytes:
    """Return a request's target as it is sent; remembered for those that came last, by their text."""
    path = target.encode("utf-8", "surrogateescape")
    if not _TARGET.fullmatch(path):
        raise ValueError("not a request line")
    return path


def _host(address: str, port: int, default_port: int) -> bytes:
    name = f"[{address}]" if ":" in address else address
    return (name if port == default_port else f"{name}:{port}").encode("ascii")


def _time_out(answer: Answer) -> None:
    if answer.status == 0:
        answer.fail(GatewayTimeout("upstream_timeout"))
