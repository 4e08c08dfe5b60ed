"""What is kept: API keys, tools, and confirmations. Values, like those of `model`."""

from __future__ import annotations

from collections.abc import Mapping
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
    returned_at: float | None = None
    """When it was first used, or last used again after a day or more without use; None before its first use."""
    silent_s: float | None = None
    """How long it had not been used then; None when it never had been."""


@dataclass(frozen=True, slots=True)
class UsageCount:
    """How often a key was used in the hour or day that begins at `start` (Unix seconds)."""

    start: int
    requests: int = 0
    refused: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """48 hours and 30 days or fewer, oldest first, the current ones last, zeros included."""

    hours: tuple[UsageCount, ...]
    days: tuple[UsageCount, ...]


UnusualKind = Literal["unseen", "replaced", "refusals", "burst"]


@dataclass(frozen=True, slots=True)
class Unusual:
    """Something about the use of a key, or of an account's keys, that a person should look at."""

    kind: UnusualKind
    since: float
    """Unix seconds."""
    reason: str
    """One sentence without a full stop, of our own words and figures only."""


@dataclass(frozen=True, slots=True)
class KeyActivity:
    """How a key was used in the last days, and what was unusual about it."""

    key_id: str
    days: tuple[UsageCount, ...]
    unusual: tuple[Unusual, ...]


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


@dataclass(frozen=True, slots=True)
class Sighting:
    """A tool's definition as the upstream told it."""

    digest: str
    """SHA-256 in hex, of what `policy.pins.canonical` makes of it."""
    annotated: str | None
    """The class that its annotations give it."""
    definition: str = field(repr=False)
    """Canonical JSON for people to compare, in which a digest stands for a member that is too long to be kept."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What is kept of a tool: the definition that was approved, and the one that was seen last. Never neither."""

    name: str
    approved: Sighting | None
    approved_at: float | None
    approved_by: Literal["first_use", "cli"] | None
    seen: Sighting | None
    """None when the upstream does not list it any more."""
    seen_at: float
    """Since when it has been so, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """All pins of an upstream."""

    version: int
    """Grows with every change; 0 when there never was one."""
    is_complete: bool
    """Whether all that the upstream listed first was pinned. What it lists first from then on is new."""
    pins: Mapping[str, Pin]
    """By name."""


ConfirmationState = Literal["waiting", "approved", "declined", "withdrawn", "spent"]
"""*withdrawn*: the caller gave up, or nobody answered in time. *spent*: the one call that it was for has been made."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A call that waits for a person's word, and what became of it. Times are Unix seconds."""

    id: str
    kind: Literal["question", "approval"]
    """*question*: asked of the caller's own client, on the call's answer. *approval*: given by somebody else."""
    account: str
    owner: str
    """Who made the call; see `policy.sessions.owner`."""
    binding: str
    """A digest of what it is for: at any time one is open for each. See `policy.confirmation`."""
    session: str
    """A digest of the session that the call was made in; empty for an approval, which outlives sessions."""
    subject: str
    client_id: str | None
    tool: str
    message: str
    """What the person reads."""
    created_at: float
    expires_at: float
    credential: Literal["jwt", "api_key"] = "jwt"
    arguments: str | None = field(default=None, repr=False)
    """The JSON text of an approval's arguments, perhaps cut; None where there are none."""
    is_cut: bool = False
    """The arguments are longer than what is kept of them."""
    besides: str | None = None
    """What an approval's call says besides its arguments, as people read it; see `policy.confirmation.besides`."""
    state: ConfirmationState = "waiting"
    decided_by: str | None = None
    """*client*, *operator*, or *subject:* and the subject of the token that decided."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What a person said yes to."""

    binding: str
    """See `policy.confirmation.call_binding`."""
    by: Literal["client", "other"]
    """*client*: the caller's own said so. *other*: somebody else approved it."""


@dataclass(frozen=True, slots=True)
class ApprovalAct:
    """What somebody decided about a call. For the audit."""

    decision: Literal["approve", "decline"]
    approval: Confirmation
