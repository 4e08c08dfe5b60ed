"""What the operating system knows of a connection: that its peer is gone without a word, or has sent something."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
from typing import Final

_OPTIONS: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""Seconds of silence until the first probe, seconds between probes, how many; and milliseconds for which what was sent
may stay unacknowledged, or unsent because the peer takes nothing."""


def probe_when_silent(connected: socket.socket) -> None:
    """Have the connection broken off within a minute when its other end is gone, or takes nothing.

    What is set on a listening socket holds for the connections that it accepts.
    """
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _OPTIONS.items():
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def has_unread(connected: socket.socket) -> bool:
    """Tell whether something has come that nobody has read yet, be it the end."""
    poll = select.poll()
    poll.register(connected.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def has_unsent(connected: socket.socket) -> bool:
    """Tell whether the peer has not yet taken all that the system was given for it (tcp(7), SIOCOUTQ)."""
    unsent = bytearray(struct.calcsize("i"))
    with contextlib.suppress(OSError, ValueError):  # it is closed
        fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, unsent)
    return any(unsent)


def reset_when_closed(connected: socket.socket) -> None:
    """Have the connection reset, not closed in good order, when it is closed next."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
