"""How many clients this process can hold with the memory that its cgroup lets it have."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PLAIN_BYTES: Final = 16 * 1024
"""What a client takes: measured are 6 KB idle, and more while its request runs."""
_TLS_BYTES: Final = 64 * 1024
"""Likewise: measured are 53 KB idle, and 72 KB for the few that are agreeing on TLS."""
_SHARE: Final = 0.5
"""Of the memory, for clients. The rest is for the processes themselves, bodies, and what is remembered."""
_GROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def max_connections(*, has_tls: bool, processes: int, groups: Path = _GROUPS, own: Path = _OWN) -> int | None:
    """Return how many clients one of so many processes can hold, None where nothing bounds its memory."""
    limit_bytes = _limit_bytes(groups, own)
    if limit_bytes is None:
        return None
    return max(1, int(limit_bytes * _SHARE) // processes // (_TLS_BYTES if has_tls else _PLAIN_BYTES))


def _limit_bytes(groups: Path, own: Path) -> int | None:
    """Find the least `memory.max` of our cgroup (version 2) and those above it, as cgroups(7) lays them out."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        if line.startswith("0::/"):
            group = groups / line.removeprefix("0::/")
            for level in (group, *group.parents):
                if level.is_relative_to(groups):
                    found += _limit_of(level / "memory.max")
    return min(found, default=None)


def _limit_of(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() else []  # "max" is no limit
