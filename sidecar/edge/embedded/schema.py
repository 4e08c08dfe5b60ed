"""The tables of the embedded store. A migration is never edited; the next one is added."""

from __future__ import annotations

from typing import Final

COUNTING: Final = tuple(
    [
        f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table}"  # noqa: S608 - constants
        " BEGIN UPDATE generation SET number = number + 1; END"
        for table in ("keys", "revoked_accounts", "revoked_tokens")
        for event in ("INSERT", "UPDATE", "DELETE")
    ]
)
"""Counts the changes that a copy in memory must not outlive. Usage is not among them: it is written every second."""

INITIAL: Final = (
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL, prefix TEXT NOT NULL, scopes TEXT NOT NULL,
        secret_hash TEXT NOT NULL, created_at REAL NOT NULL, created_by TEXT NOT NULL, origin TEXT NOT NULL,
        lifetime_s REAL NOT NULL, expires_at REAL NOT NULL, revoked_at REAL, replaced_by TEXT, replaces TEXT,
        version INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX keys_newest ON keys (account, created_at, id)",
    "CREATE INDEX keys_active ON keys (account, expires_at) WHERE revoked_at IS NULL",
    """CREATE TABLE last_uses (
        account TEXT NOT NULL, key_id TEXT NOT NULL, used_at REAL NOT NULL, PRIMARY KEY (account, key_id)
    ) WITHOUT ROWID""",
    """CREATE TABLE usage (
        account TEXT NOT NULL, key_id TEXT NOT NULL, hour INTEGER NOT NULL, requests INTEGER NOT NULL,
        refused INTEGER NOT NULL, writes INTEGER NOT NULL, PRIMARY KEY (account, key_id, hour)
    ) WITHOUT ROWID""",
    "CREATE INDEX usage_by_hour ON usage (hour)",
    "CREATE TABLE revoked_accounts (account TEXT PRIMARY KEY, moment REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE revoked_tokens (token_id TEXT PRIMARY KEY, expires_at REAL) WITHOUT ROWID",
    """CREATE TABLE handles (
        account TEXT NOT NULL, kind TEXT NOT NULL, digest TEXT NOT NULL, owner TEXT NOT NULL, bound_at REAL NOT NULL,
        expires_at REAL NOT NULL, PRIMARY KEY (account, kind, digest)
    ) WITHOUT ROWID""",
    "CREATE INDEX handles_expiry ON handles (expires_at)",
    "CREATE TABLE generation (number INTEGER NOT NULL)",
    "INSERT INTO generation VALUES (0)",
    *COUNTING,
)

ANYBODY: Final = ""
"""Stands for the account of a revoked token, which is not known here."""

TOLD: Final = """
    DELETE FROM changed_accounts WHERE account = {account};
    INSERT INTO changed_accounts SELECT {account}, number FROM generation"""
"""Not an upsert: in a trigger, the conflict clause of the statement that fires it would take its place."""

TELLING: Final = (
    "CREATE TABLE changed_accounts (account TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX changed_accounts_by_number ON changed_accounts (number)",
    *[
        statement
        for table, event, account in (
            ("keys", "UPDATE", "NEW.account"),
            ("keys", "DELETE", "OLD.account"),
            ("revoked_accounts", "INSERT", "NEW.account"),
            ("revoked_accounts", "UPDATE", "NEW.account"),
            ("revoked_tokens", "INSERT", f"'{ANYBODY}'"),
        )
        for statement in (
            f"DROP TRIGGER {table}_{event}",
            f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table}"  # noqa: S608 - constants
            f" BEGIN UPDATE generation SET number = number + 1; {TOLD.format(account=account)}; END",
        )
    ],
)
"""Remembers with which generation an account's credentials changed last. A new key changes none that is in use."""

PROBED: Final = ("CREATE TABLE probe (number INTEGER NOT NULL)", "INSERT INTO probe VALUES (0)")
"""For finding out whether the file takes writes. The number changes: SQLite leaves alone what would stay as it is."""

PINNED: Final = (
    """CREATE TABLE pinned_upstreams (
        upstream TEXT PRIMARY KEY, version INTEGER NOT NULL, complete INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE TABLE pins (upstream TEXT NOT NULL, name TEXT NOT NULL, pin TEXT NOT NULL, PRIMARY KEY (upstream, name))",
)

WATCHED: Final = (
    "ALTER TABLE last_uses ADD COLUMN returned_at REAL",
    "ALTER TABLE last_uses ADD COLUMN silent_s REAL",
    """CREATE TABLE unusual (
        account TEXT NOT NULL, key_id TEXT NOT NULL, kind TEXT NOT NULL, since REAL NOT NULL, noted_at REAL NOT NULL,
        reason TEXT NOT NULL, PRIMARY KEY (account, key_id, kind)
    ) WITHOUT ROWID""",
)

CONFIRMING: Final = (
    """CREATE TABLE confirmations (
        account TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, binding TEXT NOT NULL, record TEXT NOT NULL,
        state TEXT NOT NULL, decided_by TEXT, expires_at REAL NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (account, id)
    ) WITHOUT ROWID""",
    "CREATE INDEX confirmations_by_binding ON confirmations (account, binding, number)",
    "CREATE INDEX confirmations_by_id ON confirmations (id)",
    "CREATE INDEX confirmations_expiry ON confirmations (expires_at)",
    """CREATE TABLE used (
        account TEXT NOT NULL, name TEXT NOT NULL, expires_at REAL NOT NULL, PRIMARY KEY (account, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX used_expiry ON used (expires_at)",
)
"""Calls that wait for a person; and what may be used once, and was."""

CROWDED: Final = (
    "CREATE INDEX confirmations_waiting ON confirmations (account, expires_at)"
    " WHERE kind = 'approval' AND state = 'waiting'",
)
"""For counting what waits of an account."""

ELICITING: Final = ("ALTER TABLE handles ADD COLUMN elicits INTEGER NOT NULL DEFAULT 0",)
"""Whether the client of a session can ask a person."""

MIGRATIONS: Final = (INITIAL, TELLING, PROBED, PINNED, WATCHED, CONFIRMING, CROWDED, ELICITING)
