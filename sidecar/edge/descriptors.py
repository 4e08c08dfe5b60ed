"""How many clients this process can hold with the file descriptors that the system lets it have."""

from __future__ import annotations

import resource
from typing import Final

_PER_CLIENT: Final = 2
"""The client's connection, and the upstream's while its request runs."""
_KEPT_FREE: Final = 96
"""For the store, the key sets, the admin port, the log and what the interpreter holds."""
_ENOUGH: Final = 65_536
"""Descriptors that are asked for when the system sets no bound."""


def max_connections() -> int:
    """Raise the limit of this process as far as it may be, and return how many connections that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    allowed = _ENOUGH if soft == resource.RLIM_INFINITY else soft
    return max(1, (allowed - _KEPT_FREE) // _PER_CLIENT)
