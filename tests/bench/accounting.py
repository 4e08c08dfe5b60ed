"""What has a program cost so far? The operating system's accounts of a process and all its children (Linux)."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Final

_US_PER_TICK: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PARENT, _FIRST_TIME, _LAST_TIME = 1, 11, 14
"""Places in ``/proc/PID/stat`` after the command's name: the parent; utime, stime and those of reaped children."""


def cpu_us(pid: int) -> int:
    """Return the CPU time, user and system, that the process and its children have used, in microseconds."""
    total = 0
    for member in _family(pid):
        fields = _stat(member)
        total += sum(map(int, fields[_FIRST_TIME : _LAST_TIME + 1])) if fields else 0
    return total * _US_PER_TICK


def rss_bytes(pid: int) -> int:
    """Return the memory that the process and its children have in use; what they share counts for each."""
    total = 0
    for member in _family(pid):
        try:
            total += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * _PAGE_BYTES
        except OSError:
            continue  # it has ended
    return total


def _family(pid: int) -> list[int]:
    children = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children[int(fields[_PARENT])].append(int(entry))
    family = [pid]
    for member in family:  # it grows meanwhile
        family += children[member]
    return family


def _stat(pid: int) -> list[str]:
    """Return the fields after the command's name, which may itself hold blanks and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
