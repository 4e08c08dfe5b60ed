"""Commands that act on the store: open it, act, and let go of it again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from sidecar import app, auditing
from sidecar.auditing import Note
from sidecar.cli.grammar import Run
from sidecar.cli.output import Outcome, write_warnings
from sidecar.cli.settings import load_settings
from sidecar.config import Config
from sidecar.keyring import Keyring
from sidecar.stores import Store


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command acts."""

    config: Config
    store: Store
    keyring: Keyring
    note: Note
    """Tells the audit what was done."""


Act: TypeAlias = Callable[[argparse.Namespace, Place], Awaitable[Outcome]]


def acting(act: Act, changes: str = "") -> Run:
    """Make a command of what it does once the store is open; one that changes something goes by a name in the audit."""
    return partial(_run, act, changes)


def _run(act: Act, changes: str, args: argparse.Namespace) -> Outcome:
    config, missing = load_settings(args)
    elsewhere = _about_a_new_store(config) if changes.endswith("revoke") else ()
    write_warnings((*missing, *elsewhere), as_json=args.json)
    return asyncio.run(_act(act, changes, args, config))


async def _act(act: Act, changes: str, args: argparse.Namespace, config: Config) -> Outcome:
    async with app.open_store(config) as store, app.keyring(config, store) as keyring:
        with auditing.journal(config, changes) if changes else contextlib.nullcontext(_note_nothing) as note:
            return await act(args, Place(config, store, keyring, note))


def _about_a_new_store(config: Config) -> Iterator[str]:
    """Warn who ends something in a store that is only now to be made: most likely it is another directory's."""
    path = config.store.sqlite_path
    if path is not None and not Path(path).is_absolute() and not Path(path).exists():
        yield (
            f"there is no store at {Path(path).resolve()}, so no running sidecar hears of this: run it again in the "
            "working directory of the one that is to"
        )


def _note_nothing(_: object) -> None:
    """Take no note: looking on changes nothing."""
