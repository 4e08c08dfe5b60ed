"""What the hot path reads of the file, kept in memory until anyone changes it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from sidecar.bounded import BoundedCache
from sidecar.edge.embedded.database import Database, Row
from sidecar.records import KeyRecord

MAX_COPIES: Final = 10_000
"""Of each kind, at about 1 KiB or less."""
NAMES: Final = tuple([field.name for field in fields(KeyRecord)])
COLUMNS: Final = ", ".join(NAMES)


class Copies:
    """Never older than the last `refresh`, whichever process made the change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._data_version = -1
        self.generation = -1
        """Grows with every change of a key or revocation."""
        self._records: BoundedCache[str, KeyRecord | None] = BoundedCache(MAX_COPIES)
        self._moments: BoundedCache[str, float] = BoundedCache(MAX_COPIES)
        self._tokens: BoundedCache[str, Row | None] = BoundedCache(MAX_COPIES)

    def refresh(self) -> None:
        """Drop the copies when keys or revocations were changed since the last time.

        ``PRAGMA data_version`` changes with every commit of another connection and costs 3 µs; the generation tells
        whether the commit was one that matters. In this order, so that a commit in between is seen the next time.
        """
        data_version: int = self._database.read("PRAGMA data_version")[0][0]
        if data_version == self._data_version:
            return
        generation: int = self._database.read("SELECT number FROM generation")[0][0]
        if generation != self.generation:
            self._records.clear()
            self._moments.clear()
            self._tokens.clear()
            self.generation = generation
        self._data_version = data_version

    def record(self, account: str, key_id: str) -> KeyRecord | None:
        """Return the record of this account's key."""
        if key_id in self._records:
            record = self._records[key_id]
        else:
            rows = self._database.read(f"SELECT {COLUMNS} FROM keys WHERE id = ?", key_id)  # noqa: S608 - a constant
            record = self._records[key_id] = key_record(rows[0]) if rows else None
        return record if record is not None and record.account == account else None

    def revoked_before(self, account: str) -> float:
        """Return the moment before which everything issued to the account is revoked; 0 when there is none."""
        moment = self._moments.get(account)
        if moment is None:
            rows = self._database.read("SELECT moment FROM revoked_accounts WHERE account = ?", account)
            moment = self._moments[account] = rows[0][0] if rows else 0.0
        return moment

    def revoked_token(self, token_id: str) -> Row | None:
        """Return the row of a revoked token: when it expires, if that is known. None when it is not revoked."""
        if token_id in self._tokens:
            return self._tokens[token_id]
        rows = self._database.read("SELECT expires_at FROM revoked_tokens WHERE token_id = ?", token_id)
        row = self._tokens[token_id] = rows[0] if rows else None
        return row


def key_record(row: Row) -> KeyRecord:
    """Read a record back from its `COLUMNS`."""
    values: dict[str, Any] = dict(zip(NAMES, row, strict=True))
    return KeyRecord(**{**values, "scopes": tuple(values["scopes"].split())})


def row_of(record: KeyRecord) -> Row:
    """Return a record as its `COLUMNS`."""
    return tuple([" ".join(record.scopes) if name == "scopes" else getattr(record, name) for name in NAMES])
