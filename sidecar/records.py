"""API keys and what is kept of them. Values, like those of `model`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key taken apart: the public lookup id, the secret, and the whole text that is shown once."""

    id: str
    """``key_`` and the 12 characters of the lookup id."""
    secret: str = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is stored of an API key. Times are Unix seconds. The key itself is not here and nowhere else."""

    id: str
    account: str
    name: str
    prefix: str
    """The first 16 characters of the key, for people to recognise it by."""
    scopes: tuple[str, ...]
    secret_hash: str = field(repr=False)
    created_at: float
    created_by: str
    """The ``sub`` of the token that made it, or ``cli``."""
    origin: Literal["rest", "cli"]
    lifetime_s: float
    """As asked for at creation; a rotation gives the successor the same."""
    expires_at: float
    revoked_at: float | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    version: int = 1
    """Grows by one with every change, so that a stale copy can be told from a fresh one."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key's record with what its use has left behind."""

    record: KeyRecord
    last_used_at: float | None


@dataclass(frozen=True, slots=True)
class UsageCount:
    """How often a key was used in the hour or day that begins at `start` (Unix seconds)."""

    start: int
    requests: int = 0
    refused: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """48 hours and 30 days, oldest first, the current ones last, zeros included."""

    hours: tuple[UsageCount, ...]
    days: tuple[UsageCount, ...]


@dataclass(frozen=True, slots=True)
class KeyAct:
    """A key that was made, replaced or ended, for the audit."""

    act: Literal["create_key", "rotate_key", "revoke_key"]
    key_id: str
    scopes: tuple[str, ...] = ()
    """Of the key that was made."""
    expires_at: float | None = None
    replaces: str | None = None
    """The key that the new one is the successor of."""
