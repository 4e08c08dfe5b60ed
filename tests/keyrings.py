"""A keyring over a real store, with time in the test's hands."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.edge.embedded import EmbeddedStore
from sidecar.edge.hashing import BcryptHasher
from sidecar.keyring import Keyring

START = 1_800_000_000.25


@dataclass
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A keyring and what it stands on. The store reads the same clock."""

    keyring: Keyring
    store: EmbeddedStore
    hasher: BcryptHasher
    clock: Clock


@asynccontextmanager
async def opened(directory: Path, **rules: Any) -> AsyncIterator[Bench]:
    clock = Clock()
    store = await EmbeddedStore.open(str(directory / "sidecar.db"), clock=clock)
    hasher = BcryptHasher(4, threads=1)
    settings = {
        "default_scopes": ("mcp:read",),
        "default_expiry_days": 90,
        "rotation_grace_s": 3600,
        "max_per_account": 50,
        **rules,
    }
    try:
        yield Bench(Keyring(store, hasher, clock=clock, entropy=os.urandom, **settings), store, hasher, clock)
    finally:
        await hasher.aclose()
        await store.aclose()
