"""`sidecar explain`: what it says would become of a request is what then becomes of it, and asking costs nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sidecar import explaining
from sidecar.demo.issuer import DevIssuer
from sidecar.edge.embedded import EmbeddedStore
from sidecar.explaining import AsKey, AsPrincipal, Question
from sidecar.policy import explanation
from sidecar.policy.pins import upstream_id
from sidecar.records import Pinned
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, Bed, config_text, merged, request, tool_call
from tests.e2e.bed import with_other_secret as other_secret
from tests.e2e.conftest import Start, StoreName, base_settings, start_bed
from tests.e2e.test_limits import account
from tests.mcp_server import StubUpstream, reply
from tests.test_gateway_model import CALLED, PING

Told = dict[str, Any]
NO_LISTS: Final[dict[str, Any]] = {"access": {"tools": {"read": [], "write": [], "destructive": []}}}
TOOLS: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "result": {
        "tools": [
            {"name": "get", "inputSchema": {}, "annotations": {"readOnlyHint": True}},
            {"name": "drop", "inputSchema": {}, "annotations": {"destructiveHint": True}},
            {"name": "plain", "inputSchema": {}},
        ]
    },
}


async def explained(
    bed: Bed, tmp_path: Path, *arguments: str, stdin: bytes = b"", **environment: str
) -> tuple[int, str, str]:
    """Ask as an operator would, beside the running sidecar."""
    file = tmp_path / "explain.yaml"
    file.write_text(config_text(bed.settings))
    command = (sys.executable, "-m", "sidecar", "explain", *arguments, "--config", str(file))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, env={**os.environ, **environment}
    )
    output, errors = await process.communicate(stdin)
    assert process.returncode is not None
    for secret in bed.secrets:
        assert secret not in output.decode() + errors.decode()
    return process.returncode, output.decode(), errors.decode()


async def document(bed: Bed, tmp_path: Path, *arguments: str, stdin: bytes = b"", **environment: str) -> Told:
    code, output, errors = await explained(bed, tmp_path, *arguments, "--json", stdin=stdin, **environment)
    assert errors == ""
    told: Told = json.loads(output)
    assert code == (0 if told["decision"] == "allowed" else 1)
    return told


async def test_it_names_the_scope_that_a_key_lacks_and_why_the_tool_needs_it(start: Start, tmp_path: Path) -> None:
    bed = await start()
    key = await bed.key("mcp:read")
    told = await document(bed, tmp_path, "--key", f"key_{key[4:16]}", "--tool", "put")
    assert told["decision"] == "refused"
    assert told["credential"]["scopes"] == ["mcp:read"]
    assert told["tool"] == {"name": "put", "class": "write", "because": "list", "entry": "put"}
    assert told["action"] == {"kind": "request", "method": "tools/call", "needs": ["mcp:full"], "write": True}
    assert told["refusal"] == {
        "rule": "scopes",
        "status": 403,
        "errorType": "INSUFFICIENT_SCOPE",
        "reason": "insufficient_scope",
        "message": "API key does not have permission for this operation",
        "detail": "needs mcp:full, has mcp:read",
    }
    assert told["limits"] is None


async def test_it_says_the_same_in_words(start: Start, tmp_path: Path) -> None:
    bed = await start(limits={"policies": [account(5)]})
    code, words, _ = await explained(bed, tmp_path, "--account", "alice", "--scopes", "mcp:read", "--tool", "put")
    assert code == 1
    assert words.startswith("REFUSED by scopes: 403 INSUFFICIENT_SCOPE (insufficient_scope)\n")
    assert "access.tools.write has put" in words
    code, words, _ = await explained(bed, tmp_path, "--account", "alice", "--scopes", "mcp:read", "--tool", "look")
    assert code == 0
    assert words.startswith("ALLOWED\n")
    assert "account: 5 in 60 s per account alice" in words


async def test_it_says_of_a_call_that_a_person_has_to_confirm_it_and_of_no_other(start: Start, tmp_path: Path) -> None:
    bed = await start()
    for tool, kind, waits in (("drop", "jwt", True), ("put", "jwt", False), ("drop", "api_key", False)):
        path = JWT_ROUTE if kind == "jwt" else KEY_ROUTE
        who = ("--account", "alice", "--scopes", "mcp:full", "--path", path)
        told = await document(bed, tmp_path, *who, "--tool", tool)
        assert told["decision"] == "allowed"
        assert told["confirmation"] == ("needed" if waits else None)
    who = ("--account", "alice", "--scopes", "mcp:full", "--tool", "drop")
    assert (await explained(bed, tmp_path, *who))[1].startswith("ALLOWED once a person has confirmed it\n")
    bed.settings = merged(bed.settings, {"mode": {"confirmation": "shadow"}})
    assert (await document(bed, tmp_path, *who))["confirmation"] == "shadow"
    words = (await explained(bed, tmp_path, *who))[1]
    assert words.startswith("ALLOWED, though a person would be asked (mode.confirmation: shadow)\n")


async def test_a_real_credential_comes_from_a_file_the_environment_or_standard_input(
    start: Start, tmp_path: Path
) -> None:
    bed = await start()
    key, token = await bed.key("mcp:full"), bed.token("mcp:read", client_id="agent")
    ping = ("--body", json.dumps(request("ping")))
    by_key = await document(bed, tmp_path, "--path", KEY_ROUTE, "--credential-file", "-", *ping, stdin=key.encode())
    assert (by_key["decision"], by_key["credential"]["subject"]) == ("allowed", f"key_{key[4:16]}")
    by_token = await document(bed, tmp_path, "--credential-env", "TOKEN", *ping, TOKEN=token)
    assert by_token["decision"] == "allowed"
    known = by_token["credential"]
    assert (known["kind"], known["account"], known["clientId"], known["scopes"]) == (
        *("jwt", "alice", "agent"),
        ["mcp:read"],
    )
    wrong = await document(
        bed, tmp_path, "--path", KEY_ROUTE, "--credential-file", "-", *ping, stdin=other_secret(key, 1).encode()
    )
    assert (wrong["refusal"]["reason"], wrong["refusal"]["rule"]) == ("key_secret", "authentication")
    text = f"POST {JWT_ROUTE} HTTP/1.1\nAuthorization: Bearer {token}\nContent-Type: application/json\n\n"
    raw = (text + json.dumps(tool_call("put"))).encode()
    assert (await document(bed, tmp_path, "-", stdin=raw))["refusal"]["rule"] == "scopes"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--header", "Authorization: Bearer x"),
        ("--header", "X-API-Key: x"),
        ("--key", "mcp_" + "a" * 46),
        ("--account", "a", "--scopes", "mcp:everything"),
        ("--scopes", "mcp:read"),
        ("--credential-env", "NOT_SET"),
        ("--log-line", "-", "--path", "/mcp"),
        ("-", "--credential-file", "-"),
        ("--path", "/mcp\r\nX: y"),
        ("-",),
        ("--log-line", "-"),
    ],
)
async def test_what_makes_no_sense_is_wrong_usage(start: Start, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, output, errors = await explained(await start(), tmp_path, *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith("sidecar: ")


async def test_asking_spends_nothing_and_shows_what_is_left(start: Start, store: StoreName, tmp_path: Path) -> None:
    bed = await start(store, limits={"policies": [account(2)]})
    key = await bed.key("mcp:full")
    asked = ("--key", f"key_{key[4:16]}", "--body", json.dumps(request("ping")))
    for _ in range(3):
        (limit,) = (await document(bed, tmp_path, *asked))["limits"]
        assert (limit["name"], limit["per"], limit["countedFor"]) == ("account", "account", "alice")
        assert limit["remaining"] == (2 if store == "redis" else None)
    for _ in range(2):
        assert (await bed.post(request("ping"), key=key)).status_code == 200
    told = await document(bed, tmp_path, *asked)
    if store == "redis":
        assert (told["refusal"]["rule"], told["refusal"]["detail"]) == ("limits", "account")
        assert 1 <= told["limits"][0]["retryAfter"] <= 60
    else:
        assert told["decision"] == "allowed"
        assert "known to the serving process alone" in told["notes"][0]
    today = (await bed.sidecar.keyring.usage("alice", f"key_{key[4:16]}")).days[-1]
    assert (today.requests, today.refused) == (2, 0)


async def test_a_revoked_token_is_found_out_though_it_was_never_seen(
    start: Start, store: StoreName, tmp_path: Path
) -> None:
    bed = await start(store)
    token = bed.token(jti="gone")
    file = tmp_path / "explain.yaml"
    file.write_text(config_text(bed.settings))
    revoke = ("tokens", "revoke", "--issuer", bed.issuer.url, "--jti", "gone", "--config", str(file))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "sidecar", *revoke, stdout=-3, stderr=-3)
    assert await process.wait() == 0
    told = await document(bed, tmp_path, "--credential-env", "T", "--body", json.dumps(request("ping")), T=token)
    assert told["refusal"]["reason"] == "token_revoked"


async def test_annotations_are_asked_of_the_upstream_unless_it_is_not_to_be_asked(
    start: Start, stub: StubUpstream, tmp_path: Path
) -> None:
    stub.answer = reply(200, TOOLS)
    bed = await start(**NO_LISTS, catalogue={"account": "ops"})
    who = ("--account", "alice", "--scopes", "mcp:read")
    found = {name: await document(bed, tmp_path, *who, "--tool", name) for name in ("get", "drop", "plain")}
    assert {name: (told["tool"]["class"], told["tool"]["because"]) for name, told in found.items()} == {
        "get": ("read", "annotation"),
        "drop": ("destructive", "annotation"),
        "plain": ("write", "default"),
    }
    assert [told["decision"] for told in found.values()] == ["allowed", "refused", "refused"]
    unknown = await document(bed, tmp_path, *who, "--tool", "get", "--no-upstream")
    assert (unknown["decision"], unknown["tool"]["because"]) == ("unknown", "unknown")
    assert "unknown until the catalogue is fetched" in unknown["notes"][-1]
    full = ("--account", "alice", "--scopes", "mcp:full")
    certain = await document(bed, tmp_path, *full, "--tool", "get", "--no-upstream")
    assert certain["decision"] == "allowed"


async def stored(bed: Bed, upstream: str) -> Pinned:
    store = await EmbeddedStore.open(bed.sidecar.config.store.sqlite_path or "", clock=time.time)
    try:
        return await store.pinned(upstream)
    finally:
        await store.aclose()


async def test_whether_a_tool_is_what_was_approved_is_asked_of_the_upstream_and_nothing_is_kept_of_it(
    start: Start, stub: StubUpstream, tmp_path: Path
) -> None:
    bed = await start(catalogue={"on_change": "block"})
    await bed.post_when_catalogued(tool_call("look"), token=bed.token())
    who = ("--account", "alice", "--scopes", "mcp:full")
    unknown = await document(bed, tmp_path, *who, "--tool", "look", "--no-upstream")
    assert unknown["decision"] == "unknown"
    assert "whether look is what was approved is unknown" in unknown["notes"][-1]
    upstream = upstream_id(stub.url, None)
    before = await stored(bed, upstream)
    stub.tools = [{**tool, "title": "changed"} if tool["name"] == "look" else tool for tool in stub.tools]
    changed = await document(bed, tmp_path, *who, "--tool", "look")
    assert (changed["decision"], changed["refusal"]["reason"]) == ("refused", "tool_unapproved")
    assert (await document(bed, tmp_path, *who, "--tool", "put"))["decision"] == "allowed"
    assert await stored(bed, upstream) == before


async def test_a_line_of_the_log_is_judged_again(start: Start, tmp_path: Path) -> None:
    bed = await start()
    key = await bed.key("mcp:read")
    for era in ("legacy", "modern"):
        await bed.post(tool_call("put"), key=key, era=era)
        line = json.dumps(bed.accesses()[-1]).encode()
        told = await document(bed, tmp_path, "--log-line", "-", stdin=line)
        assert (told["decision"], told["refusal"]["rule"], told["request"]["era"]) == ("refused", "scopes", era)
        assert (told["log"]["outcome"], told["log"]["reason"]) == ("insufficient_scope", "insufficient_scope")
    await bed.post(tool_call("put"), token=bed.token("mcp:read"))
    line = json.dumps(bed.accesses()[-1]).encode()
    code, _, errors = await explained(bed, tmp_path, "--log-line", "-", stdin=line)
    assert (code, "--scopes" in errors) == (2, True)
    told = await document(bed, tmp_path, "--log-line", "-", "--scopes", "mcp:full", stdin=line)
    assert told["decision"] == "allowed"
    assert told["log"]["detail"] == "needs mcp:full, has mcp:read"
    await bed.post(request("prompts/get", {"name": "p"}), key=key, era="modern")
    told = await document(bed, tmp_path, "--log-line", "-", stdin=json.dumps(bed.accesses()[-1]).encode())
    assert (told["decision"], told["action"]["method"]) == ("allowed", "prompts/get")
    await bed.post(request("ping"))
    told = await document(bed, tmp_path, "--log-line", "-", stdin=json.dumps(bed.accesses()[-1]).encode())
    assert (told["decision"], told["refusal"]["rule"]) == ("refused", "authentication")
    code, words, _ = await explained(bed, tmp_path, "--log-line", "-", stdin=json.dumps(bed.accesses()[-1]).encode())
    assert (code, "credential_missing" in words) == (1, True)


async def test_what_shadow_mode_lets_pass_is_told(start: Start, tmp_path: Path) -> None:
    bed = await start(mode={"scopes": "shadow"})
    told = await document(bed, tmp_path, "--account", "a", "--scopes", "mcp:read", "--tool", "put")
    assert (told["decision"], told["shadow"]) == ("allowed", "insufficient_scope/insufficient_scope")


async def test_nothing_is_made_where_there_is_nothing_yet(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("store: {url: 'sqlite:///kept/sidecar.db'}\n")
    command = (sys.executable, "-m", "sidecar", "explain", "--account", "a", "--tool", "x", "--no-upstream")
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=-3, stderr=-3)
    assert await process.wait() == 1
    assert os.listdir(tmp_path) == ["config.yaml"]


async def test_where_a_request_comes_from_counts(start: Start, tmp_path: Path) -> None:
    bed = await start(trusted_proxies=["203.0.113.7"])
    asked = ("--account", "a", "--body", json.dumps(request("ping")))
    near = await document(bed, tmp_path, *asked)
    far = await document(bed, tmp_path, *asked, "--client", "203.0.113.9")
    secure = ("--client", "203.0.113.7", "--header", "X-Forwarded-Proto: https", "--header", "X-Forwarded-For: 8.8.8.8")
    behind = await document(bed, tmp_path, *asked, *secure)
    assert [near["decision"], far["decision"], behind["decision"]] == ["allowed", "refused", "allowed"]
    assert (far["refusal"]["rule"], far["refusal"]["errorType"]) == ("require_https", "HTTPS_REQUIRED")


async def test_keys_of_an_issuer_that_cannot_be_had_are_no_verdict_on_the_token(start: Start, tmp_path: Path) -> None:
    bed = await start(jwt={"issuers": [{"issuer": "http://127.0.0.1:9"}]})
    bed.issuer.url, url = "http://127.0.0.1:9", bed.issuer.url
    token = bed.token()
    bed.issuer.url = url
    told = await document(bed, tmp_path, "--credential-env", "T", "--body", json.dumps(request("ping")), T=token)
    assert (told["refusal"]["errorType"], told["refusal"]["rule"]) == ("ISSUER_UNAVAILABLE", "authentication")
    assert "could not be had from here" in told["notes"][0]


async def test_what_only_the_serving_process_knows_and_how_a_route_refuses_is_noted(
    start: Start, tmp_path: Path
) -> None:
    bed = await start(routes=[{"path": "/mcp", "credentials": ["jwt"], "denials": "in_band"}])
    stream = await document(bed, tmp_path, "--account", "a", "--method", "GET")
    assert stream["decision"] == "allowed"
    assert "limits.streams" in stream["notes"][0]
    told = await document(bed, tmp_path, "--account", "a", "--tool", "put")
    assert (told["refusal"]["status"], "in band" in told["notes"][0]) == (200, True)


async def test_a_store_that_is_away_is_told_with_what_is_done_meanwhile(tmp_path: Path, start: Start) -> None:
    bed = await start()
    secret = tmp_path / "secret"
    secret.write_text("aWRlbnRpdHktc2lnbmluZy1zZWNyZXQtb2YtdGVzdHM=")
    keys = {"algorithm": "hmac-sha256", "keys": [{"id": "k", "secret_file": str(secret)}]}
    bed.settings = merged(bed.settings, {"store": {"url": "redis://127.0.0.1:9"}, "identity": keys})
    asked = ("--account", "a", "--body", json.dumps(request("ping")))
    told = await document(bed, tmp_path, *asked)
    assert told["decision"] == "allowed"
    assert "the store does not answer" in told["notes"][0]
    bed.settings = merged(bed.settings, {"limits": {"on_store_failure": "deny"}})
    told = await document(bed, tmp_path, *asked)
    assert (told["refusal"]["rule"], told["refusal"]["status"]) == ("store", 503)
    code, output, errors = await explained(bed, tmp_path, "--key", "key_4fJd81kQz0Xa", "--tool", "put")
    assert (code, output) == (1, "")
    assert "sidecar: " in errors


# The verdict is what then happens, whatever is asked by whom

HEADS: Final[tuple[tuple[str, ...], ...]] = (
    *((),) * 6,
    ("Host: evil.example",),
    ("Origin: https://evil.example",),
    ("Mcp-Session-Id: s-1",),
    ("X-API-Key: mcp_x", "X-API-Key: mcp_y"),
    ("MCP-Protocol-Version: a b",),
    ("Transfer-Encoding: gzip",),
    ("Upgrade: h2c",),
    ("Content-Encoding: gzip",),
    ("Bad Name: x",),
)
PATHS: Final = (*(JWT_ROUTE, KEY_ROUTE, "/both") * 3, "/nowhere", "/mcp?access_token=x", "/api/api-keys", "/mcp/")
METHODS: Final = (*("",) * 8, "PUT", "OPTIONS", "GET")
BODIES: Final = (*(None,) * 8, b"", b"[]", b"{", b'{"jsonrpc":"2.0","id":null,"method":"ping"}', b"x" * 5000)
asked = st.tuples(
    st.integers(0, 11),
    st.sampled_from(CALLED),
    *(st.sampled_from(choice) for choice in (PATHS, METHODS, HEADS, BODIES)),
)


class Beside:
    """A running sidecar, and the same questions put to it and to `explain`."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.lines: list[str] = []
        self.rules: set[str] = set()
        """By which something was refused."""

    async def prepare(self) -> None:
        bed = self.bed
        keys = [await bed.key(*scopes) for scopes in (("mcp:full",), ("mcp:read",), ("mcp:tools:call",), ("mcp:read",))]
        await bed.sidecar.keyring.revoke("alice", f"key_{keys[3][4:16]}")
        keys += [other_secret(keys[0], 7)]
        tokens = [bed.token(scope) for scope in ("mcp:full", "mcp:read", "mcp:tools:list", "openid")]
        tokens += [bed.token(exp=1), bed.token(aud="https://other.example"), "a.b.c"]
        self.lines = [f"X-API-Key: {key}" for key in keys] + [f"Authorization: Bearer {token}" for token in tokens]

    async def compare(
        self, who: int, call: Any, path: str, method: str, head: tuple[str, ...], body: bytes | None
    ) -> None:
        sent = (call.body if body is None else body) or b""
        method = method or call.method
        lines = ["Host: 127.0.0.1", *self.lines[who : who + 1], "Connection: close", *head]
        lines += [f"{name}: {value}" for name, value in call.lines]
        lines += ["Content-Type: application/json", f"Content-Length: {len(sent)}"] if sent or method == "POST" else []
        lines = lines[1:] if any(line.startswith("Host") for line in head) else lines
        raw = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + sent
        walk = await explaining.explain(self.bed.sidecar.config, Question(raw, "127.0.0.1"))
        if walk.decision != "allowed":
            self.rules.add(explanation.document(walk)["refusal"]["rule"])
        before = len(self.bed.accesses())
        answer = await self.bed.raw(raw)
        if walk.told["outcome"] == "bad_head":
            assert (walk.decision, answer.status) == ("refused", walk.told["status"])
            assert (len(self.bed.accesses()), self.bed.records()[-1]["outcome"]) == (before, "bad_head")
            return
        line = await self.line(before)
        if "store_unavailable" in (walk.told["outcome"], line["outcome"]):
            return  # Redis has 100 ms to answer, and a busy machine may take longer for either
        if walk.decision == "allowed":
            assert line["outcome"] == walk.told["outcome"]
            told = {name: walk.told.get(name) for name in ("account", "method", "shadow", "shadow_detail")}
            assert told == {name: line.get(name) for name in told}
            self.rules |= {f"shadow {told['shadow']}"}
        else:
            assert walk.decision == "refused"
            assert answer.status == walk.told["status"], (walk.told, line)
            told = {name: walk.told.get(name) for name in ("outcome", "reason", "detail", "account", "tool")}
            then = {name: line.get(name) for name in told}
            for each in (told, then):  # one comes after the other, perhaps in another second
                each["detail"] = re.sub(r"\d+ s\b", "N s", each["detail"] or "")
            assert told == then

    async def line(self, number: int) -> Told:
        async with asyncio.timeout(5):
            while len(self.bed.accesses()) <= number:  # noqa: ASYNC110 - the log can only be read
                await asyncio.sleep(0.005)
        return self.bed.accesses()[number]


@pytest.fixture(params=["enforce", "shadow"])
def beside(tmp_path: Path, redis_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[asyncio.Runner, Beside]]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def begin() -> Beside:
            stub = await stack.enter_async_context(StubUpstream().running())
            issuer = DevIssuer(algorithm="ES256")
            await issuer.start()
            stack.push_async_callback(issuer.stop)
            secret = tmp_path / "identity.key"
            secret.write_text("aWRlbnRpdHktc2lnbmluZy1zZWNyZXQtb2YtdGVzdHM=")
            routes = [
                {"path": JWT_ROUTE, "credentials": ["jwt"]},
                {"path": KEY_ROUTE, "credentials": ["api_key"], "denials": "in_band"},
                {"path": "/both", "credentials": ["jwt", "api_key"]},
            ]
            limits = [account(60, 3600), {"name": "writes", "requests": 6, "window_s": 3600, "effect": "write"}]
            changes = {
                "store": {"url": redis_url},
                "identity": {"algorithm": "hmac-sha256", "keys": [{"id": "t", "secret_file": str(secret)}]},
                "routes": routes,
                "max_body_bytes": 4096,
                "limits": {"policies": limits},
                "mode": {"scopes": request.param, "limits": request.param},
                "confirmation": {"tools": "never"},
                "access": {"tools": {"read": ["get"], "write": [], "destructive": ["drop*", "put", "nobody_knows"]}},
            }
            known = merged(base_settings(issuer.url, stub.url, tmp_path / "unused.db"), changes)
            made = Beside(await start_bed(stack, known, issuer))
            await made.prepare()
            return made

        yield runner, runner.run(begin())
        runner.run(stack.aclose())


def test_the_verdict_is_what_the_running_sidecar_then_does(beside: tuple[asyncio.Runner, Beside]) -> None:
    runner, both = beside

    # Not shrunk: what was spent by then makes every example another one.
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(one=asked)
    def same(one: tuple[Any, ...]) -> None:
        runner.run(both.compare(*one))

    same()
    for _ in range(61):
        runner.run(both.compare(0, PING, KEY_ROUTE, "", (), None))
    enforced = {"scopes", "limits"}
    shadowed = {"shadow insufficient_scope/insufficient_scope", "shadow rate_limit_exceeded/rate_limited"}
    assert both.rules >= {"authentication", "message", "routes"}
    assert both.rules >= enforced or both.rules >= shadowed


async def test_as_a_key_or_as_a_principal_is_as_with_its_credential(start: Start) -> None:
    bed = await start()
    key = await bed.key("mcp:read")
    for tool in ("look", "put"):
        body = json.dumps(tool_call(tool)).encode()
        verdicts = []
        for presented, who in (
            (key, None),
            ("x", AsKey(f"key_{key[4:16]}")),
            ("x", AsPrincipal("alice", ("mcp:read",), "api_key")),
        ):
            head = f"POST {KEY_ROUTE} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {presented}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            walk = await explaining.explain(bed.sidecar.config, Question(head.encode() + body, "127.0.0.1", who))
            verdicts.append((walk.decision, walk.told["outcome"], walk.told["reason"], walk.told["account"]))
        assert len(set(verdicts)) == 1
