"""Half-open connections are noticed by the operating system."""

from __future__ import annotations

import socket

from sidecar.sockets import has_unsent, probe_when_silent


def test_a_connection_inherits_the_probes_of_the_socket_that_accepted_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        probe_when_silent(listening)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


def test_what_the_peer_has_no_room_for_is_known_to_be_unsent() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as reading,
        listening.accept()[0] as writing,
    ):
        assert not has_unsent(writing)
        writing.setblocking(False)
        sent = 0
        try:
            while True:
                sent += writing.send(bytes(65_536))
        except BlockingIOError:
            assert has_unsent(writing)
        while sent:
            sent -= len(reading.recv(65_536))
        reading.sendall(b"read")  # acknowledges what came before it
        writing.setblocking(True)
        assert writing.recv(4) == b"read"
        assert not has_unsent(writing)
    assert not has_unsent(writing), "it is closed"
