"""Has the operating system notice a peer that is gone without a word."""

from __future__ import annotations

import socket
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
