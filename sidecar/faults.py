"""What is told of a fault of ours: its kind and where it arose. Its text and the values in play may hold secrets."""

from __future__ import annotations

import traceback
from typing import Final

_FRAMES: Final = 6


def place_of(fault: BaseException) -> str:
    """Return the fault's kind and the functions it came through, the innermost first."""
    frames = traceback.extract_tb(fault.__traceback__)
    return f"{type(fault).__name__} at " + " < ".join(f"{f.name}:{f.lineno}" for f in reversed(frames[-_FRAMES:]))
