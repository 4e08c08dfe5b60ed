"""The page's calls: who may see a call that waits, and decide about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.bed import Bed
from tests.e2e.confirming import DROP, text_of
from tests.e2e.conftest import Start, StoreName
from tests.mcp_server import StubUpstream

APPROVALS = "/api/approvals"


async def waiting(bed: Bed, **credential: Any) -> str:
    """Make a call that has to be approved, and return the id of the approval."""
    text = text_of((await bed.post(DROP, **(credential or {"token": bed.token(client_id="agent")}))).json())
    return text.partition("/approvals/")[2][:32]


def page(bed: Bed, **claims: Any) -> str:
    return bed.token(**{"scope": "openid", "client_id": "page", **claims})


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["errorType"]


@pytest.fixture
async def bed(start: Start) -> Bed:
    return await start(key_page={"client_id": "page"})


async def test_the_owner_sees_the_call_and_approves_it(start: Start, store: StoreName, stub: StubUpstream) -> None:
    bed = await start(store, key_page={"client_id": "page"})
    approval, token = await waiting(bed), page(bed)
    seen = await bed.rest("GET", f"{APPROVALS}/{approval}", token)
    assert (seen.status_code, seen.headers["cache-control"]) == (200, "no-store")
    told = seen.json()
    assert (told["id"], told["state"], told["tool"]) == (approval, "waiting", "drop")
    assert (told["arguments"], told["argumentsCut"]) == ('{"table": "users"}', False)
    assert told["caller"] == {"credential": "jwt", "subject": "alice", "clientId": "agent"}
    for _ in range(2):
        decided = (await bed.rest("POST", f"{APPROVALS}/{approval}/approve", token)).json()
        assert (decided["state"], decided["decidedBy"]) == ("approved", "subject:alice")
    assert refused(await bed.rest("POST", f"{APPROVALS}/{approval}/decline", token)) == (409, "CONFLICT")
    agent = bed.token(client_id="agent")
    assert (await bed.post(DROP, token=agent)).json()["result"] == {"method": "tools/call"}
    assert (await bed.rest("GET", f"{APPROVALS}/{approval}", token)).json()["state"] == "spent"
    assert refused(await bed.rest("POST", f"{APPROVALS}/{approval}/approve", token)) == (409, "CONFLICT")
    assert len(stub.received) == 1


async def test_a_declined_call_stays_declined(bed: Bed, stub: StubUpstream) -> None:
    approval = await waiting(bed)
    decided = await bed.rest("POST", f"{APPROVALS}/{approval}/decline", page(bed), {})
    assert decided.json()["state"] == "declined"
    assert "declined" in text_of((await bed.post(DROP, token=bed.token(client_id="agent"))).json())
    assert stub.received == []


async def test_the_client_that_made_the_call_never_approves_it(start: Start, stub: StubUpstream) -> None:
    bed = await start(confirmation={"approver_clients": ["page", "agent"]})
    approval, agent = await waiting(bed), bed.token(client_id="agent")
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/decline")):
        answer = await bed.rest(method, f"{APPROVALS}/{approval}{path}", agent)
        assert refused(answer) == (403, "INSUFFICIENT_SCOPE")
    text_of((await bed.post(DROP, token=agent)).json())
    assert stub.received == []


@pytest.mark.parametrize("confirmation", [{"approver_clients": ["console"]}, {}])
async def test_no_other_client_sees_or_approves_anything(
    start: Start, stub: StubUpstream, confirmation: dict[str, Any]
) -> None:
    bed = await start(confirmation=confirmation)
    approval = await waiting(bed)
    for token in (page(bed), bed.token(), bed.token(azp="page")):
        for method, path in (("GET", ""), ("POST", "/approve")):
            answer = await bed.rest(method, f"{APPROVALS}/{approval}{path}", token)
            assert refused(answer) == (403, "INSUFFICIENT_SCOPE")
    text_of((await bed.post(DROP, token=bed.token(client_id="agent"))).json())
    assert stub.received == []


async def test_a_client_that_is_named_may_approve(start: Start, stub: StubUpstream) -> None:
    bed = await start(confirmation={"approver_clients": ["console"]}, key_page={"client_id": "page"})
    approval = await waiting(bed)
    assert refused(await bed.rest("GET", f"{APPROVALS}/{approval}", page(bed)))[0] == 403
    assert (
        await bed.rest("POST", f"{APPROVALS}/{approval}/approve", bed.token(client_id=None, azp="console"))
    ).status_code == 200


async def test_another_account_finds_nothing(bed: Bed, stub: StubUpstream) -> None:
    approval = await waiting(bed)
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/decline")):
        stranger = await bed.rest(method, f"{APPROVALS}/{approval}{path}", page(bed, sub="mallory"))
        nothing = await bed.rest(method, f"{APPROVALS}/{'a' * 32}{path}", page(bed))
        assert refused(stranger) == refused(nothing) == (404, "NOT_FOUND")
        assert stranger.json() == nothing.json()
    assert (await bed.rest("GET", f"{APPROVALS}/{approval}", page(bed))).json()["state"] == "waiting"


async def test_the_call_of_a_key_is_its_account_s_to_approve(start: Start, stub: StubUpstream) -> None:
    routes = [
        {"path": "/mcp", "credentials": ["jwt"]},
        {"path": "/mcp/inspector", "credentials": ["api_key"], "confirmation": "declared"},
    ]
    bed = await start(routes=routes, key_page={"client_id": "page"})
    key = await bed.key("mcp:full")
    approval = await waiting(bed, key=key)
    told = (await bed.rest("GET", f"{APPROVALS}/{approval}", page(bed))).json()
    assert told["caller"] == {"credential": "api_key", "subject": f"key_{key[4:16]}", "clientId": None}
    await bed.rest("POST", f"{APPROVALS}/{approval}/approve", page(bed))
    assert (await bed.post(DROP, key=key)).json()["result"] == {"method": "tools/call"}


async def test_only_a_token_gets_in(bed: Bed) -> None:
    approval = await waiting(bed)
    key = await bed.key("mcp:full")
    for headers in ({}, {"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
        answer = await bed.client.get(f"{APPROVALS}/{approval}", headers=headers)
        assert refused(answer) == (401, "INVALID_TOKEN")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_what_is_no_call_of_ours_is_refused(bed: Bed) -> None:
    approval, token = await waiting(bed), page(bed)
    item = f"{APPROVALS}/{approval}"
    for method, path, document, status in (
        ("GET", APPROVALS, None, 404),
        ("GET", f"{APPROVALS}/{approval[:31]}", None, 404),
        ("GET", f"{item}/", None, 404),
        ("POST", f"{item}/spend", None, 404),
        ("POST", item, None, 405),
        ("GET", f"{item}/approve", None, 405),
        ("GET", f"{item}?x=1", None, 400),
        ("POST", f"{item}/approve", {"decision": "approve"}, 400),
        ("POST", f"{item}/approve", [], 400),
    ):
        answer = await bed.rest(method, path, token, document)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
    assert (await bed.rest("GET", item, token)).json()["state"] == "waiting"


async def test_a_token_that_has_expired_approves_nothing(bed: Bed) -> None:
    approval = await waiting(bed)
    answer = await bed.rest("POST", f"{APPROVALS}/{approval}/approve", page(bed, exp=1))
    assert refused(answer) == (401, "INVALID_TOKEN")
    assert (await bed.rest("GET", f"{APPROVALS}/{approval}", page(bed))).json()["state"] == "waiting"


async def test_who_approved_stands_in_the_audit(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    bed = await start(key_page={"client_id": "page"}, audit={"file": str(file)})
    approval = await waiting(bed)
    await bed.rest("POST", f"{APPROVALS}/{approval}/approve", page(bed))
    await bed.sidecar.stop()
    records = [json.loads(line) for line in file.read_text().splitlines()]
    (record,) = (one for one in records if one["kind"] == "management")
    told = {name: record[name] for name in ("act", "approval", "tool", "client_id", "account", "route", "decision")}
    assert told == {
        "act": "approve_call",
        "approval": approval,
        "tool": "drop",
        "client_id": "page",
        "account": "alice",
        "route": "/api/approvals",
        "decision": "done",
    }


@pytest.mark.parametrize("sub", ["operator", "client", "subject:alice"])
async def test_nobody_approves_under_the_name_of_the_operator_or_the_client(
    start: Start, tmp_path: Path, sub: str
) -> None:
    file = tmp_path / "audit.log"
    bed = await start(key_page={"client_id": "page"}, audit={"file": str(file)})
    agent, token = bed.token(sub=sub, client_id="agent"), page(bed, sub=sub)
    approval = await waiting(bed, token=agent)
    decided = await bed.rest("POST", f"{APPROVALS}/{approval}/approve", token)
    await bed.post(DROP, token=agent)
    await bed.sidecar.stop()
    records = [json.loads(line) for line in file.read_text().splitlines()]
    told = [record["confirmed_by"] for record in records if "confirmed_by" in record]
    assert [decided.json()["decidedBy"], *told] == [f"subject:{sub}"] * 2
