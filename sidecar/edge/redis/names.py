"""How everything is called in Redis. What belongs to an account carries the hash tag ``{account}``: one slot.

Accounts hold no braces (contract), so a tag ends where it should. The last part of each name tells the kinds apart.
"""

from __future__ import annotations

import hashlib
from typing import Final

ALL_KEY_LISTS: Final = "sidecar:{*}:keys"
ALL_APPROVALS: Final = "sidecar:approval:*"


def limit_log(account: str, holder: str, limit: str) -> str:
    """Name what was spent of a limit; `holder` is the credential's id, or ``account``."""
    return f"sidecar:{{{account}}}:limit:{holder}:{limit}"


def failures(address: str, limit: str) -> str:
    """Name the failed authentications from an address."""
    return f"sidecar:{{address {address}}}:failures:{limit}"


def record(account: str, key_id: str) -> str:
    """Name the hash of one API key: its version, record and last use."""
    return f"sidecar:{{{account}}}:key:{key_id}"


def key_list(account: str) -> str:
    """Name the sorted set of all the account's key ids, by time of creation."""
    return f"sidecar:{{{account}}}:keys"


def active_keys(account: str) -> str:
    """Name the sorted set of the ids of keys that are not revoked, by expiry."""
    return f"sidecar:{{{account}}}:active"


def usage(account: str, key_id: str, day: int) -> str:
    """Name the counts of one key and one UTC day, counted since 1970."""
    return f"sidecar:{{{account}}}:usage:{key_id}:{day}"


def unusual(account: str) -> str:
    """Name the hash of what was unusual about the account's keys."""
    return f"sidecar:{{{account}}}:unusual"


def owner(key_id: str) -> str:
    """Name where the account of a key stands, for whoever knows only its id."""
    return f"sidecar:key:{key_id}"


def revoked_before(account: str) -> str:
    """Name the moment before which everything issued to the account is revoked."""
    return f"sidecar:{{{account}}}:revoked_before"


def revoked_here(account: str, token_id: str) -> str:
    """Name the flag of a revoked token where `admit` looks."""
    return f"sidecar:{{{account}}}:token:{token_id}"


def revoked(token_id: str) -> str:
    """Name the flag of a revoked token that may never have been met."""
    return f"sidecar:{{token {token_id}}}:revoked"


def met(token_id: str) -> str:
    """Name the set of accounts that a token was met for."""
    return f"sidecar:{{token {token_id}}}:accounts"


def handle(account: str, kind: str, handle_id: str) -> str:
    """Name a session or task; its id is the upstream's own text, so only a digest of it goes into a name."""
    return f"sidecar:{{{account}}}:{kind}:{hashlib.sha256(handle_id.encode()).hexdigest()[:32]}"


def pins(upstream: str) -> str:
    """Name the hash of what is kept of an upstream's tools."""
    return f"sidecar:{{upstream {upstream}}}:pins"


def confirmation(account: str, confirmation_id: str) -> str:
    """Name the hash of one confirmation: its record, its state, and who decided."""
    return f"sidecar:{{{account}}}:confirmation:{confirmation_id}"


def confirmation_for(account: str, binding: str) -> str:
    """Name where the id of the confirmation that was kept last for a binding stands."""
    return f"sidecar:{{{account}}}:confirming:{binding}"


def waiting(account: str) -> str:
    """Name the sorted set of the ids of approvals that nobody has decided on, by expiry."""
    return f"sidecar:{{{account}}}:waiting"


def used(account: str, name: str) -> str:
    """Name the flag of something that was used once."""
    return f"sidecar:{{{account}}}:used:{name}"


def approval(confirmation_id: str) -> str:
    """Name where the account of an approval stands, for whoever knows only its id."""
    return f"sidecar:approval:{confirmation_id}"


def changes() -> str:
    """Name the stream of accounts whose keys or tokens were changed."""
    return "sidecar:changes"


def probe() -> str:
    """Name what is written to find out whether anything can be."""
    return "sidecar:probe"


def account_in(key_list_name: bytes) -> str:
    """Return the account whose `key_list` this is."""
    return key_list_name.decode()[len("sidecar:{") : -len("}:keys")]
