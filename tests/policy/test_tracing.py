"""What does a trace tell of a request, and whose trace does it belong to?"""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.denials import (
    BadGateway,
    Denial,
    DroppedNotification,
    GatewayTimeout,
    InvalidJson,
    InvalidToken,
    NotConfirmed,
    StoreUnavailable,
    UnknownMethod,
)
from sidecar.model import Action
from sidecar.policy import tracing
from sidecar.policy.redaction import REDACTED
from tests.policy.facts import facts

TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
ELSE = f"00-{OTHER}-b7ad6b7169203331-00"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
KEY = "mcp_" + "k" * 46
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
MODERN = ("MCP-Protocol-Version", "2026-07-28")


def call(tool: str = "get-weather", **meta: Any) -> Action:
    return Action("request", "tools/call", 7, tool, {"name": tool, "arguments": {"city": "secret"}, "_meta": meta})


@pytest.mark.parametrize(
    "traceparent",
    [
        PARENT,
        PARENT[:-2] + "00",
        PARENT[:-2] + "ff",
        f"01-{TRACE}-00f067aa0ba902b7-01",
        f"01-{TRACE}-00f067aa0ba902b7-01-what-comes-later",
        f"fe-{TRACE}-00f067aa0ba902b7-01-",
    ],
)
def test_the_trace_that_the_client_is_in_goes_on(traceparent: str) -> None:
    parent, linked = tracing.callers(facts(("traceparent", traceparent), ("tracestate", STATE)), None)
    assert parent == {"traceparent": traceparent, "tracestate": STATE}
    assert linked == {}


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT[:-1],
        PARENT + "-more",
        PARENT + " ",
        PARENT + "\n",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"0-{TRACE}-00f067aa0ba902b7-01",
        f"01-{TRACE}-00f067aa0ba902b7-01.more",
        f"01-{TRACE}-00f067aa0ba902b7-01-" + "a" * 512,
        PARENT.replace("-", "_"),
        "\u0660" + PARENT[1:],
    ],
)
def test_a_malformed_trace_is_none_and_takes_its_state_with_it(traceparent: str) -> None:
    """W3C Trace Context, sections 3.2.2 and 4.3."""
    lines = {"traceparent": traceparent, "tracestate": STATE}
    assert tracing.callers(facts(), call(**lines)) == ({}, {})
    if traceparent.isascii():
        assert tracing.callers(facts(*lines.items()), None) == ({}, {})


def test_a_trace_that_is_named_twice_is_none() -> None:
    assert tracing.callers(facts(("traceparent", PARENT), ("traceparent", PARENT)), None) == ({}, {})


@pytest.mark.parametrize("state", ["", "a" * 513, "a=\u00e9", "a=b\nc: d", None, 7])
def test_a_state_that_is_no_header_is_left_out(state: object) -> None:
    parent, _ = tracing.callers(facts(), call(traceparent=PARENT, tracestate=state))
    assert parent == {"traceparent": PARENT}


def test_the_message_names_the_parent_and_the_headers_the_link() -> None:
    """Semantic conventions for MCP, "Context propagation"."""
    by_http = facts(("traceparent", ELSE), ("tracestate", STATE))
    assert tracing.callers(by_http, call(traceparent=PARENT)) == (
        {"traceparent": PARENT},
        {"traceparent": ELSE, "tracestate": STATE},
    )
    assert tracing.callers(facts(), call(traceparent=PARENT)) == ({"traceparent": PARENT}, {})


def test_one_trace_named_in_both_places_is_no_link() -> None:
    assert tracing.callers(facts(("traceparent", PARENT)), call(traceparent=PARENT)) == ({"traceparent": PARENT}, {})


@pytest.mark.parametrize("meta", [None, 3, "x", [PARENT], {}, {"traceparent": 1}, {"traceparent": [PARENT]}])
def test_the_headers_name_the_parent_where_the_message_does_not(meta: object) -> None:
    action = Action("request", "ping", 1, params={"_meta": meta})
    assert tracing.callers(facts(("traceparent", PARENT)), action) == ({"traceparent": PARENT}, {})


def test_the_upstream_gets_our_trace_in_the_place_of_the_clients() -> None:
    lines = ((b"traceparent", b"a"), (b"Accept", b"*/*"), (b"tracestate", b"b"), (b"baggage", b"c=d"))
    sent = tracing.retraced(lines, {"traceparent": PARENT, "tracestate": STATE})
    assert sent == (
        (b"Accept", b"*/*"),
        (b"baggage", b"c=d"),
        (b"traceparent", PARENT.encode()),
        (b"tracestate", STATE.encode()),
    )


def test_without_a_trace_of_ours_the_clients_goes_on_unchanged() -> None:
    lines = ((b"traceparent", b"a"), (b"tracestate", b"b"))
    assert tracing.retraced(lines, {}) is lines


@pytest.mark.parametrize(
    ("action", "label", "method", "name"),
    [
        (call(), "/mcp", "POST", "tools/call get-weather"),
        (Action("request", "prompts/get", 1, params={"name": "greet"}), "/mcp", "POST", "prompts/get greet"),
        (Action("request", "prompts/get", 1, params={"name": 5}), "/mcp", "POST", "prompts/get"),
        (Action("request", "prompts/get", 1, params={"name": "a\nb"}), "/mcp", "POST", "prompts/get"),
        (Action("request", "prompts/get", 1, params={"name": "a" * 257}), "/mcp", "POST", "prompts/get"),
        (Action("request", "resources/read", 1, params={"uri": "file:///alice"}), "/mcp", "POST", "resources/read"),
        (Action("notification", "notifications/initialized"), "/mcp", "POST", "notifications/initialized"),
        (Action("response", id=4), "/mcp", "POST", "POST /mcp"),
        (Action("stream"), "/mcp", "GET", "GET /mcp"),
        (Action("end_session"), "/mcp", "DELETE", "DELETE /mcp"),
        (Action("manage", "GET"), "/api/api-keys", "GET", "GET /api/api-keys"),
        (None, "/mcp", "POST", "POST /mcp"),
        (None, "other", "GET", "GET"),
        (None, "other", "BREW", "HTTP"),
        (None, "/mcp", "BREW", "HTTP /mcp"),
    ],
)
def test_a_span_is_named_by_what_was_judged(action: Action | None, label: str, method: str, name: str) -> None:
    assert tracing.span_name(facts(method=method), label, action) == name


def test_a_call_is_told_of_without_its_arguments() -> None:
    said = tracing.of_message(facts(MODERN, ("Authorization", "Bearer x")), call(), "session-1")
    assert said == {
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "mcp.protocol.version": "2026-07-28",
        "mcp_sidecar.session": "84097828fc31a8c8",
        "mcp.method.name": "tools/call",
        "jsonrpc.request.id": "7",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "get-weather",
    }


@pytest.mark.parametrize("credential", [KEY, TOKEN])
def test_no_credential_is_told_that_a_client_gave_as_a_name_an_id_or_a_state(credential: str) -> None:
    named, cut = f"a {credential} b", "a" * 230 + credential
    for action in (
        Action("request", "tools/call", named, named, {"name": named}),
        Action("request", "tools/call", cut, cut, {"name": cut}),
        Action("request", "prompts/get", named, params={"name": named}),
        Action("request", named, named),
        Action("notification", f"notifications/{named}"),
    ):
        said = f"{tracing.span_name(facts(), '/mcp', action)} {tracing.of_message(facts(), action, named)}"
        assert credential[4:20] not in said
        assert REDACTED in said
    by_http = facts(("traceparent", PARENT), ("tracestate", f"a=b,c={credential}"))
    assert tracing.callers(by_http, None) == ({"traceparent": PARENT}, {})
    by_message = call(traceparent=PARENT, tracestate=f"a={credential}")
    assert tracing.callers(facts(), by_message) == ({"traceparent": PARENT}, {})


def test_a_session_is_told_from_others_by_what_opens_none() -> None:
    told = [tracing.of_message(facts(), None, session)["mcp_sidecar.session"] for session in ("one", "one", "two")]
    assert told[0] == told[1] != told[2]
    assert "mcp_sidecar.session" not in tracing.of_message(facts(("Mcp-Session-Id", "one")), None, None)


def test_a_prompt_is_named_and_a_resource_is_not() -> None:
    prompt = Action("request", "prompts/get", "a" * 300, params={"name": "greet"})
    said = tracing.of_message(facts(), prompt, None)
    assert (said["gen_ai.prompt.name"], said["jsonrpc.request.id"]) == ("greet", "a" * 256)
    resource = Action("request", "resources/read", 1, params={"uri": "file:///alice"})
    assert "alice" not in str(tracing.of_message(facts(), resource, None))


@pytest.mark.parametrize("version", ["", "2026-07-2", "1; x", "latest"])
def test_a_version_that_is_none_is_not_told(version: str) -> None:
    assert "mcp.protocol.version" not in tracing.of_message(facts(("MCP-Protocol-Version", version)), None, None)


def test_a_notification_has_a_method_and_no_id() -> None:
    said = tracing.of_message(facts(), Action("notification", "notifications/initialized"), None)
    assert said["mcp.method.name"] == "notifications/initialized"
    assert "jsonrpc.request.id" not in said


@pytest.mark.parametrize("action", [None, Action("stream"), Action("manage", "GET"), Action("response", id=3)])
def test_what_is_no_request_has_no_method_of_mcp(action: Action | None) -> None:
    said = tracing.of_message(facts(), action, None)
    assert said == {"network.transport": "tcp", "network.protocol.name": "http"}


def test_a_request_is_told_of_by_its_route_and_never_by_its_path() -> None:
    assert tracing.of_request(facts(method="POST", path="/mcp", query="q=1"), "/mcp") == {
        "http.request.method": "POST",
        "http.route": "/mcp",
        "mcp_sidecar.request_id": "request-1",
        "mcp_sidecar.era": "legacy",
    }
    said = tracing.of_request(facts(method="BREW", path="/alice"), "other")
    assert said["http.request.method"] == "_OTHER"
    assert "alice" not in str(said)


@pytest.mark.parametrize(
    ("url", "socket", "said"),
    [
        ("http://127.0.0.1:3000/mcp", None, {"server.address": "127.0.0.1", "server.port": 3000}),
        ("https://up.example/mcp?key=1", None, {"server.address": "up.example", "server.port": 443}),
        ("http://[::1]/mcp", None, {"server.address": "::1", "server.port": 80}),
        ("http://up/mcp", "/run/up", {"server.address": "/run/up", "network.transport": "unix"}),
    ],
)
def test_a_leg_says_where_it_leads(url: str, socket: str | None, said: dict[str, object]) -> None:
    assert tracing.of_place(url, socket) == said


@pytest.mark.parametrize(
    ("denial", "lines", "said", "error"),
    [
        (InvalidToken("expired"), (), {"error.type": "expired", "rpc.response.status_code": "401"}, "INVALID_TOKEN"),
        (InvalidJson("json"), (MODERN,), {"error.type": "json", "rpc.response.status_code": "-32700"}, None),
        (InvalidJson("json"), (), {"error.type": "json", "rpc.response.status_code": "400"}, None),
        (UnknownMethod("unknown_method"), (), {"rpc.response.status_code": "-32601"}, "NOT_FOUND"),
    ],
)
def test_a_refusal_is_an_error_by_its_reason(
    denial: Denial, lines: tuple[tuple[str, str], ...], said: dict[str, str], error: str | None
) -> None:
    told, wrong = tracing.of_end(facts(*lines), "refused", denial.reason, 200, denial)
    assert said.items() <= told.items()
    assert wrong == (error or "INVALID_REQUEST")
    assert (told["mcp_sidecar.outcome"], told["mcp_sidecar.reason"]) == ("refused", denial.reason)
    assert told["http.response.status_code"] == 200


@pytest.mark.parametrize(
    ("status", "denial", "error"),
    [
        (200, None, None),
        (404, None, None),
        (None, None, None),
        (500, None, ""),
        (202, DroppedNotification("notification_unknown"), None),
        (200, NotConfirmed("awaits_confirmation", "Ask again when somebody has"), None),
    ],
)
def test_of_what_was_answered_only_a_5xx_is_an_error(
    status: int | None, denial: Denial | None, error: str | None
) -> None:
    told, wrong = tracing.of_end(facts(), "forwarded", None, status, denial)
    assert wrong == error
    assert ("error.type" in told) == (error is not None)
    assert told.get("http.response.status_code") == status


@pytest.mark.parametrize(
    ("status", "denial", "told", "error"),
    [
        (200, None, {"http.response.status_code": 200}, None),
        (None, None, {}, None),
        (404, None, {"http.response.status_code": 404, "error.type": "404"}, ""),
        (None, BadGateway("upstream_refused"), {"error.type": "upstream_refused"}, "UPSTREAM_UNAVAILABLE"),
        (None, GatewayTimeout("upstream_timeout"), {"error.type": "upstream_timeout"}, "UPSTREAM_TIMEOUT"),
        (200, StoreUnavailable("store"), {"http.response.status_code": 200}, None),
    ],
)
def test_the_upstreams_leg_fails_by_what_the_upstream_does(
    status: int | None, denial: Denial | None, told: dict[str, object], error: str | None
) -> None:
    assert tracing.of_answer(status, denial) == (told, error)
