"""What an API key looks like, whether its record is good now, and how it is shown. Pure decisions."""

from __future__ import annotations

import re
from binascii import crc32
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sidecar.denials import InvalidApiKey
from sidecar.model import Principal
from sidecar.records import ApiKey, KeyAct, KeyRecord, StoredKey, Usage, UsageCount

ENTROPY_BYTES: Final = 48
"""What `mint` needs: a number of 384 bits modulo 62^40 favours no key by more than 2^-145."""
WARNING: Final = "Save this key now - it will not be shown again!"

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
"""Two digits at a time: every request with a key needs six."""
_KEY: Final = re.compile(r"mcp_[0-9A-Za-z]{46}")
_KEY_ID: Final = re.compile(r"key_[0-9A-Za-z]{12}")
_LOOKUP_END: Final = 16
_SECRET_END: Final = 44


def mint(entropy: bytes) -> ApiKey:
    """Make a new key of `ENTROPY_BYTES` or more random bytes.

    Raises:
        ValueError: when there are fewer.
    """
    if len(entropy) < ENTROPY_BYTES:
        raise ValueError(f"a key needs {ENTROPY_BYTES} random bytes, not {len(entropy)}")
    unsigned = "mcp_" + _base62(int.from_bytes(entropy, "big") % 62**40, 40)
    return _take_apart(unsigned + checksum(unsigned))


def parse(text: str) -> ApiKey:
    """Take a presented key apart. Its checksum keeps typing errors and noise away from the store and the hasher.

    Raises:
        InvalidApiKey: for anything that `mint` can't have made.
    """
    if not _KEY.fullmatch(text) or checksum(text[:_SECRET_END]) != text[_SECRET_END:]:
        raise InvalidApiKey("key_malformed")
    return _take_apart(text)


def checksum(unsigned: str) -> str:
    """Return the CRC-32 of everything before it, as six base62 digits."""
    rest, last = divmod(crc32(unsigned.encode("ascii")), len(_PAIRS))
    first, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]


def made(record: KeyRecord) -> KeyAct:
    """Say for the audit which key was made, what it may do, and which one it succeeds."""
    act: Literal["create_key", "rotate_key"] = "create_key" if record.replaces is None else "rotate_key"
    return KeyAct(act, record.id, record.scopes, record.expires_at, record.replaces)


def audited(done: KeyAct) -> dict[str, Any]:
    """Write down what was done with a key; nothing of its secret is known here."""
    members: dict[str, Any] = {"act": done.act, "key": done.key_id}
    if done.expires_at is not None:
        members |= {"scopes": list(done.scopes), "expires_at": rfc3339(done.expires_at)}
    return members if done.replaces is None else {**members, "replaces": done.replaces}


def prefix(key: ApiKey) -> str:
    """Return the public beginning of a key, for people to recognise it by."""
    return key.text[:_LOOKUP_END]


def is_key_id(text: str) -> bool:
    """Tell whether this could be a key's id."""
    return _KEY_ID.fullmatch(text) is not None


def id_of_key(text: str) -> str | None:
    """Return the id of the key that this could be, for who gives a key where its id is wanted; None for other text."""
    return "key_" + text[len("mcp_") : _LOOKUP_END] if _KEY.fullmatch(text) else None


def status(record: KeyRecord, now: float) -> Literal["active", "expired", "revoked"]:
    """Tell how a key stands. Revoked outweighs expired; a key ends at its `expires_at`, not after it."""
    if record.revoked_at is not None:
        return "revoked"
    return "active" if now < record.expires_at else "expired"


def judge(record: KeyRecord | None, now: float) -> None:
    """Let an active key pass.

    Raises:
        InvalidApiKey: the client can't tell unknown, revoked and expired apart; the log can.
    """
    if record is None:
        raise InvalidApiKey("key_unknown")
    match status(record, now):
        case "revoked":
            raise InvalidApiKey("key_revoked", detail=record.id)
        case "expired":
            raise InvalidApiKey("key_expired", detail=record.id)


def principal(record: KeyRecord) -> Principal:
    """Say who comes with this key, once its secret was verified and `judge` let it pass."""
    return Principal(
        record.account,
        record.id,
        "api_key",
        record.id,
        record.scopes,
        record.created_at,
        record.expires_at,
        key=record,
    )


def describe(stored: StoredKey, now: float) -> dict[str, Any]:
    """Show a key to people and programs: everything but the secret and its hash."""
    record = stored.record
    return {
        "id": record.id,
        "name": record.name,
        "prefix": record.prefix,
        "scopes": list(record.scopes),
        "status": status(record, now),
        "createdAt": rfc3339(record.created_at),
        "expiresAt": rfc3339(record.expires_at),
        "lastUsedAt": None if stored.last_used_at is None else rfc3339(stored.last_used_at),
        "createdBy": record.created_by,
        "replacedBy": record.replaced_by,
    }


def describe_new(record: KeyRecord, key: ApiKey) -> dict[str, Any]:
    """Show a new key, the one and only time."""
    return {
        "id": record.id,
        "key": key.text,
        "name": record.name,
        "scopes": list(record.scopes),
        "expiresAt": rfc3339(record.expires_at),
        "createdAt": rfc3339(record.created_at),
        "warning": WARNING,
    }


def describe_usage(key_id: str, usage: Usage) -> dict[str, Any]:
    """Show how often a key was used, oldest first."""
    return {
        "id": key_id,
        "hours": [describe_count(count) for count in usage.hours],
        "days": [describe_count(count) for count in usage.days],
    }


def rfc3339(moment: float) -> str:
    """Write Unix seconds as RFC 3339: UTC, whole seconds, rounded down."""
    return datetime.fromtimestamp(moment // 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_count(count: UsageCount) -> dict[str, Any]:
    """Show how much was asked for in an hour or a day."""
    return {
        "start": rfc3339(count.start),
        "requests": count.requests,
        "refused": count.refused,
        "writes": count.writes,
    }


def _take_apart(text: str) -> ApiKey:
    return ApiKey("key_" + text[4:_LOOKUP_END], text[_LOOKUP_END:_SECRET_END], text)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
