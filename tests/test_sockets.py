"""Half-open connections are noticed by the operating system."""

from __future__ import annotations

import socket

from sidecar.sockets import probe_when_silent


def test_a_connection_inherits_the_probes_of_the_socket_that_accepted_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        probe_when_silent(listening)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
