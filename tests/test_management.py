"""Key management over REST, without a web server."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sidecar.denials import (
    ClientNotAllowed,
    Conflict,
    Denial,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MethodNotAllowed,
    NotFound,
)
from sidecar.management import ManagementApi, RestAnswer
from sidecar.model import CredentialKind, Principal, RequestFacts
from sidecar.records import KeyAct, Unusual
from tests.keyrings import Bench, opened

ROOT = "/api/api-keys"
SHOWN = {
    "id", "name", "prefix", "scopes", "status", "createdAt", "expiresAt", "lastUsedAt", "createdBy", "replacedBy",
}  # fmt: skip


def caller(
    account: str = "acme", *scopes: str, kind: CredentialKind = "jwt", client_id: str | None = None
) -> Principal:
    return Principal(account, "u1", kind, "jwt:1", scopes or ("mcp:full",), 0.0, 10.0, client_id)


@dataclass
class Rest:
    api: ManagementApi
    bench: Bench

    async def call(
        self,
        method: str,
        path: str = "",
        body: object = None,
        *,
        query: str | None = None,
        who: Principal | None = None,
    ) -> RestAnswer:
        text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        facts = RequestFacts(method, ROOT + path, query, {}, frozenset(), "127.0.0.1", "r1", "legacy")
        return await self.api.read(who or caller(), facts, text)(self.bench.keyring.now)

    async def made(self, name: str = "k", **more: Any) -> dict[str, Any]:
        answer = await self.call("POST", body={"name": name, **more})
        assert answer.document is not None
        return answer.document

    async def read(self, path: str = "", query: str | None = None, who: Principal | None = None) -> dict[str, Any]:
        answer = await self.call("GET", path, query=query, who=who)
        assert answer.status == 200
        assert answer.document is not None
        return answer.document


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncIterator[Rest]:
    async with opened(tmp_path, max_per_account=3) as bench:
        yield Rest(ManagementApi(bench.keyring, bench.store), bench)


async def test_a_key_is_made(rest: Rest) -> None:
    answer = await rest.call("POST", body={"name": "report", "scopes": ["mcp:tools:call"], "expiresInDays": 30})
    assert answer.status == 201
    document = dict(answer.document or {})
    assert document.pop("key").startswith("mcp_" + document.pop("id").removeprefix("key_"))
    assert document == {
        "name": "report",
        "scopes": ["mcp:tools:call"],
        "expiresAt": "2027-02-14T08:00:00Z",
        "createdAt": "2027-01-15T08:00:00Z",
        "warning": "Save this key now - it will not be shown again!",
    }


async def test_an_answer_shows_no_key_in_its_repr(rest: Rest) -> None:
    answer = await rest.call("POST", body={"name": "report"})
    assert (answer.document or {})["key"] not in repr(answer)


async def test_a_key_made_over_rest_says_so(rest: Rest) -> None:
    made = await rest.made(scopes=None, expiresInDays=None)
    record = (await rest.bench.keyring.get("acme", made["id"])).record
    assert (record.origin, record.created_by, record.scopes) == ("rest", "u1", ("mcp:read",))


async def test_keys_are_listed_in_pages(rest: Rest) -> None:
    made = []
    for number in range(3):
        rest.bench.clock.now += 1
        made.append((await rest.made(f"k{number}"))["id"])
    first = await rest.read(query="limit=2")
    assert [key["id"] for key in first["keys"]] == [made[2], made[1]]
    last = await rest.read(query=f"limit=2&cursor={first['nextCursor']}")
    assert [key["id"] for key in last["keys"]] == [made[0]]
    assert last["nextCursor"] is None
    assert all(set(key) == SHOWN for key in first["keys"])
    assert await rest.read(query="") == await rest.read()


async def test_a_key_is_shown(rest: Rest) -> None:
    made = await rest.made("report")
    shown = await rest.read(f"/{made['id']}")
    assert shown == {
        "id": made["id"],
        "name": "report",
        "prefix": made["key"][:16],
        "scopes": ["mcp:read"],
        "status": "active",
        "createdAt": made["createdAt"],
        "expiresAt": made["expiresAt"],
        "lastUsedAt": None,
        "createdBy": "u1",
        "replacedBy": None,
    }


async def test_a_key_is_revoked_as_often_as_one_likes(rest: Rest) -> None:
    made = await rest.made()
    for _ in range(2):
        assert await rest.call("DELETE", f"/{made['id']}") == RestAnswer(204, None, KeyAct("revoke_key", made["id"]))
    assert (await rest.read(f"/{made['id']}"))["status"] == "revoked"
    assert [key["status"] for key in (await rest.read())["keys"]] == ["revoked"]


@pytest.mark.parametrize(
    ("body", "old_ends"),
    [
        (b"", "2027-01-15T09:00:00Z"),
        (b"{}", "2027-01-15T09:00:00Z"),
        (b'{"graceSeconds":null}', "2027-01-15T09:00:00Z"),
        (b'{"graceSeconds":0}', "2027-01-15T08:00:00Z"),
        (b'{"graceSeconds":604800}', "2027-01-22T08:00:00Z"),
    ],
)
async def test_a_key_is_rotated(rest: Rest, body: bytes, old_ends: str) -> None:
    made = await rest.made("report")
    answer = await rest.call("POST", f"/{made['id']}/rotate", body)
    assert answer.status == 201
    assert answer.document is not None
    assert set(answer.document) == set(made)
    assert answer.document["id"] != made["id"]
    old = await rest.read(f"/{made['id']}")
    assert (old["expiresAt"], old["replacedBy"]) == (old_ends, answer.document["id"])


async def test_usage_is_shown(rest: Rest) -> None:
    made = await rest.made()
    usage = await rest.read(f"/{made['id']}/usage")
    assert (usage["id"], len(usage["hours"]), len(usage["days"])) == (made["id"], 48, 30)
    assert usage["hours"][-1] == {"start": "2027-01-15T08:00:00Z", "requests": 0, "refused": 0, "writes": 0}
    assert usage["days"][0]["start"] == "2026-12-17T00:00:00Z"


async def test_activity_is_shown_page_by_page(rest: Rest) -> None:
    old = await rest.made("old")
    rest.bench.clock.now += 1
    new = await rest.made("new")
    now = rest.bench.keyring.now
    found = Unusual("burst", now - 3_601.5, "Why")
    await rest.bench.store.count_refusal("acme", new["id"])
    await rest.bench.store.note_unusual("acme", old["id"], found, now)
    await rest.bench.store.note_unusual("acme", "", found, now)
    shown = {"kind": "burst", "since": "2027-01-15T06:59:59Z", "reason": "Why"}
    first = await rest.read("/activity", query="limit=1")
    [activity] = first["keys"]
    assert (activity["id"], activity["unusual"], first["unusual"]) == (new["id"], [], [shown])
    assert [day["refused"] for day in activity["days"]] == [0] * 6 + [1]
    assert activity["days"][-1]["start"] == "2027-01-15T00:00:00Z"
    last = await rest.read("/activity", query=f"limit=1&cursor={first['nextCursor']}")
    assert [(key["id"], key["unusual"]) for key in last["keys"]] == [(old["id"], [shown])]
    assert last["nextCursor"] is None
    stranger = await rest.read("/activity", who=caller("other"))
    assert stranger == {"keys": [], "unusual": [], "nextCursor": None}
    with pytest.raises(InvalidRequest):
        await rest.read("/activity", query="limit=0")


async def test_another_accounts_key_is_not_found(rest: Rest) -> None:
    made = await rest.made()
    stranger = caller("other")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("GET", "/usage")):
        with pytest.raises(NotFound):
            await rest.call(method, f"/{made['id']}{path}", who=stranger)
    assert await rest.read(who=stranger) == {"keys": [], "nextCursor": None}
    assert (await rest.read(f"/{made['id']}"))["status"] == "active"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (ROOT, ("GET", "POST")),
        (ROOT + "/key_0123456789AB", ("GET", "DELETE")),
        (ROOT + "/key_0123456789AB/rotate", ("POST",)),
        (ROOT + "/key_0123456789AB/usage", ("GET",)),
        (ROOT + "/activity", ("GET",)),
        (ROOT + "/activity/", None),
        (ROOT + "/", None),
        (ROOT + "//key_0123456789AB", None),
        (ROOT + "/key_0123456789AB/", None),
        (ROOT + "/key_0123456789A", None),
        (ROOT + "/key_0123456789ABC", None),
        (ROOT + "/key_0123456789A%42", None),
        (ROOT + "/mcp_0123456789AB", None),
        (ROOT + "/key_0123456789AB/secret", None),
        (ROOT + "/key_0123456789AB/rotate/", None),
        (ROOT + "/key_0123456789AB/rotate\n", None),
        (ROOT + "/key_0123456789AB\n", None),
        (ROOT + "/./key_0123456789AB", None),
        ("/api/API-keys", None),
        ("/api", None),
        ("", None),
    ],
)
async def test_paths_are_matched_exactly(rest: Rest, path: str, methods: tuple[str, ...] | None) -> None:
    assert rest.api.methods(path) == methods
    if methods is None:
        facts = RequestFacts("GET", path, None, {}, frozenset(), "127.0.0.1", "r1", "legacy")
        with pytest.raises(NotFound):
            rest.api.read(caller(), facts, b"")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "get", "DELETE"])
async def test_another_method_is_told_which_there_are(rest: Rest, method: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        await rest.call(method)
    assert caught.value.headers == (("Allow", "GET, POST"),)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=101", "limit=-1", "limit=+5", "limit=5.0", "limit=", "limit", "limit=five", "limit=05",
        "limit=1&limit=2", "limit=%D9%A1", "limit=99999999999999999999", "cursor=", "cursor=x", "cursor=a&cursor=a",
        "Limit=5", "page=2", "limit=5&", "&", "=", "limit=5;cursor=x", "access_token=x", "cursor=%ff",
        "a=1&b=2&c=3&d=4&e=5&f=6&g=7&h=8&i=9",
    ],
)  # fmt: skip
async def test_a_list_takes_limit_and_cursor_once_and_nothing_else(rest: Rest, query: str) -> None:
    with pytest.raises(InvalidRequest):
        await rest.call("GET", query=query)


async def test_other_calls_take_no_query(rest: Rest) -> None:
    made = await rest.made()
    for method, path in (("POST", ""), ("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("GET", "/usage")):
        with pytest.raises(InvalidRequest):
            await rest.call(method, f"/{made['id']}{path}" if path or method != "POST" else "", query="limit=5")
    assert (await rest.read(f"/{made['id']}"))["status"] == "active"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"name"', b"{}", b'\xef\xbb\xbf{"name":"k"}', b'{"name":"k","name":"k"}',
        b'{"name":"k","account":"other"}', b'{"name":"k","Scopes":["mcp:read"]}', b'{"name":null}', b'{"name":1}',
        b'{"name":""}', b'{"name":["k"]}', b'{"name":"k","scopes":"mcp:read"}', b'{"name":"k","scopes":[]}',
        b'{"name":"k","scopes":[1]}', b'{"name":"k","scopes":{"mcp:read":true}}', b'{"name":"k","scopes":["mcp:x"]}',
        b'{"name":"k","expiresInDays":true}', b'{"name":"k","expiresInDays":1.0}', b'{"name":"k","expiresInDays":"1"}',
        b'{"name":"k","expiresInDays":0}', b'{"name":"k","expiresInDays":3651}', b'{"name":"k","expires_in_days":1}',
        b'{"name":"\\ud800"}', b'{"name":"a\\u0000b"}', b'{"name":"\xff"}', b"[" * 200 + b"]" * 200,
    ],
)  # fmt: skip
async def test_a_malformed_wish_makes_no_key(rest: Rest, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await rest.call("POST", body=body)
    assert (await rest.read())["keys"] == []


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"null", b"0", b'{"graceSeconds":-1}', b'{"graceSeconds":604801}', b'{"graceSeconds":true}',
        b'{"graceSeconds":"60"}', b'{"graceSeconds":1.5}', b'{"grace":60}', b'{"scopes":["mcp:full"]}', b" ",
    ],
)  # fmt: skip
async def test_a_malformed_rotation_changes_nothing(rest: Rest, body: bytes) -> None:
    made = await rest.made()
    with pytest.raises(InvalidRequest):
        await rest.call("POST", f"/{made['id']}/rotate", body)
    assert (await rest.read(f"/{made['id']}"))["replacedBy"] is None


async def test_an_unknown_member_is_named_and_cut_short(rest: Rest) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await rest.call("POST", body={"name": "k", "owner\n": 1, "x" * 1_000: 2})
    assert "'owner\\n'" in caught.value.message
    assert len(caught.value.message) < 200


async def test_too_many_keys_are_a_conflict(rest: Rest) -> None:
    for _ in range(3):
        await rest.made()
    with pytest.raises(Conflict) as caught:
        await rest.made()
    assert caught.value.status == 409


async def test_what_cannot_be_rotated_is_a_conflict(rest: Rest) -> None:
    made = await rest.made()
    await rest.call("DELETE", f"/{made['id']}")
    with pytest.raises(Conflict):
        await rest.call("POST", f"/{made['id']}/rotate")


async def test_nobody_hands_out_more_than_their_token_has(rest: Rest) -> None:
    reader = caller("acme", "mcp:read")
    with pytest.raises(InsufficientScope):
        await rest.call("POST", body={"name": "k", "scopes": ["mcp:full"]}, who=reader)
    full = await rest.made(scopes=["mcp:full"])
    with pytest.raises(InsufficientScope):
        await rest.call("POST", f"/{full['id']}/rotate", who=reader)


async def test_a_key_cannot_manage_keys(rest: Rest) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(InvalidToken):
            await rest.call(method, body={"name": "k"}, who=caller("acme", "mcp:full", kind="api_key"))


@pytest.mark.parametrize(
    ("scope", "client_ids", "who", "denial"),
    [
        ("mcp:full", (), caller("acme", "mcp:read"), InsufficientScope),
        (None, ("console",), caller("acme", client_id="other"), ClientNotAllowed),
        (None, ("console",), caller("acme"), ClientNotAllowed),
    ],
)
async def test_management_may_be_restricted(
    rest: Rest, scope: str | None, client_ids: tuple[str, ...], who: Principal, denial: type[Denial]
) -> None:
    restricted = Rest(
        ManagementApi(rest.bench.keyring, rest.bench.store, scope=scope, client_ids=client_ids), rest.bench
    )
    for method in ("GET", "POST"):
        with pytest.raises(denial) as caught:
            await restricted.call(method, body={"name": "k"}, who=who)
        assert caught.value.status == 403
    assert await restricted.read(who=caller("acme", "mcp:full", client_id="console")) == {
        "keys": [],
        "nextCursor": None,
    }
