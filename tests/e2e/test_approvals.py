"""Calls of clients that can't ask anybody wait for an approval, which somebody else gives, and which lets one pass."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bed import KEYS, Bed, config_text, tool_call
from tests.e2e.confirming import DROP, YES, able, answer_to, at, begin, calling, retry, text_of
from tests.e2e.conftest import Start, StoreName
from tests.e2e.test_command_line import run_cli
from tests.mcp_server import StubUpstream


class Operator:
    """Runs ``sidecar approvals`` beside a running sidecar."""

    def __init__(self, bed: Bed, directory: Path) -> None:
        self._file = directory / "operators.yaml"
        self._file.write_text(config_text(bed.settings))

    async def run(self, *arguments: str) -> tuple[int, Any]:
        """Return the exit code, and what was told, as a program sees it."""
        code, output, errors = await run_cli(self._file, "approvals", *arguments, "--json")
        return code, json.loads(output or errors)

    async def waiting(self) -> list[dict[str, Any]]:
        code, document = await self.run("list")
        assert code == 0
        return list(document["approvals"])


@pytest.fixture
async def bed(start: Start, store: StoreName, tmp_path: Path) -> Bed:
    return await start(store)


@pytest.fixture
def operator(bed: Bed, tmp_path: Path) -> Operator:
    return Operator(bed, tmp_path)


async def test_a_call_passes_once_after_it_was_approved(bed: Bed, stub: StubUpstream, operator: Operator) -> None:
    token = bed.token(client_id="agent")
    said = text_of((await bed.post(DROP, token=token)).json())
    (waiting,) = await operator.waiting()
    assert f"/approvals/{waiting['id']}" in said
    assert f"sidecar approvals approve {waiting['id']}" in said
    assert (waiting["tool"], waiting["arguments"], waiting["account"]) == ("drop", '{"table": "users"}', "alice")
    assert waiting["caller"] == {"credential": "jwt", "subject": "alice", "clientId": "agent"}
    assert waiting["id"] in text_of((await bed.post(DROP, token=token)).json()), "to call again asks nobody again"
    code, decided = await operator.run("approve", waiting["id"])
    assert (code, decided["state"], decided["decidedBy"]) == (0, "approved", "operator")
    assert stub.received == []
    assert (await bed.post({**DROP, "id": "again"}, token=token)).json()["result"] == {"method": "tools/call"}
    assert (len(stub.received), await operator.waiting()) == (1, [])
    assert waiting["id"] not in text_of((await bed.post(DROP, token=token)).json())
    assert len(stub.received) == 1


async def test_calls_that_race_for_one_approval_let_one_pass(bed: Bed, stub: StubUpstream, operator: Operator) -> None:
    token = bed.token()
    await bed.post(DROP, token=token)
    await operator.run("approve", (await operator.waiting())[0]["id"])
    answers = await asyncio.gather(*(bed.post({**DROP, "id": number}, token=token) for number in range(8)))
    assert sum("isError" not in answer.json()["result"] for answer in answers) == 1
    assert len(stub.received) == 1


async def test_a_declined_call_is_not_asked_about_again(bed: Bed, stub: StubUpstream, operator: Operator) -> None:
    token = bed.token()
    await bed.post(DROP, token=token)
    (waiting,) = await operator.waiting()
    assert (await operator.run("decline", waiting["id"]))[1]["state"] == "declined"
    assert "declined" in text_of((await bed.post(DROP, token=token)).json())
    code, refused = await operator.run("approve", waiting["id"])
    assert (code, refused["error"]["errorType"]) == (1, "CONFLICT")
    assert (stub.received, await operator.waiting()) == ([], [])


@pytest.mark.parametrize("store", ["embedded"], indirect=True)
async def test_an_approval_is_for_this_caller_tool_and_arguments(
    bed: Bed, stub: StubUpstream, operator: Operator
) -> None:
    token = bed.token(client_id="agent")
    await bed.post(DROP, token=token)
    await operator.run("approve", (await operator.waiting())[0]["id"])
    for message, credential in (
        (tool_call("drop", table="accounts"), token),
        (tool_call("drop", table="users", cascade=True), token),
        (DROP, bed.token(client_id="other")),
        (DROP, bed.token(sub="mallory", client_id="agent")),
    ):
        text_of((await bed.post(message, token=credential)).json())
    assert stub.received == []
    assert "result" in (await bed.post(DROP, token=token)).json()
    assert len(stub.received) == 1


async def test_an_approval_that_was_not_used_in_time_is_over(
    start: Start, store: StoreName, stub: StubUpstream, tmp_path: Path
) -> None:
    bed = await start(store, confirmation={"ttl_s": 1})
    operator, token = Operator(bed, tmp_path), bed.token()
    await bed.post(DROP, token=token)
    async with asyncio.timeout(10):
        while await operator.waiting():
            pass
    (over,) = (await operator.run("list", "--all"))[1]["approvals"]
    assert over["state"] == "expired"
    assert (await operator.run("approve", over["id"]))[1]["error"]["errorType"] == "CONFLICT"
    assert over["id"] not in text_of((await bed.post(DROP, token=token)).json())
    assert stub.received == []


async def test_an_approval_outlives_a_restart(start: Start, stub: StubUpstream, tmp_path: Path) -> None:
    file = tmp_path / "kept.db"
    bed = await start(store={"url": f"sqlite:///{file}"})
    await bed.post(DROP, token=bed.token())
    operator = Operator(bed, tmp_path)
    await bed.sidecar.stop()
    await operator.run("approve", (await operator.waiting())[0]["id"])
    bed = await start(store={"url": f"sqlite:///{file}"})
    assert (await bed.post(DROP, token=bed.token())).json()["result"] == {"method": "tools/call"}


@pytest.mark.parametrize("store", ["embedded"], indirect=True)
async def test_an_id_that_is_none_is_not_found(operator: Operator) -> None:
    for wrong in ("x", "a" * 32, "../x"):
        code, told = await operator.run("approve", wrong)
        assert (code, told["error"]["errorType"]) == (1, "NOT_FOUND")


async def test_with_another_approver_the_client_is_not_asked_and_its_word_is_worth_nothing(
    start: Start, store: StoreName, stub: StubUpstream, tmp_path: Path
) -> None:
    bed = await start(store, confirmation={"approver": "other"})
    operator, token = Operator(bed, tmp_path), bed.token()
    await begin(bed, stub, token=token)
    ways: tuple[tuple[Any, dict[str, Any]], ...] = ((DROP, {"headers": at("s-1")}), (able(DROP), {"era": "modern"}))
    for message, how in ways:
        assert "/approvals/" in text_of((await bed.post(message, token=token, **how)).json())
        await operator.run("approve", (await operator.waiting())[0]["id"])
        assert (await bed.post(message, token=token, **how)).json()["result"] == {"method": "tools/call"}
    assert len(stub.received) == 2


async def test_a_newer_client_that_can_t_ask_gets_its_call_done_after_an_approval(
    bed: Bed, stub: StubUpstream, operator: Operator
) -> None:
    token = bed.token()
    refused = await bed.post(able(DROP, {}), token=token, era="modern")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32021)
    await operator.run("approve", (await operator.waiting())[0]["id"])
    done = await bed.post({**able(DROP, {}), "id": 8}, token=token, era="modern")
    assert done.json()["result"] == {"method": "tools/call"}
    assert len(stub.received) == 1


async def test_a_word_that_was_given_by_the_client_is_worth_nothing_after_the_approver_is_another(
    start: Start, stub: StubUpstream
) -> None:
    one = await start("redis")
    token = one.token()
    asked = (await one.post(able(DROP), token=token, era="modern")).json()
    other = await start("redis", confirmation={"approver": "other"})
    text_of((await other.post(retry(asked), token=token, era="modern")).json())
    assert stub.received == []


@pytest.mark.parametrize("store", ["embedded"], indirect=True)
async def test_keys_pass_unless_an_agent_may_have_made_them_itself(bed: Bed, stub: StubUpstream) -> None:
    assert (await bed.post(DROP, key=await bed.key("mcp:full"))).json()["result"] == {"method": "tools/call"}
    made = await bed.rest("POST", KEYS, bed.token(), {"name": "mine", "scopes": ["mcp:full"]})
    assert "/approvals/" in text_of((await bed.post(DROP, key=bed.secret(made.json()["key"]))).json())
    assert len(stub.received) == 1


async def test_keys_that_only_some_may_make_pass(start: Start, stub: StubUpstream) -> None:
    bed = await start(api_keys={"management": {"client_ids": ["portal"]}})
    token = bed.token(client_id="portal")
    made = await bed.rest("POST", KEYS, token, {"name": "mine", "scopes": ["mcp:full"]})
    assert (await bed.post(DROP, key=bed.secret(made.json()["key"]))).json()["result"] == {"method": "tools/call"}


@pytest.mark.parametrize(
    ("rule", "tool", "waits"),
    [
        ("declared", "drop", True),
        ("declared", "put", False),
        ("writes", "put", True),
        ("writes", "nobody_knows", True),
        ("writes", "look", False),
        ("never", "drop", False),
    ],
)
async def test_the_rule_says_which_tools_wait(
    start: Start, stub: StubUpstream, rule: str, tool: str, waits: bool
) -> None:
    bed = await start(confirmation={"tools": rule}, access={"trust_annotations": False})
    result = (await bed.post(tool_call(tool), token=bed.token())).json()["result"]
    assert ("isError" in result) is waits
    assert len(stub.received) == (0 if waits else 1)


async def test_a_route_may_have_a_rule_of_its_own(start: Start, stub: StubUpstream) -> None:
    routes = [
        {"path": "/mcp", "credentials": ["jwt"], "confirmation": "never"},
        {"path": "/careful", "credentials": ["jwt", "api_key"], "confirmation": "writes"},
    ]
    bed = await start(routes=routes)
    assert "isError" not in (await bed.post(DROP, token=bed.token())).json()["result"]
    text_of(
        (await bed.post(tool_call("put"), path="/careful", token=bed.token(aud="http://127.0.0.1:8080/careful"))).json()
    )
    text_of((await bed.post(tool_call("put"), path="/careful", key=await bed.key("mcp:full"))).json())
    assert len(stub.received) == 1


async def test_the_server_s_annotation_makes_a_tool_wait(start: Start, stub: StubUpstream) -> None:
    bed = await start(access={"tools": {"read": [], "write": [], "destructive": []}})
    token = bed.token()
    text_of((await bed.post_when_catalogued(DROP, token=token)).json())
    assert "isError" not in (await bed.post(tool_call("put"), token=token)).json()["result"]


async def test_in_shadow_mode_nobody_is_asked_and_it_is_told_who_would_be(start: Start, stub: StubUpstream) -> None:
    bed = await start(mode={"confirmation": "shadow"})
    assert "isError" not in (await bed.post(DROP, token=bed.token())).json()["result"]
    assert bed.accesses()[-1]["shadow"] == "confirmation_required/confirmation_needed"
    assert 'sidecar_shadow_refusals_total{rule="confirmation"} 1.0' in (await bed.admin.get("/metrics")).text


async def test_a_confirmation_is_in_the_audit_and_the_metrics(start: Start, stub: StubUpstream, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    bed = await start(audit={"file": str(file)})
    operator, token = Operator(bed, tmp_path), bed.token()
    await begin(bed, stub, token=token)
    async with calling(bed, token=token) as call:
        await bed.post(answer_to(await call.message(), YES), token=token, headers=at("s-1"))
        await call.message()
    await bed.post(DROP, token=token)
    await operator.run("approve", (await operator.waiting())[0]["id"])
    await bed.post(DROP, token=token)
    text = (await bed.admin.get("/metrics")).text
    for outcome, count in (("asked", 1), ("confirmed", 2), ("approval_needed", 1), ("declined", 0)):
        assert f'sidecar_confirmations_total{{outcome="{outcome}"}} {count}.0' in text
    await bed.sidecar.stop()
    records = [json.loads(line) for line in file.read_text().splitlines()]
    told = [
        (one["kind"], one.get("decision"), one.get("confirmed_by"), one.get("act"))
        for one in records
        if one["kind"] in ("confirmation", "write", "management")
    ]
    assert sorted(told, key=str) == sorted(
        [
            ("confirmation", "confirmed", "client", None),
            ("write", "allowed", None, None),
            ("confirmation", "asked", None, None),
            ("management", "done", None, "approve_call"),
            ("confirmation", "confirmed", "operator", None),
            ("write", "allowed", None, None),
        ],
        key=str,
    )
