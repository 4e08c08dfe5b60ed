"""A very large answer of which every part can be told from every other, so that a reader knows a right one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 1 << 20
_NUMBER_BYTES: Final = 16


def write_gigabyte(path: Path, size: int) -> None:
    """Write so many whole blocks."""
    with path.open("wb") as file:
        for number in range(size // BLOCK_BYTES):
            file.write(block(number))


def block(number: int) -> bytes:
    """Return the block with this number; its number is all that it holds."""
    return (b"%0*d" % (_NUMBER_BYTES, number)) * (BLOCK_BYTES // _NUMBER_BYTES)
