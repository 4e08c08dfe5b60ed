"""Random numbers for what nobody may guess or meet twice: the ids of requests, and nonces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

_BYTES: Final = 16
_AT_ONCE: Final = 256


def numbers() -> Iterator[str]:
    """Yield numbers of 128 bits, as hexadecimal digits, from the system's generator.

    It is asked for 256 of them at once: each time is a system call. Not for keys: a number lies in memory before it is
    used. Not for several threads.
    """
    while True:
        digits = os.urandom(_BYTES * _AT_ONCE).hex()
        for start in range(0, len(digits), 2 * _BYTES):
            yield digits[start : start + 2 * _BYTES]
