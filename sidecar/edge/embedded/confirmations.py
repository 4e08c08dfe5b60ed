"""Calls that wait for a person: rows, as the command decides on some, and a restart must not forget a no."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from sqlite3 import Connection
from typing import Final

from sidecar.edge.embedded.database import Database, Row
from sidecar.policy.confirmation import MOST_WAITING, MOVES, OPEN
from sidecar.records import Confirmation
from sidecar.stores import TooManyWait

KEPT_AFTER_S: Final = 60.0
READ: Final = "SELECT record, state, decided_by FROM confirmations WHERE account = ? AND id = ?"
LAST: Final = (
    "SELECT record, state, decided_by FROM confirmations WHERE account = ? AND binding = ? ORDER BY number DESC LIMIT 1"
)
WRITE: Final = (
    "INSERT INTO confirmations SELECT ?, ?, ?, ?, ?, ?, NULL, ?, coalesce(max(number), 0) + 1 FROM confirmations"
    " WHERE account = ? AND binding = ?"
)
WAITING: Final = (
    "SELECT count(*) FROM confirmations"
    " WHERE account = ? AND expires_at > ? AND kind = 'approval' AND state = 'waiting'"
)
FORGET: Final = "DELETE FROM confirmations WHERE expires_at <= ?"
MOVE: Final = (
    "UPDATE confirmations SET state = ?, decided_by = coalesce(?, decided_by) WHERE account = ? AND id = ?"
    " AND instr(?, ',' || state || ',') > 0 AND expires_at > ?"
)
ACCOUNT: Final = "SELECT account FROM confirmations WHERE id = ? AND kind = 'approval'"
APPROVALS: Final = "SELECT record, state, decided_by FROM confirmations WHERE kind = 'approval'"
USE: Final = "INSERT INTO used VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
FORGET_USED: Final = "DELETE FROM used WHERE expires_at <= ?"


class SqliteConfirmations:
    """Confirmations, each changed in one transaction."""

    _database: Database

    async def keep(self, confirmation: Confirmation, now: float) -> Confirmation:
        """See `stores.ConfirmationStore`."""
        name = (confirmation.account, confirmation.binding)

        def work(writer: Connection) -> Confirmation:
            writer.execute(FORGET, (now - KEPT_AFTER_S,))
            row = writer.execute(LAST, name).fetchone()
            last = None if row is None else _read(row)
            if last is not None and last.state in OPEN and last.expires_at > now:
                return last
            one = confirmation
            if one.kind == "approval":
                (waiting,) = writer.execute(WAITING, (one.account, now)).fetchone()
                if waiting >= MOST_WAITING:
                    raise TooManyWait
            record = json.dumps(asdict(one), ensure_ascii=False)
            fields = (one.account, one.id, one.kind, one.binding, record, one.state, one.expires_at)
            writer.execute(WRITE, (*fields, *name))
            return confirmation

        return await self._database.write(work)

    async def confirmation(self, account: str, confirmation_id: str) -> Confirmation | None:
        """See `stores.ConfirmationStore`."""
        rows = self._database.read(READ, account, confirmation_id)
        return _read(rows[0]) if rows else None

    async def move(self, account: str, confirmation_id: str, move: str, now: float, by: str | None = None) -> bool:
        """See `stores.ConfirmationStore`."""
        before, after = MOVES[move]
        alive_at = 0.0 if move == "withdraw" else now
        values = (after, by, account, confirmation_id, f",{','.join(before)},", alive_at)
        return await self._database.write(lambda writer: writer.execute(MOVE, values).rowcount == 1)

    async def account_of_approval(self, confirmation_id: str) -> str | None:
        """See `stores.ConfirmationStore`."""
        rows = self._database.read(ACCOUNT, confirmation_id)
        return str(rows[0][0]) if rows else None

    async def approvals(self) -> AsyncIterator[Confirmation]:
        """See `stores.ConfirmationStore`."""
        for row in await self._database.read_later(APPROVALS):
            yield _read(row)

    async def use_once(self, account: str, name: str, expires_at: float, now: float) -> bool:
        """See `stores.ConfirmationStore`."""
        if expires_at <= now:
            return False

        def work(writer: Connection) -> bool:
            writer.execute(FORGET_USED, (now - KEPT_AFTER_S,))
            return writer.execute(USE, (account, name, expires_at)).rowcount == 1

        return await self._database.write(work)


def _read(row: Row) -> Confirmation:
    record, state, by = row
    return replace(Confirmation(**json.loads(record)), state=state, decided_by=by)
