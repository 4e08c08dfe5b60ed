"""The public port: opened, handed from one generation to the next, and closed without losing an answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from sidecar.config import DrainConfig, ListenConfig, ServerTlsConfig
from sidecar.edge import descriptors, memory
from sidecar.edge.admin import http_url
from sidecar.edge.http.listener import BACKLOG, Handler, Listener
from sidecar.edge.telemetry import Telemetry
from sidecar.sockets import probe_when_silent
from sidecar.tls import expires_at, server_context


class PublicPort:
    """Where clients connect. `bad_head` is told of requests that never became one, by the status of the answer.

    So many `processes` serve it, this one among them, and share the memory.

    Raises:
        ValueError: TLS can't be served by this certificate.
    """

    def __init__(
        self,
        handler: Handler,
        telemetry: Telemetry,
        *,
        bad_head: Callable[[int], None],
        tls: ServerTlsConfig,
        processes: int = 1,
    ) -> None:
        self.url = ""
        """Where it really is; with port 0 the system chose it."""
        self._shown = tls
        context = None
        if tls.cert is not None and tls.key is not None:
            context = server_context(tls.cert, tls.key)
            telemetry.watched.certificate_expires_at = expires_at(tls.cert)
        self._telemetry = telemetry
        most = descriptors.max_connections()
        most = min(most, memory.max_connections(has_tls=context is not None, processes=processes) or most)
        self._listener = Listener(
            handler,
            bad_head=bad_head,
            tls=context,
            bad_handshake=telemetry.bad_handshake,
            max_connections=most,
        )
        telemetry.watched.connections_of(lambda: len(self._listener.connections), most)
        self._server: asyncio.Server

    @property
    def handler(self) -> Handler:
        """What answers the next request."""
        return self._listener.handle

    @handler.setter
    def handler(self, handler: Handler) -> None:
        self._listener.handle = handler

    async def watch(self) -> None:
        """End connections whose clients take too long, for as long as this runs."""
        await self._listener.watch()

    async def open(self, listen: ListenConfig, *, is_shared: bool) -> None:
        """Listen. `is_shared`: other processes of ours listen there too.

        Raises:
            OSError: the port can't be had.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._listener, listen.host, listen.port, backlog=BACKLOG, reuse_port=is_shared
        )
        for bound in self._server.sockets:
            probe_when_silent(bound)
        self.url = http_url(self._server.sockets[0].getsockname(), tls=self._listener.tls is not None)

    def showing(self, tls: ServerTlsConfig) -> Callable[[], None]:
        """Return what has this certificate shown to those who connect from then on, if it is another.

        Raises:
            ValueError: it can't be used.
        """
        if self._listener.tls is None or tls.cert is None or tls.key is None or tls == self._shown:
            return lambda: None
        # A new one: OpenSSL mends none in part, and one that has an old kind of key would go on showing that.
        return partial(self._show, tls, server_context(tls.cert, tls.key), expires_at(tls.cert))

    def _show(self, tls: ServerTlsConfig, context: ssl.SSLContext, ends_at: float) -> None:
        self._listener.tls = context
        self._telemetry.watched.certificate_expires_at = ends_at
        self._shown = tls

    def drain(self) -> None:
        """Have each answer be the last one of its connection."""
        self._listener.is_draining = True

    async def close(self, drain: DrainConfig, *, end_streams: Callable[[], None]) -> None:
        """Take no new connections, answer what was asked, and return when every connection has ended.

        `end_streams` is called when those that would go on for ever have had their time.
        """
        farewell = asyncio.get_running_loop().call_later(drain.streams_s, end_streams)
        await self._listener.close(self._server, drain.requests_s)
        farewell.cancel()


@contextlib.asynccontextmanager
async def reserved(listen: ListenConfig) -> AsyncIterator[tuple[Any, ...]]:
    """Hold the public port for the workers, without listening; yield its first address.

    Each worker listens on a socket of its own (`SO_REUSEPORT`), among which the system spreads the connections. That
    alone would also let a second sidecar in: hence the first attempt without it.

    Raises:
        OSError: the port can't be had.
    """
    loop, port = asyncio.get_running_loop(), listen.port
    with contextlib.ExitStack() as held:
        first: tuple[Any, ...] = ()
        for family, _, _, _, address in await loop.getaddrinfo(
            listen.host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with _bound(family, (address[0], port, *address[2:]), shared=False) as alone:
                free: tuple[Any, ...] = alone.getsockname()
            held.enter_context(_bound(family, free, shared=True))
            first, port = first or free, free[1]
        yield first


def _bound(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError as problem:
        bound.close()
        raise OSError(problem.errno, f"can't listen on {http_url(address)}: {problem.strerror}") from problem
    return bound
