"""API keys from birth to revocation over REST, on both stores."""

from __future__ import annotations

import binascii
import re
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.bed import BASE62, KEYS, Bed, request, tool_call
from tests.e2e.conftest import Start, StoreName

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
WARNING = "Save this key now - it will not be shown again!"
MEMBERS = {
    *("id", "name", "prefix", "scopes", "status", "createdAt", "expiresAt", "lastUsedAt", "createdBy", "replacedBy"),
}


def seconds(text: str) -> float:
    assert TIME.fullmatch(text)
    return datetime.fromisoformat(text).timestamp()


async def create(bed: Bed, token: str, **document: Any) -> dict[str, Any]:
    answer = await bed.rest("POST", KEYS, token, {"name": "laptop", **document})
    assert answer.status_code == 201, answer.text
    bed.secret(answer.json()["key"])
    return dict(answer.json())


async def works(bed: Bed, key: str) -> bool:
    return (await bed.post(request("ping"), key=key)).status_code == 200


async def test_a_key_is_shown_once_and_has_the_documented_form(start: Start) -> None:
    bed = await start()
    token = bed.token()
    created = await create(bed, token)
    assert set(created) == {"id", "key", "name", "scopes", "expiresAt", "createdAt", "warning"}
    assert created["warning"] == WARNING
    assert created["scopes"] == ["mcp:read"]
    key = created["key"]
    assert re.fullmatch("mcp_[0-9A-Za-z]{46}", key)
    assert created["id"] == f"key_{key[4:16]}"
    checksum = 0
    for digit in key[44:]:
        checksum = checksum * 62 + BASE62.index(digit)
    assert checksum == binascii.crc32(key[:44].encode())
    assert seconds(created["expiresAt"]) - seconds(created["createdAt"]) == 90 * 86_400
    listing = await bed.rest("GET", KEYS, token)
    assert listing.status_code == 200
    assert key[16:] not in listing.text


async def test_the_life_of_a_key(start: Start, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    created = await create(bed, token, scopes=["mcp:full"], expiresInDays=7)
    key, path = created["key"], f"{KEYS}/{created['id']}"
    shown = (await bed.rest("GET", path, token)).json()
    assert set(shown) == MEMBERS
    assert shown["prefix"] == key[:16]
    assert (shown["status"], shown["lastUsedAt"], shown["replacedBy"]) == ("active", None, None)
    assert (shown["name"], shown["scopes"], shown["createdBy"]) == ("laptop", ["mcp:full"], "alice")
    assert await works(bed, key)
    assert (await bed.post(tool_call("put"), key=key)).status_code == 200
    assert TIME.fullmatch((await bed.rest("GET", path, token)).json()["lastUsedAt"])
    revoked = await bed.rest("DELETE", path, token)
    assert (revoked.status_code, revoked.content) == (204, b"")
    assert not await works(bed, key)
    assert (await bed.rest("DELETE", path, token)).status_code == 204
    assert (await bed.rest("GET", path, token)).json()["status"] == "revoked"


async def test_revocation_acts_on_the_next_request_of_another_replica(start: Start) -> None:
    one, other = await start("redis"), await start("redis")
    token = one.token()
    created = await create(one, token)
    other.secret(created["key"])
    assert await works(other, created["key"])
    await one.rest("DELETE", f"{KEYS}/{created['id']}", token)
    assert not await works(other, created["key"])


async def test_rotation_keeps_the_old_key_for_its_grace(start: Start, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    old = await create(bed, token, scopes=["mcp:tools:call"], expiresInDays=30)
    answer = await bed.rest("POST", f"{KEYS}/{old['id']}/rotate", token, {"graceSeconds": 600})
    assert answer.status_code == 201
    new = answer.json()
    bed.secret(new["key"])
    assert new["warning"] == WARNING
    assert new["id"] != old["id"]
    assert (new["name"], new["scopes"]) == (old["name"], old["scopes"])
    assert seconds(new["expiresAt"]) - seconds(new["createdAt"]) == 30 * 86_400
    assert await works(bed, old["key"])
    assert await works(bed, new["key"])
    shown = (await bed.rest("GET", f"{KEYS}/{old['id']}", token)).json()
    assert shown["replacedBy"] == new["id"]
    assert abs(seconds(shown["expiresAt"]) - seconds(new["createdAt"]) - 600) <= 1
    again = await bed.rest("POST", f"{KEYS}/{new['id']}/rotate", token, {"graceSeconds": 0})
    bed.secret(again.json()["key"])
    assert not await works(bed, new["key"])
    assert (await bed.rest("GET", f"{KEYS}/{new['id']}", token)).json()["status"] == "expired"


async def test_rotation_without_a_body_takes_the_default_grace(start: Start) -> None:
    bed = await start()
    token = bed.token()
    old = await create(bed, token)
    answer = await bed.rest("POST", f"{KEYS}/{old['id']}/rotate", token)
    assert answer.status_code == 201
    bed.secret(answer.json()["key"])
    shown = (await bed.rest("GET", f"{KEYS}/{old['id']}", token)).json()
    assert abs(seconds(shown["expiresAt"]) - seconds(answer.json()["createdAt"]) - 3600) <= 1


async def test_keys_are_listed_newest_first_page_by_page(start: Start, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    ids = [(await create(bed, token, name=f"key {n}"))["id"] for n in range(5)]
    await bed.rest("DELETE", f"{KEYS}/{ids[1]}", token)
    listed, pages = list[str](), 0
    cursor: str | None = ""
    while cursor is not None:
        page = (await bed.rest("GET", f"{KEYS}?limit=2{cursor and '&cursor=' + cursor}", token)).json()
        assert set(page) == {"keys", "nextCursor"}
        listed += [key["id"] for key in page["keys"]]
        cursor, pages = page["nextCursor"], pages + 1
    assert (listed, pages) == (ids[::-1], 3)
    for query in ("limit=0", "limit=101", "limit=x", "limit=1&limit=2", "cursor=%00", "cursor=!!", "page=2"):
        answer = await bed.rest("GET", f"{KEYS}?{query}", token)
        assert (answer.status_code, answer.json()["errorType"]) == (400, "INVALID_REQUEST"), query


async def test_another_accounts_keys_are_not_there(start: Start, store: StoreName) -> None:
    bed = await start(store)
    alice, bob = bed.token(), bed.token(sub="bob")
    created = await create(bed, alice)
    assert (await bed.rest("GET", KEYS, bob)).json() == {"keys": [], "nextCursor": None}
    path = f"{KEYS}/{created['id']}"
    for method, tail in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("GET", "/usage")):
        answer = await bed.rest(method, path + tail, bob)
        unknown = await bed.rest(method, f"{KEYS}/key_000000000000{tail}", bob)
        assert answer.status_code == unknown.status_code == 404
        assert answer.json()["errorType"] == unknown.json()["errorType"] == "NOT_FOUND"
        assert answer.json()["detail"] == unknown.json()["detail"]
    assert await works(bed, created["key"])


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": ""},
        {"name": 7},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"name": "n", "scopes": []},
        {"name": "n", "scopes": "mcp:read"},
        {"name": "n", "scopes": ["mcp:everything"]},
        {"name": "n", "scopes": [["mcp:read"]]},
        {"name": "n", "expiresInDays": 0},
        {"name": "n", "expiresInDays": 3651},
        {"name": "n", "expiresInDays": True},
        {"name": "n", "expiresInDays": "7"},
        {"name": "n", "account": "bob"},
        [],
        "name",
    ],
)
async def test_a_key_that_makes_no_sense_is_400(start: Start, document: Any) -> None:
    bed = await start()
    answer = await bed.rest("POST", KEYS, bed.token(), document)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["errorType"] == "INVALID_REQUEST"


async def test_nobody_makes_a_key_stronger_than_himself(start: Start) -> None:
    bed = await start()
    reader = bed.token("mcp:read")
    await create(bed, reader, scopes=["mcp:tools:call", "mcp:resources:read"])
    answer = await bed.rest("POST", KEYS, reader, {"name": "n", "scopes": ["mcp:full"]})
    assert (answer.status_code, answer.json()["errorType"]) == (403, "INSUFFICIENT_SCOPE")
    strong = await create(bed, bed.token(), scopes=["mcp:full"])
    rotation = await bed.rest("POST", f"{KEYS}/{strong['id']}/rotate", reader)
    assert rotation.status_code == 403


async def test_only_active_keys_count_against_the_most_one_may_have(start: Start, store: StoreName) -> None:
    bed = await start(store, api_keys={"bcrypt_cost": 4, "max_per_account": 2})
    token = bed.token()
    first, _ = await create(bed, token), await create(bed, token)
    answer = await bed.rest("POST", KEYS, token, {"name": "third"})
    assert answer.status_code == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    await bed.rest("DELETE", f"{KEYS}/{first['id']}", token)
    await create(bed, token)


async def test_usage_is_counted_by_hour_and_day(start: Start, store: StoreName) -> None:
    bed = await start(store)
    token = bed.token()
    created = await create(bed, token, scopes=["mcp:read"])
    key, path = created["key"], f"{KEYS}/{created['id']}/usage"
    for _ in range(3):
        await bed.post(request("ping"), key=key)
    await bed.post(tool_call("put"), key=key)
    usage = (await bed.rest("GET", path, token)).json()
    assert (set(usage), usage["id"]) == ({"id", "hours", "days"}, created["id"])
    assert (len(usage["hours"]), len(usage["days"])) == (48, 30)
    for name in ("hours", "days"):
        starts = [seconds(entry["start"]) for entry in usage[name]]
        assert starts == sorted(starts)
        total = {count: sum(entry[count] for entry in usage[name]) for count in ("requests", "refused", "writes")}
        assert total == {"requests": 3, "refused": 1, "writes": 0}
        assert sum(usage[name][-1][count] + usage[name][-2][count] for count in ("requests", "refused")) == 4


async def test_rest_answers_405_404_415_where_they_belong(start: Start) -> None:
    bed = await start()
    token = bed.token()
    wrong = await bed.rest("PUT", KEYS, token)
    assert (wrong.status_code, wrong.json()["errorType"]) == (405, "METHOD_NOT_ALLOWED")
    assert {name.strip() for name in wrong.headers["Allow"].split(",")} == {"GET", "POST"}
    for path in (f"{KEYS}/", f"{KEYS}/key_short", f"{KEYS}/key_000000000000/", f"{KEYS}/key_000000000000/other"):
        assert (await bed.rest("GET", path, token)).status_code == 404
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"}
    assert (await bed.client.post(KEYS, content=b'{"name":"n"}', headers=headers)).status_code == 415


async def test_management_can_be_kept_to_a_scope_and_to_clients(start: Start) -> None:
    management = {"scope": "mcp:full", "client_ids": ["console"]}
    bed = await start(api_keys={"bcrypt_cost": 4, "management": management})
    assert (await bed.rest("GET", KEYS, bed.token("mcp:read", client_id="console"))).status_code == 403
    assert (await bed.rest("GET", KEYS, bed.token(client_id="other"))).status_code == 403
    assert (await bed.rest("GET", KEYS, bed.token(client_id="console"))).status_code == 200


async def test_a_call_that_is_refused_by_what_it_says_costs_nothing(start: Start, store: StoreName) -> None:
    bed = await start(store, limits={"policies": [{"name": "few", "per": "account", "requests": 5, "window_s": 60}]})
    token = bed.token("mcp:tools:list")
    refused = [
        (await bed.rest("POST", KEYS, token, {"name": "x", "scopes": ["mcp:full"]}), 403),
        (await bed.rest("POST", KEYS, token, {"name": ""}), 400),
        (await bed.rest("GET", f"{KEYS}?limit=0", token), 400),
        (await bed.rest("POST", f"{KEYS}/key_000000000000/rotate", token, {"graceSeconds": -1}), 400),
    ]
    assert [answer.status_code for answer, _ in refused] == [status for _, status in refused]
    assert not any("X-RateLimit-Remaining" in answer.headers for answer, _ in refused)
    assert (await bed.rest("GET", KEYS, token)).headers["X-RateLimit-Remaining"] == "4"
