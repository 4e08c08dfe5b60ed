"""Key management over REST: which call a path and method mean, and how its answer is written. It knows no web server.

Whoever calls it has authenticated the caller and read the body, and renders denials as problem details (RFC 9457).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import parse_qsl

from sidecar.denials import InvalidRequest, MethodNotAllowed, NotFound
from sidecar.key_activity import page_of
from sidecar.keyring import Keyring
from sidecar.model import Principal, RequestFacts
from sidecar.policy import activity, apikeys, strictjson
from sidecar.policy.key_requests import DEFAULT_PAGE, read_cursor, read_grace_s, read_page_size, require_manager
from sidecar.records import ApprovalAct, KeyAct
from sidecar.stores import Store

COLLECTION: Final = "/api/api-keys"
RESOURCES: Final = ("", "/activity", "/{id}", "/{id}/rotate", "/{id}/usage")
"""What there is, below the collection."""

_ITEM: Final = re.compile(re.escape(COLLECTION) + r"/(?P<key_id>key_[0-9A-Za-z]{12})(?P<act>/rotate|/usage)?")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,2}")
_MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """A status and the JSON document that goes with it, None for no body at all. Never to be cached."""

    status: int
    document: dict[str, Any] | None = field(repr=False)
    done: KeyAct | ApprovalAct | None = None
    """What it changed; None where it only told."""


@dataclass(frozen=True, slots=True)
class _Call:
    principal: Principal
    key_id: str
    query: Mapping[str, str]
    body: bytes = field(repr=False)


Act: TypeAlias = Callable[[float], Awaitable[RestAnswer]]
"""What was asked for, understood and permitted, to be done as of a moment (Unix seconds)."""


class RestApi(Protocol):
    """Calls below one path."""

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Name the methods that exist at this raw path, or None when nothing is there."""
        ...

    def read(self, principal: Principal, facts: RequestFacts, body: bytes) -> Act:
        """Understand one call, and whether this caller may make it, before anything is counted or done.

        Raises:
            Denial: what is against it. The act itself may raise others.
        """
        ...


_Resource: TypeAlias = Mapping[str, Callable[[_Call], Act]]
"""What each method means at one path."""


class ManagementApi:
    """`/api/api-keys` and below, for the account of the token that comes with the call.

    `scope` and `client_ids` say who may: None and empty leave it to every valid token.
    """

    def __init__(
        self, keyring: Keyring, store: Store, *, scope: str | None = None, client_ids: tuple[str, ...] = ()
    ) -> None:
        self._keyring = keyring
        self._store = store
        self._scope = scope
        self._client_ids = frozenset(client_ids)
        meanings = (
            {"GET": self._list, "POST": self._create},
            {"GET": self._activity},
            {"GET": self._show, "DELETE": self._revoke},
            {"POST": self._rotate},
            {"GET": self._usage},
        )
        self._resources: Mapping[str, _Resource] = MappingProxyType(dict(zip(RESOURCES, meanings, strict=True)))

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Name the methods that exist at this raw path, or None when nothing is there."""
        found = self._find(path)
        return None if found is None else tuple(found[0])

    def read(self, principal: Principal, facts: RequestFacts, body: bytes) -> Act:
        """Understand one call, and whether this caller may make it, before anything is counted or done.

        Raises:
            Denial: 400 naming what is wrong, 403, 404 and 405. The act itself may raise 404 and 409, and what the
                keyring's parts raise.
        """
        found = self._find(facts.path)
        if found is None:
            raise NotFound("path_unknown")
        resource, key_id = found
        if facts.method not in resource:
            raise MethodNotAllowed("method_unknown", headers=(("Allow", ", ".join(resource)),))
        require_manager(principal, self._scope, self._client_ids)
        return resource[facts.method](_Call(principal, key_id, _read_query(facts.query), body))

    def _find(self, path: str) -> tuple[_Resource, str] | None:
        if path in (COLLECTION, f"{COLLECTION}/activity"):
            return self._resources[path.removeprefix(COLLECTION)], ""
        item = _ITEM.fullmatch(path)
        return None if item is None else (self._resources["/{id}" + (item["act"] or "")], item["key_id"])

    def _list(self, call: _Call) -> Act:
        limit, cursor = _read_page(call.query)

        async def act(_: float) -> RestAnswer:
            keys, following = await self._keyring.page(call.principal.account, limit, cursor)
            now = self._keyring.now
            return RestAnswer(200, {"keys": [apikeys.describe(key, now) for key in keys], "nextCursor": following})

        return act

    def _activity(self, call: _Call) -> Act:
        limit, cursor = _read_page(call.query)

        async def act(_: float) -> RestAnswer:
            page = await page_of(self._keyring, self._store, call.principal.account, limit, cursor)
            keys = [activity.describe(key) for key in page.keys]
            unusual = [activity.described(found) for found in page.unusual]
            return RestAnswer(200, {"keys": keys, "unusual": unusual, "nextCursor": page.following})

        return act

    def _create(self, call: _Call) -> Act:
        _require_known(call.query, ())
        asked = _read_members(call.body, ("name", "scopes", "expiresInDays"))
        plan = self._keyring.plan(
            asked.get("name", ""),
            scopes=asked.get("scopes"),
            expires_in_days=asked.get("expiresInDays"),
            granted=call.principal.scopes,
        )

        async def act(asked_at: float) -> RestAnswer:
            record, key = await self._keyring.make(
                call.principal.account, plan, created_by=call.principal.subject, origin="rest", asked_at=asked_at
            )
            return RestAnswer(201, apikeys.describe_new(record, key), apikeys.made(record))

        return act

    def _show(self, call: _Call) -> Act:
        _require_known(call.query, ())

        async def act(_: float) -> RestAnswer:
            stored = await self._keyring.get(call.principal.account, call.key_id)
            return RestAnswer(200, apikeys.describe(stored, self._keyring.now))

        return act

    def _revoke(self, call: _Call) -> Act:
        _require_known(call.query, ())

        async def act(_: float) -> RestAnswer:
            await self._keyring.revoke(call.principal.account, call.key_id)
            return RestAnswer(204, None, KeyAct("revoke_key", call.key_id))

        return act

    def _rotate(self, call: _Call) -> Act:
        _require_known(call.query, ())
        grace_s = _read_members(call.body or b"{}", ("graceSeconds",)).get("graceSeconds")
        if grace_s is not None:
            read_grace_s(grace_s)

        async def act(asked_at: float) -> RestAnswer:
            record, key = await self._keyring.rotate(
                call.principal.account,
                call.key_id,
                grace_s,
                created_by=call.principal.subject,
                origin="rest",
                granted=call.principal.scopes,
                asked_at=asked_at,
            )
            return RestAnswer(201, apikeys.describe_new(record, key), apikeys.made(record))

        return act

    def _usage(self, call: _Call) -> Act:
        _require_known(call.query, ())

        async def act(_: float) -> RestAnswer:
            usage = await self._keyring.usage(call.principal.account, call.key_id)
            return RestAnswer(200, apikeys.describe_usage(call.key_id, usage))

        return act


def _read_query(query: str | None) -> Mapping[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8)
    except ValueError as error:
        raise InvalidRequest("query", "The query must be name=value pairs in UTF-8, joined by &") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise InvalidRequest("query", "No query parameter may come twice")
    return parameters


def _read_page(query: Mapping[str, str]) -> tuple[int, str | None]:
    _require_known(query, ("limit", "cursor"))
    limit = read_page_size(_read_number(query["limit"]) if "limit" in query else DEFAULT_PAGE)
    cursor = query.get("cursor")
    if cursor is not None:
        read_cursor(cursor)
    return limit, cursor


def _read_number(text: str) -> int:
    # Anything but plain digits becomes a number that no range allows.
    return int(text) if _NUMBER.fullmatch(text) else -1


def _read_members(body: bytes, known: tuple[str, ...]) -> Mapping[str, Any]:
    members = strictjson.loads(body, max_depth=_MAX_DEPTH)
    if not isinstance(members, dict):
        raise InvalidRequest("body_not_object", "The body must be one JSON object")
    _require_known(members, known)
    return members


def _require_known(names: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        shown = ", ".join(ascii(name[:32]) for name in unknown[:5])
        raise InvalidRequest("unknown_member", f"Unknown: {shown}; known here: {', '.join(known) or 'nothing'}")
