"""The ``keys`` commands. What they mean is decided in `keyring`; here they are spelled and shown."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from typing import Any

from sidecar.cli.acts import Act, Place, acting
from sidecar.cli.grammar import Commands, Parser, command, group
from sidecar.cli.output import Outcome, lines, table
from sidecar.denials import NotFound
from sidecar.keyring import Keyring
from sidecar.model import SCOPES
from sidecar.policy import apikeys
from sidecar.policy.key_requests import MAX_PAGE
from sidecar.records import ApiKey, KeyAct, KeyRecord, StoredKey, UsageCount


def add_to(commands: Commands) -> None:
    """Add these commands to the grammar."""
    keys = group(commands, "keys", "Make, show and end API keys.")
    create = command(
        keys,
        "create",
        acting(_create, "keys create"),
        "Make an API key and show it, this once.",
        "sidecar keys create --account acme --name 'nightly report' --scope mcp:read --expires-in-days 30",
    )
    create.add_argument("--account", required=True, metavar="A", help="whose data the key opens and who pays for it")
    create.add_argument("--name", required=True, metavar="N", help="what it is for, in 1 to 100 characters")
    create.add_argument("--scope", action="append", metavar="S", help=f"may be repeated; one of {', '.join(SCOPES)}")
    create.add_argument("--expires-in-days", type=int, metavar="D", help="1 to 3650")
    several = command(
        keys,
        "list",
        acting(_list),
        "List keys, the newest of each account first, revoked and expired ones included.",
        "sidecar keys list --account acme",
    )
    several.add_argument("--account", metavar="A", help="this account only; without it, all")
    _by_id(keys, "show", _show, "Show one key: everything but its secret, which is kept nowhere.")
    _by_id(keys, "revoke", _revoke, "End a key at once and for good.", changes="keys revoke")
    rotate = _by_id(
        keys, "rotate", _rotate, "Give a key a successor with its name, scopes and lifetime.", changes="keys rotate"
    )
    rotate.add_argument("--grace-seconds", type=int, metavar="N", help="how long the old key still works, 0 to 604800")
    _by_id(keys, "usage", _usage, "Show how often a key was used, by hour and by day (UTC).")


def _by_id(keys: Commands, name: str, act: Act, purpose: str, changes: str = "") -> Parser:
    parser = command(keys, name, acting(act, changes), purpose, f"sidecar keys {name} key_4fJd81kQz0Xa")
    parser.add_argument("id", metavar="ID", help="the key's id: key_ and 12 characters")
    return parser


async def _create(args: argparse.Namespace, place: Place) -> Outcome:
    record, key = await place.keyring.create(
        args.account,
        args.name,
        scopes=args.scope,
        expires_in_days=args.expires_in_days,
        created_by="cli",
        origin="cli",
        granted=None,
    )
    _note(place, record.account, apikeys.made(record))
    return _new(record, key)


async def _list(args: argparse.Namespace, place: Place) -> Outcome:
    one = args.account is not None
    accounts = [args.account] if one else sorted([account async for account in place.store.accounts()])
    found = [key for account in accounts async for key in _walk(place.keyring, account)]
    now = place.keyring.now
    shown = [{**({} if one else {"account": key.record.account}), **apikeys.describe(key, now)} for key in found]
    rows = [_row(key, now) for key in found]
    heads = ("ID", "ACCOUNT", "NAME", "STATUS", "SCOPES", "CREATED", "EXPIRES", "LAST USED")
    return Outcome({"keys": shown, "nextCursor": None}, table(heads, rows) if rows else "No keys.")


async def _show(args: argparse.Namespace, place: Place) -> Outcome:
    account = await _account_of(args.id, place)
    document = apikeys.describe(await place.keyring.get(account, args.id), place.keyring.now)
    return Outcome(document, lines({"account": account, **document}))


async def _revoke(args: argparse.Namespace, place: Place) -> Outcome:
    account = await _account_of(args.id, place)
    await place.keyring.revoke(account, args.id)
    _note(place, account, KeyAct("revoke_key", args.id))
    return Outcome({}, f"{args.id} is revoked.")


async def _rotate(args: argparse.Namespace, place: Place) -> Outcome:
    account = await _account_of(args.id, place)
    record, key = await place.keyring.rotate(
        account, args.id, args.grace_seconds, created_by="cli", origin="cli", granted=None
    )
    _note(place, account, apikeys.made(record))
    old = (await place.keyring.get(account, args.id)).record
    return _new(record, key, f"{old.id} works until {apikeys.rfc3339(old.expires_at)}.")


async def _usage(args: argparse.Namespace, place: Place) -> Outcome:
    usage = await place.keyring.usage(await _account_of(args.id, place), args.id)
    text = "\n\n".join((_counts("hour", usage.hours), _counts("day", usage.days)))
    return Outcome(apikeys.describe_usage(args.id, usage), text)


def _note(place: Place, account: str, done: KeyAct) -> None:
    place.note({"account": account, **apikeys.audited(done)})


async def _account_of(key_id: str, place: Place) -> str:
    if (meant := apikeys.id_of_key(key_id)) is not None:
        raise NotFound("key_not_found", f"This is a key, and commands want its id: {meant}")
    account = await place.store.account_of(key_id) if apikeys.is_key_id(key_id) else None
    if account is None:
        raise NotFound("key_not_found", "There is no such key")
    return account


async def _walk(keyring: Keyring, account: str) -> AsyncIterator[StoredKey]:
    cursor = None
    while True:
        keys, cursor = await keyring.page(account, MAX_PAGE, cursor)
        for key in keys:
            yield key
        if cursor is None:
            return


def _new(record: KeyRecord, key: ApiKey, *more: str) -> Outcome:
    document = apikeys.describe_new(record, key)
    shown: dict[str, Any] = {name: value for name, value in document.items() if name != "warning"}
    return Outcome(document, "\n".join([lines({**shown, "account": record.account}), "", *more, apikeys.WARNING]))


def _row(key: StoredKey, now: float) -> tuple[str, ...]:
    record = key.record
    return (
        record.id,
        record.account,
        record.name,
        apikeys.status(record, now),
        " ".join(record.scopes),
        apikeys.rfc3339(record.created_at),
        apikeys.rfc3339(record.expires_at),
        "never" if key.last_used_at is None else apikeys.rfc3339(key.last_used_at),
    )


def _counts(unit: str, counts: tuple[UsageCount, ...]) -> str:
    rows = [
        (apikeys.rfc3339(count.start), str(count.requests), str(count.refused), str(count.writes))
        for count in counts
        if count.requests or count.refused
    ]
    heads = (f"{unit.upper()} FROM", "REQUESTS", "REFUSED", "WRITES")
    return table(heads, rows) if rows else f"Not used in the last {len(counts)} {unit}s."
