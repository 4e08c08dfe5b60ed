"""The audit of a running sidecar: what is in it, what is not, and that nothing goes on unrecorded."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import main
from sidecar.edge.audit_file import lines_of
from sidecar.edge.audit_trail import AuditTrail
from sidecar.model import IdentityKey
from sidecar.policy import audit_allowance
from tests.e2e.bed import KEYS, Bed, assert_refused, config_text, request, tool_call
from tests.e2e.conftest import Start
from tests.e2e.test_command_line import run_cli
from tests.edge.test_audit_trail import full_disk
from tests.mcp_server import StubUpstream

UNKNOWN = "mcp_" + "0" * 46
Record = dict[str, Any]
_RULES = dict(AuditTrail.__init__.__kwdefaults__ or {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def audit(path: Path, **settings: Any) -> dict[str, Any]:
    """Return settings with which nothing is recorded but what a test asks for: of tools, when they are fetched."""
    return {"audit": {"file": str(path), **settings}, "access": {"trust_annotations": False}}


def records(path: Path) -> list[Record]:
    return [json.loads(line) for line in lines_of(str(path))]


async def found(bed: Bed, path: Path) -> list[Record]:
    """Stop the sidecar, and return what it recorded between start and end."""
    await bed.sidecar.stop()
    first, *between, last = records(path)
    assert (first["kind"], first["process"], last["kind"]) == ("start", "serve", "end")
    return between


def told(record: Record) -> Record:
    """Leave out what differs each time."""
    left_out = ("chain", "seq", "prev", "time", "request_id", "principal", "expires_at", "arguments_digest")
    return {name: value for name, value in record.items() if name not in left_out}


async def test_what_a_rule_in_shadow_mode_would_have_refused_is_recorded_as_such(start: Start, path: Path) -> None:
    bed = await start(**audit(path), mode={"scopes": "shadow"})
    key = await bed.key("mcp:read")
    await bed.post(request("vendor/do"), key=key)
    await bed.post(tool_call("put"), key=key)
    await bed.post(tool_call("put"), key=UNKNOWN)
    kinds = [
        (record["kind"], record["decision"], record["outcome"])
        for record in await found(bed, path)
        if "outcome" in record
    ]
    assert kinds == [
        ("shadow", "allowed", "not_found"),
        ("shadow", "allowed", "insufficient_scope"),
        ("refusal", "refused", "invalid_api_key"),
    ]


async def verify(bed: Bed, tmp_path: Path, *arguments: str) -> tuple[int, Record]:
    file = tmp_path / "config.yaml"
    file.write_text(config_text(bed.settings))
    code, output, errors = await run_cli(file, "audit", "verify", "--json", *arguments)
    assert errors == ""
    document: Record = json.loads(output)
    assert document["ok"] == (code == 0)
    return code, document


async def test_refusals_and_writes_are_recorded_with_who_and_what_and_reads_are_not(start: Start, path: Path) -> None:
    bed = await start(**audit(path))
    key = await bed.key("mcp:read")
    await bed.post(tool_call("look", a=1), key=key)
    await bed.post(request("ping"), token=bed.token())
    await bed.post(tool_call("put", a=1), token=bed.token(client_id="agent"), headers=(("X-Request-Id", "mine"),))
    await bed.post(tool_call("put", a=1), key=key)
    await bed.post(tool_call("put", a=1), key=UNKNOWN)
    await bed.client.get("/nowhere")
    await bed.raw(b"nonsense\r\n\r\n")
    write, scope, stranger, nowhere, head = await found(bed, path)
    known = {"account": "alice", "credential": "api_key", "client_id": None, "client": "127.0.0.1"}
    nobody = {**dict.fromkeys(("account", "credential", "client_id", "tool")), "client": "127.0.0.1"}
    assert told(write) == {
        "kind": "write",
        "decision": "allowed",
        **known,
        "credential": "jwt",
        "client_id": "agent",
        "route": "/mcp",
        "method": "tools/call",
        "tool": "put",
    }
    assert (write["request_id"], write["principal"]) == ("mine", "alice")
    refused = {"kind": "refusal", "decision": "refused"}
    assert told(scope) == {
        **refused,
        **known,
        "route": "/mcp/inspector",
        "method": "tools/call",
        "tool": "put",
        "outcome": "insufficient_scope",
        "reason": "insufficient_scope",
        "status": 403,
    }
    assert scope["principal"] == f"key_{key[4:16]}"
    assert told(stranger) == {
        **refused,
        **nobody,
        "route": "/mcp/inspector",
        "method": "POST",
        "outcome": "invalid_api_key",
        "reason": "key_malformed",
        "status": 401,
    }
    assert told(nowhere) == {
        **refused,
        **nobody,
        "route": "other",
        "method": "GET",
        "outcome": "not_found",
        "reason": "path_unknown",
        "status": 404,
    }
    assert told(head) == {**refused, "outcome": "bad_head", "reason": "bad_head", "status": 400}
    digest = f"sha-256:{hashlib.sha256(json.dumps({'a': 1}, separators=(',', ':')).encode()).hexdigest()}"
    assert write["arguments_digest"] == scope["arguments_digest"] == digest
    assert "arguments_digest" not in stranger


async def test_a_caller_that_is_refused_all_the_time_hides_nobody_elses_refusals(
    start: Start, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_allowance, "OWN_BURST", 2)
    monkeypatch.setattr(audit_allowance, "SHARED_BURST", 3)
    bed = await start(**audit(path))
    for caller in ["mallory"] * 20 + ["bob"]:
        answer = await bed.post(tool_call("put"), token=bed.token(sub=caller, scope="mcp:tools:list"))
        assert answer.status_code == 403
    kept = await found(bed, path)
    accounts = [one["account"] for one in kept if one["kind"] == "refusal"]
    assert 5 <= accounts.count("mallory") < 20
    assert accounts.count("bob") == 1
    assert sum(one["count"] for one in kept if one["kind"] == "dropped") == 20 - accounts.count("mallory")


async def test_the_request_ids_are_those_of_the_log(start: Start, path: Path) -> None:
    bed = await start(**audit(path))
    await bed.post(tool_call("put"), token=bed.token())
    await bed.post(tool_call("put"), key=UNKNOWN)
    logged = [line["request_id"] for line in bed.accesses()]
    assert [one["request_id"] for one in await found(bed, path)] == logged


@pytest.mark.parametrize("secret", ["mcp_" + "a" * 46, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."])
async def test_a_credential_is_in_neither_audit_nor_log_wherever_the_client_put_it(
    start: Start, path: Path, secret: str
) -> None:
    bed = await start(**audit(path, arguments="full"))
    for message in (
        tool_call(secret),
        request(secret, {"u": 1}),
        tool_call("put", **{secret: 1}, x=secret),
        request("tools/call", {"name": "put", "arguments": {"deep": [{f"a{secret}": secret}]}}),
    ):
        answer = await bed.post(message, token=bed.token(), headers=(("X-Request-Id", secret),))
        assert secret not in answer.headers["X-Request-Id"]
    assert len(await found(bed, path)) == 4
    assert secret not in json.dumps(records(path))
    assert len(bed.accesses()) == 4
    assert secret not in json.dumps(bed.records())


@pytest.mark.parametrize("form", ["none", "digest", "full"])
async def test_arguments_are_kept_as_configured_and_never_what_is_to_be_redacted(
    start: Start, path: Path, form: str
) -> None:
    bed = await start(**audit(path, arguments=form, redact=["*secret*"]))
    await bed.post(tool_call("put", clientSecret="hidden", plain="shown"), token=bed.token())
    (write,) = await found(bed, path)
    assert "hidden" not in json.dumps(records(path))
    assert write.get("arguments") == ({"clientSecret": "[redacted]", "plain": "shown"} if form == "full" else None)
    assert ("arguments_digest" in write) == (form != "none")


async def test_what_is_done_with_keys_is_recorded_whoever_does_it(start: Start, path: Path, tmp_path: Path) -> None:
    bed = await start(**audit(path))
    token = bed.token()
    made = (await bed.rest("POST", KEYS, token, {"name": "one", "scopes": ["mcp:read"]})).json()
    rotated = (await bed.rest("POST", f"{KEYS}/{made['id']}/rotate", token)).json()
    await bed.rest("GET", KEYS, token)
    await bed.rest("DELETE", f"{KEYS}/{rotated['id']}", token)
    await bed.rest("DELETE", f"{KEYS}/key_000000000000", token)
    over_rest = await found(bed, path)
    who = {"kind": "management", "decision": "done", "account": "alice", "credential": "jwt", "client_id": "dev"}
    rest = {**who, "client": "127.0.0.1", "route": KEYS, "tool": None}
    assert [told(one) for one in over_rest[:3]] == [
        {**rest, "method": "POST", "act": "create_key", "key": made["id"], "scopes": ["mcp:read"]},
        {
            **rest,
            "method": "POST",
            "act": "rotate_key",
            "key": rotated["id"],
            "scopes": ["mcp:read"],
            "replaces": made["id"],
        },
        {**rest, "method": "DELETE", "act": "revoke_key", "key": rotated["id"]},
    ]
    assert (over_rest[3]["kind"], over_rest[3]["reason"]) == ("refusal", "key_not_found")

    file = tmp_path / "config.yaml"
    file.write_text(config_text(bed.settings))
    before = len(records(path))
    _, output, _ = await run_cli(file, "keys", "create", "--account", "alice", "--name", "n", "--json")
    by_command = json.loads(output)
    _, output, _ = await run_cli(file, "keys", "rotate", by_command["id"], "--json")
    successor = json.loads(output)
    await run_cli(file, "keys", "revoke", successor["id"])
    await run_cli(file, "keys", "revoke", "key_000000000000")
    await run_cli(file, "keys", "list")
    await run_cli(file, "tokens", "revoke", "--issuer", bed.issuer.url, "--jti", "one")
    await run_cli(file, "tokens", "revoke", "--account", "alice")
    acts = [one for one in records(path)[before:] if one["kind"] not in ("start", "end")]
    assert [(one["command"], one.get("act"), one.get("key"), one["account"]) for one in acts] == [
        ("keys create", "create_key", by_command["id"], "alice"),
        ("keys rotate", "rotate_key", successor["id"], "alice"),
        ("keys revoke", "revoke_key", successor["id"], "alice"),
        ("keys revoke", None, None, None),
        ("tokens revoke", "revoke_token", None, None),
        ("tokens revoke", "revoke_account", None, "alice"),
    ]
    assert acts[3]["reason"] == "key_not_found"
    assert all(one["principal"] == "cli" and "uid" in one["operator"] for one in acts)
    text = json.dumps(records(path))
    assert not [key for key in (made, rotated, by_command, successor) if key["key"][16:44] in text]
    code, document = await verify(bed, tmp_path)
    assert (code, document["notes"]) == (0, [])
    assert len(document["chains"]) == 7


async def test_a_command_whose_act_can_not_be_recorded_does_nothing_unless_it_revokes(
    start: Start, path: Path, tmp_path: Path
) -> None:
    bed = await start(**audit(path))
    key = await bed.key()
    await bed.sidecar.stop()
    file = tmp_path / "config.yaml"
    file.write_text(config_text({**bed.settings, **audit(tmp_path)}))
    code, output, errors = await run_cli(file, "keys", "create", "--account", "alice", "--name", "n")
    assert (code, output) == (1, "")
    assert "audit.file: " in errors
    code, output, errors = await run_cli(file, "keys", "revoke", f"key_{key[4:16]}")
    assert (code, output) == (1, "")
    assert "what the command did is done and not recorded" in errors
    (listed,) = json.loads((await run_cli(file, "keys", "list", "--json"))[1])["keys"]
    assert listed["status"] == "revoked"


async def test_a_file_that_can_not_be_written_prevents_the_start(start: Start, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"audit\.file: .*No such file"):
        await start(**audit(tmp_path / "nowhere" / "audit.log"))


async def test_while_records_find_no_room_writes_and_key_management_are_refused_and_reads_go_on(
    start: Start, stub: StubUpstream, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditTrail.__init__, "__kwdefaults__", {**_RULES, "max_waiting": 3, "retry_s": 0.01})
    bed = await start("redis", **audit(path))
    token = bed.token()
    made = (await bed.rest("POST", KEYS, token, {"name": "before"})).json()
    await recorded(path, "management")
    with full_disk(path):
        for _ in range(3):
            assert (await bed.post(tool_call("put"), token=token)).status_code == 200
        asked = len(stub.received)
        assert_refused(await bed.post(tool_call("put"), token=token), 503, "OVERLOADED")
        assert len(stub.received) == asked
        refused = await bed.rest("POST", KEYS, token, {"name": "one"})
        assert (refused.status_code, refused.json()["errorType"]) == (503, "OVERLOADED")
        assert (await bed.rest("DELETE", f"{KEYS}/{made['id']}", token)).status_code == 204
        assert [key["status"] for key in (await bed.rest("GET", KEYS, token)).json()["keys"]] == ["revoked"]
        assert (await bed.post(tool_call("look"), token=token)).status_code == 200
        await until_ready(bed, "degraded")
        assert (await bed.admin.get("/readyz")).json()["checks"]["audit"] == "unavailable"
    await until_ready(bed, "ready")
    assert (await bed.post(tool_call("put"), token=token)).status_code == 200
    kinds = [one["kind"] for one in await found(bed, path)]
    assert (kinds.count("write"), kinds.count("management")) == (4, 2)
    assert {line["event"] for line in bed.records()} >= {"audit_failed", "audit_recovered"}


async def test_while_records_find_no_room_an_approval_is_kept_for_later(
    start: Start, stub: StubUpstream, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditTrail.__init__, "__kwdefaults__", {**_RULES, "max_waiting": 9, "retry_s": 0.01})
    bed = await start(**audit(path), key_page={"client_id": "page"})
    token, page = bed.token(client_id="agent"), bed.token(client_id="page")
    text = (await bed.post(tool_call("drop"), token=token)).json()["result"]["content"][0]["text"]
    approval = text.partition("/approvals/")[2][:32]
    await bed.rest("POST", f"/api/approvals/{approval}/approve", page)
    await recorded(path, "management")
    with full_disk(path):
        for _ in range(9):
            assert (await bed.post(tool_call("put"), token=token)).status_code == 200
        stub.received.clear()
        assert_refused(await bed.post(tool_call("drop"), token=token), 503, "OVERLOADED")
    assert stub.received == []
    done = await bed.post_when_catalogued(tool_call("drop"), token=token)
    assert done.json()["result"] == {"method": "tools/call"}


async def recorded(path: Path, kind: str) -> None:
    async with asyncio.timeout(10):
        while kind not in [one["kind"] for one in records(path)]:  # noqa: ASYNC110 - a file can only be looked at
            await asyncio.sleep(0.01)


async def until_ready(bed: Bed, status: str) -> None:
    for _ in range(500):
        if (await bed.admin.get("/readyz")).json()["status"] == status:
            return
    raise AssertionError(f"never {status}")


async def test_a_refusal_of_the_upstreams_fault_follows_the_record_of_the_write(
    start: Start, stub: StubUpstream, path: Path
) -> None:
    bed = await start(**audit(path), upstream={"url": "http://127.0.0.1:9/mcp"})
    await bed.post(tool_call("put"), token=bed.token())
    write, refusal = await found(bed, path)
    assert (write["kind"], refusal["kind"]) == ("write", "refusal")
    assert write["request_id"] == refusal["request_id"]
    assert refusal["outcome"] == "upstream_unavailable"


async def test_without_an_audit_none_is_kept_and_none_is_told_of(start: Start, path: Path) -> None:
    bed = await start()
    await bed.post(tool_call("put"), token=bed.token())
    with pytest.raises(FileNotFoundError):
        records(path)
    assert "sidecar_audit" not in (await bed.admin.get("/metrics")).text
    assert "audit" not in (await bed.admin.get("/readyz")).json()["checks"]


async def test_records_are_counted_by_kind(start: Start, path: Path) -> None:
    bed = await start(**audit(path))
    await bed.post(tool_call("put"), token=bed.token())
    await bed.post(tool_call("put"), key=UNKNOWN)
    for _ in range(500):
        metrics = (await bed.admin.get("/metrics")).text
        if 'sidecar_audit_records_total{kind="refusal"} 1.0' in metrics:
            break
    assert 'sidecar_audit_records_total{kind="write"} 1.0' in metrics
    assert "sidecar_audit_failures_total 0.0" in metrics


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def rewrite(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(lines))


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "changed": lambda lines: [lines[0], lines[1].replace(b"alice", b"bob__"), *lines[2:]],
    "removed": lambda lines: [lines[0], *lines[2:]],
    "moved": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "doubled": lambda lines: [*lines[:2], lines[1], *lines[2:]],
    "put in": lambda lines: [*lines[:2], lines[1].replace(b"alice", b"bob__"), *lines[2:]],
}


async def test_the_command_finds_what_was_done_to_the_file(
    start: Start, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bed = await start(**audit(path))
    for _ in range(3):
        await bed.post(tool_call("put"), token=bed.token())
    await bed.sidecar.stop()
    assert (await verify(bed, tmp_path))[0] == 0
    whole, command = lines(path), ["audit", "verify", "--json", "--config", str(tmp_path / "config.yaml")]
    for how, change in CHANGES.items():
        rewrite(path, change(whole))
        assert main(command) == 1, how
        assert json.loads(capsys.readouterr().out)["problems"][0]["line"] in (2, 3), how


async def test_an_auditor_elsewhere_needs_the_published_keys_alone(
    start: Start, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bed = await start(**audit(path))
    keys = tmp_path / "keys.json"
    keys.write_bytes((await bed.client.get("/.well-known/sidecar-keys.json")).content)
    await bed.sidecar.stop()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, output, errors = await run_cli(elsewhere / "none", "audit", "verify", str(path), "--keys", str(keys))
    assert (code, errors) == (0, "")
    assert "Nothing is missing or changed." in output
    others = {"keys": [{"kty": "oct", "kid": "other", "k": "A" * 43}]}
    keys.write_text(json.dumps(others))
    code, output, _ = await run_cli(elsewhere / "none", "audit", "verify", str(path), "--keys", str(keys))
    assert (code, "WRONG" in output) == (1, True)
    keys.write_text("{}")
    code, _, errors = await run_cli(elsewhere / "none", "audit", "verify", str(path), "--keys", str(keys))
    assert (code, "must hold a JWK set" in errors) == (1, True)


async def test_what_stands_in_a_file_does_nothing_to_the_terminal_it_is_shown_on(
    start: Start, path: Path, tmp_path: Path
) -> None:
    bed = await start(**audit(path))
    await bed.sidecar.stop()
    forged = {"chain": "a\r\x9b2J", "time": "2026-01-01T00:00:00Z", "kind": "write\x1b[2J\u202e\nNothing", "seq": 1}
    rewrite(path, [*lines(path), json.dumps({**forged, "prev": None, "keyid": "\x1b[8m"}).encode() + b"\n"])
    file = tmp_path / "config.yaml"
    file.write_text(config_text(bed.settings))
    code, output, _ = await run_cli(file, "audit", "verify")
    assert (code, "write\\x1b[2J\\u202e\\nNothing" in output, "a\\r\\x9b2J" in output) == (1, True, True)
    assert all(line.isprintable() for line in output.splitlines())


async def test_other_identity_keys_sign_once_the_settings_are_read_again(
    start: Start, path: Path, tmp_path: Path
) -> None:
    bed = await start(**audit(path))
    old = bed.sidecar.config.identity
    key = IdentityKey("new", "ed25519", bytes(range(32)))
    await bed.sidecar.reload(replace(bed.sidecar.config, identity=replace(old, keys=(key,))))
    await bed.sidecar.stop()
    first, last = records(path)
    assert first["keyid"] != last["keyid"] == "new"
