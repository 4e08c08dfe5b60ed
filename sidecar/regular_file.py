"""Reads files that somebody else may replace while we run, by what they will."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read(path: str | Path, max_bytes: int) -> bytes:
    """Return what a regular file holds. A pipe in its place would have its reader wait for ever.

    Raises:
        OSError: there is none, it is no regular file, or it is larger than that.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"is larger than {max_bytes} bytes", str(path))
    return content
