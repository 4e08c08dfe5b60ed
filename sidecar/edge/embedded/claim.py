"""One serving process for each file: limits live in its memory, and a second one would double them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sidecar.denials import StoreUnavailable


@contextmanager
def sole_server(path: str) -> Iterator[None]:
    """Be the only process that serves with this store, until the block or the process ends. Commands need no claim.

    Raises:
        StoreUnavailable: another process has it.
    """
    descriptor = os.open(Path(f"{path}.serving"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            detail = f"another sidecar serves with {path}; for several, use Redis as the store"
            raise StoreUnavailable("store_claimed", detail=detail) from error
        yield
    finally:
        os.close(descriptor)
