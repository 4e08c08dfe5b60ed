"""One client that has connected and not yet agreed with us on TLS (RFC 8446)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from sidecar.edge.http.connection import HEAD_S, LINGER_S, STALL_S, Connection

Connect = Callable[[Callable[[], None]], Connection]


class House(Protocol):
    """What it belongs to until then; see `connection.House`."""

    def now(self) -> float: ...

    def note_bad_handshake(self) -> None: ...

    def admits(self, guest: Handshake) -> bool: ...

    def note_waiting(self, guest: Handshake, *, waits: bool = True) -> None: ...

    def forget(self, guest: Handshake) -> None: ...


class Handshake(asyncio.Protocol):
    """The transport's protocol until TLS is agreed on; then the connection that `connect` makes takes its place.

    `connect` is given what that connection calls when it is made. Until then this holds a place like a connection that
    waits for a request, so that who connects and says nothing is counted, and gives way to newcomers. It may take as
    long as a request's head.
    """

    def __init__(self, house: House, context: ssl.SSLContext, connect: Connect) -> None:
        self._house = house
        self._context = context
        self._connect = connect
        self._until = house.now() + HEAD_S
        self._agreeing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The event loops speak TLS from a connection's first byte on, or not reliably: this transport lets go of it.
        try:
            taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        except OSError:  # no descriptor is left
            return
        finally:
            cast("asyncio.Transport", transport).abort()
        taken.setblocking(False)
        if not self._house.admits(self):
            taken.close()  # there is no way yet to say why
            return
        self._house.note_waiting(self)
        self._agreeing = asyncio.get_running_loop().create_task(self._agree(taken))

    def give_up(self, status: int) -> None:
        """Give way to others."""
        self.abort()

    def close_if_silent(self) -> None:
        """Take no longer than a moment from now on."""
        self._until = min(self._until, self._house.now() + LINGER_S)

    def end_if_overdue(self) -> None:
        """End it when it has taken too long."""
        if self._house.now() > self._until:
            self.abort()

    def abort(self, because: str | None = None) -> None:
        """Close at once."""
        if self._agreeing is not None:
            self._agreeing.cancel()

    async def _agree(self, client: socket.socket) -> None:
        try:
            # Its own deadlines are twice ours: the listener's watch ends those that are late.
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._connect(self._leave),
                client,
                ssl=self._context,
                ssl_handshake_timeout=2 * HEAD_S,
                ssl_shutdown_timeout=2 * STALL_S,
            )
        except OSError:
            self._house.note_bad_handshake()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Give the place back, before the connection asks for one."""
        self._house.forget(self)
