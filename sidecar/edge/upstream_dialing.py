"""Opens connections to the upstream: at each of its name's addresses, or at a unix socket."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Final

from sidecar.denials import BadGateway, GatewayTimeout
from sidecar.edge.upstream_connection import Connection
from sidecar.sockets import probe_when_silent

_STAGGER_S: Final = 0.25
"""How long one address of a name is tried alone (RFC 8305 section 5)."""


class Dialer:
    """Opens connections to one place, each of them made by `make`.

    With `socket_path` they lead to that unix socket; host and port then are a name alone, for TLS.
    """

    def __init__(
        self,
        make: Callable[[], Connection],
        *,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        socket_path: str | None,
        timeout_s: float,
    ) -> None:
        self._make = make
        self._host = host
        self._port = port
        self._tls = tls
        self._server_name = host if tls else None
        self._socket_path = socket_path
        self._timeout_s = timeout_s
        self._is_name = not _is_literal(host)

    async def dial(self) -> Connection:
        """Return a new connection.

        Raises:
            BadGateway, GatewayTimeout: it can't be had, or not in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._open()
                except ConnectionError:
                    # Nothing was sent on it. Behind one address there may be several servers, or one that restarts.
                    return await self._open()
        except TimeoutError as error:
            raise GatewayTimeout("upstream_connect_timeout", detail=str(error)) from error
        except OSError as error:
            raise BadGateway("upstream_connect", detail=str(error)) from error

    async def _open(self) -> Connection:
        if self._socket_path is not None:
            connection = await self._open_socket(self._socket_path)
        else:
            connection = await (self._open_at_first() if self._is_name else self._open_at(self._host))
        if not connection.is_open():
            raise ConnectionAbortedError("closed before anything was asked")
        return connection

    async def _open_at_first(self) -> Connection:
        """Try the name's addresses, each a moment after the one before, and take the first that answers.

        uvloop tries them only one after the other: one that swallows packets would take all the time there is.
        """
        found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        stagger_s = min(_STAGGER_S, self._timeout_s / len(addresses))
        won: asyncio.Task[Connection] | None = None
        done, running = set[asyncio.Task[Connection]](), set[asyncio.Task[Connection]]()
        try:
            while won is None and (addresses or running):
                if addresses:
                    running.add(asyncio.create_task(self._open_at(addresses.pop(0))))
                wait_s = stagger_s if addresses else None
                done, running = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                won = next((attempt for attempt in done if attempt.exception() is None), None)
            return (won or done.pop()).result()
        finally:
            for attempt in (done | running) - {won}:
                attempt.cancel()
                attempt.add_done_callback(_abandon)

    async def _open_at(self, address: str) -> Connection:
        transport, connection = await asyncio.get_running_loop().create_connection(
            self._make, address, self._port, ssl=self._tls, server_hostname=self._server_name
        )
        probe_when_silent(transport.get_extra_info("socket"))
        return connection

    async def _open_socket(self, path: str) -> Connection:
        _, connection = await asyncio.get_running_loop().create_unix_connection(
            self._make, path, ssl=self._tls, server_hostname=self._server_name
        )
        return connection


def _is_literal(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _abandon(attempt: asyncio.Task[Connection]) -> None:
    """Close what an attempt has opened that another was quicker than."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()
