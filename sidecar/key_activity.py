"""How are the keys of an account used? For who manages them; what finds the unusual is `activity`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sidecar.keyring import Keyring
from sidecar.policy import activity
from sidecar.records import KeyActivity, Unusual
from sidecar.stores import Store


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """How some keys of an account are used."""

    keys: tuple[KeyActivity, ...]
    unusual: tuple[Unusual, ...]
    """About all keys of the account together."""
    following: str | None
    """The cursor of the next page, None at the end."""


async def page_of(keyring: Keyring, store: Store, account: str, limit: int, cursor: str | None) -> ActivityPage:
    """Return how the keys of a page (see `Keyring.page`) were used in the last days, and what was unusual.

    Raises:
        InvalidRequest: naming the parameter that is wrong.
        StoreUnavailable: it could not be found out.
    """
    keys, following = await keyring.page(account, limit, cursor)
    unusual = await store.unusual(account, keyring.now)
    ids = [key.record.id for key in keys]
    usages = await asyncio.gather(*[store.usage(account, key_id, keyring.now, activity.SHOWN_DAYS) for key_id in ids])
    shown = [
        KeyActivity(key_id, usage.days, unusual.get(key_id, ())) for key_id, usage in zip(ids, usages, strict=True)
    ]
    return ActivityPage(tuple(shown), unusual.get(activity.ALL, ()), following)
