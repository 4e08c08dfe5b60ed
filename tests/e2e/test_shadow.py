"""Guards in shadow mode: nothing is refused, what would have been is told, and who is calling is checked as ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.bed import JWT_ROUTE, KEYS, Bed, assert_refused, notification, request, tool_call
from tests.e2e.bed import with_other_secret as other_secret
from tests.e2e.conftest import Start, StoreName
from tests.e2e.test_limits import account, rate_headers
from tests.e2e.test_lists import listing, shown
from tests.e2e.test_observability import samples
from tests.e2e.test_settings_change import changed
from tests.mcp_server import Stream, StubUpstream, reply

SCOPES = {"mode": {"scopes": "shadow"}}
LIMITS = {"mode": {"limits": "shadow"}}


async def credential(bed: Bed, kind: str, *scopes: str) -> dict[str, Any]:
    return {"key": await bed.key(*scopes)} if kind == "key" else {"token": bed.token(" ".join(scopes))}


async def value(bed: Bed, name: str, **labels: str) -> float:
    return next(found for sample, given, found in await samples(bed) if (sample, given) == (name, labels))


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_what_scopes_would_refuse_is_done_and_told(start: Start, stub: StubUpstream, kind: str) -> None:
    bed = await start(**SCOPES)
    who = await credential(bed, kind, "mcp:read")
    for asked in (tool_call("look"), tool_call("put"), request("vendor/do"), notification("notifications/vendor")):
        answer = await bed.post(asked, **who)
        assert answer.status_code == (200 if "id" in asked else 202)
        assert "WWW-Authenticate" not in answer.headers
        assert json.loads(stub.received[-1].body) == asked
    told = [(line.get("shadow"), line.get("shadow_detail"), line["outcome"], line["reason"]) for line in bed.accesses()]
    assert told == [
        (None, None, "forwarded", None),
        ("insufficient_scope/insufficient_scope", "needs mcp:full, has mcp:read", "forwarded", None),
        ("not_found/unknown_method", None, "forwarded", None),
        ("notification_dropped/unknown_notification", None, "forwarded", None),
    ]
    assert await value(bed, "sidecar_shadow_refusals_total", rule="scopes") == 3
    assert await value(bed, "sidecar_shadow_refusals_total", rule="limits") == 0


async def test_lists_are_whole_while_scopes_only_watch(start: Start, stub: StubUpstream) -> None:
    bed = await start(**SCOPES, access={"filter_lists": "all"})
    stub.answer = reply(200, listing())
    assert await shown(bed, key=await bed.key("mcp:read")) == ["look", "put", "drop"]


async def test_limits_hold_while_scopes_only_watch(start: Start) -> None:
    bed = await start(**SCOPES, limits={"policies": [account(1)]})
    key = await bed.key("mcp:read")
    assert (await bed.post(tool_call("put"), key=key)).headers["X-RateLimit-Remaining"] == "0"
    assert_refused(await bed.post(tool_call("put"), key=key), 429, "RATE_LIMIT_EXCEEDED")


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_what_limits_would_refuse_is_done_and_told(start: Start, store: StoreName, kind: str) -> None:
    bed = await start(store, **LIMITS, limits={"policies": [account(2)]})
    who = await credential(bed, kind, "mcp:full")
    for _ in range(4):
        answer = await bed.post(request("ping"), **who)
        assert answer.status_code == 200
        assert not rate_headers(answer) | ({"retry-after"} & set(answer.headers))
    assert [line.get("shadow") for line in bed.accesses()] == [None, None, *["rate_limit_exceeded/rate_limited"] * 2]
    assert bed.accesses()[-1]["shadow_detail"] == "account"
    assert await value(bed, "sidecar_shadow_refusals_total", rule="limits") == 2
    assert await value(bed, "sidecar_limit_decisions_total", policy="account", decision="shadowed") == 2
    assert await value(bed, "sidecar_limit_decisions_total", policy="account", decision="allowed") == 2


async def test_what_limits_counted_while_they_only_watched_counts_when_they_hold(start: Start) -> None:
    bed = await start(**LIMITS, limits={"policies": [account(2)]})
    token = bed.token()
    for _ in range(3):
        assert (await bed.post(request("ping"), token=token)).status_code == 200
    assert await value(bed, "sidecar_shadow_mode", rule="limits") == 1
    await changed(bed, mode={"limits": "enforce"})
    assert_refused(await bed.post(request("ping"), token=token), 429, "RATE_LIMIT_EXCEEDED")
    assert await value(bed, "sidecar_shadow_mode", rule="limits") == 0
    await changed(bed, mode={"limits": "shadow"})
    assert (await bed.post(request("ping"), token=token)).status_code == 200


async def test_streams_over_their_limit_are_opened_and_told(start: Start, stub: StubUpstream) -> None:
    bed = await start(mode={"limits": "shadow"}, limits={"streams": {"per_credential": 1}})
    headers = {"Authorization": f"Bearer {bed.token()}", "Accept": "text/event-stream"}
    first, second = Stream(), Stream()
    stub.answer = first.answer
    first.send(b"data: {}\n\n")
    async with bed.client.stream("GET", JWT_ROUTE, headers=headers) as answer:
        await anext(answer.aiter_raw())
        stub.answer = second.answer
        second.send(b"data: {}\n\n")
        second.end()
        assert (await bed.client.get(JWT_ROUTE, headers=headers)).status_code == 200
    assert [line.get("shadow_detail") for line in bed.accesses() if "shadow" in line] == ["streams"]


async def test_both_may_watch_at_once_and_each_says_what_it_would_have_done(start: Start) -> None:
    bed = await start(mode={"scopes": "shadow", "limits": "shadow"}, limits={"policies": [account(1)]})
    token = bed.token("mcp:read")
    for _ in range(2):
        assert (await bed.post(tool_call("put"), token=token)).status_code == 200
    both = "insufficient_scope/insufficient_scope rate_limit_exceeded/rate_limited"
    assert [line["shadow"] for line in bed.accesses()] == ["insufficient_scope/insufficient_scope", both]


async def test_who_is_calling_is_checked_all_the_same(start: Start) -> None:
    bed = await start(
        mode={"scopes": "shadow", "limits": "shadow"}, limits={"failed_auth": {"requests": 2, "window_s": 60}}
    )
    key = await bed.key("mcp:full")
    assert_refused(await bed.post(request("ping")), 401, "INVALID_TOKEN")
    for number in (1, 2):
        assert_refused(await bed.post(request("ping"), key=other_secret(key, number)), 401, "INVALID_API_KEY")
    assert_refused(await bed.post(request("ping"), key=other_secret(key, 3)), 429, "RATE_LIMIT_EXCEEDED")


async def test_who_may_manage_keys_is_never_left_open(start: Start) -> None:
    """A key that was made while scopes only watched would outlive them."""
    bed = await start(**SCOPES, api_keys={"management": {"scope": "keys:manage"}})
    assert (await bed.rest("GET", KEYS, bed.token("mcp:full"))).status_code == 403
    made = await bed.rest("POST", KEYS, bed.token("mcp:read keys:manage"), {"name": "n", "scopes": ["mcp:full"]})
    assert made.status_code == 403
