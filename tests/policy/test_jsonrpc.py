"""One message per body, read as every upstream would read it."""

from __future__ import annotations

import json
from typing import Any

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import Denial, HeaderMismatch, InvalidParams, InvalidRequest
from sidecar.model import Action
from sidecar.policy import jsonrpc
from tests.policy.facts import facts


def body(**members: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def action(raw: bytes, era: Any = "legacy") -> Action:
    return jsonrpc.action(jsonrpc.parse(raw), era)


def test_a_tool_call_names_its_tool() -> None:
    asked = action(body(id="a", method="tools/call", params={"name": "get balance é", "arguments": {"n": 1}}))

    assert (asked.kind, asked.method, asked.id, asked.tool) == ("request", "tools/call", "a", "get balance é")


def test_other_methods_have_no_tool() -> None:
    assert action(body(id=1, method="prompts/get", params={"name": "p"})).tool is None


def test_a_notification_has_no_id() -> None:
    assert action(body(method="notifications/initialized")).kind == "notification"


def test_a_notification_with_an_id_is_a_request() -> None:
    assert action(body(method="notifications/initialized", id=1)).kind == "request"


@pytest.mark.parametrize("members", [{"result": {}}, {"error": {"code": 1, "message": "no"}}])
def test_a_response_has_no_method_and_belongs_to_the_legacy_era(members: Any) -> None:
    assert action(body(id=0, **members)) == Action("response", id=0)
    with pytest.raises(InvalidRequest):
        action(body(id=0, **members), "modern")


def test_null_params_are_no_params() -> None:
    assert action(body(id=1, method="ping", params=None)).params == {}


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "1.0", "id": 1, "method": "ping"},
        {"id": 1, "method": "ping"},
        {"jsonrpc": 2.0, "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0"},
        {"jsonrpc": "2.0", "method": "ping"},
        {"jsonrpc": "2.0", "id": None, "method": "ping"},
        {"jsonrpc": "2.0", "id": None, "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": True, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1.0, "method": "ping"},
        {"jsonrpc": "2.0", "id": [1], "method": "ping"},
        {"jsonrpc": "2.0", "id": 2**53, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "method": None},
        {"jsonrpc": "2.0", "id": 1, "method": ""},
        {"jsonrpc": "2.0", "id": 1, "method": 7},
        {"jsonrpc": "2.0", "id": 1, "method": "a" * 257},
        {"jsonrpc": "2.0", "id": 1, "method": "ping\n"},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "result": {}},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "error": {}},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": "x"},
        {"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}},
        {"jsonrpc": "2.0", "id": 1, "result": {}, "params": {}},
        {"jsonrpc": "2.0", "result": {}},
        {"jsonrpc": "2.0", "id": None, "result": {}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": None}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": ["delete"]}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": ""}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a" * 257}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a\u0000b"}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a\u0085b"}},
        {"jsonrpc": "2.0", "id": 1, "Method": "tools/call", "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "METHOD": "tools/call"},
        {"jsonrpc": "2.0", "id": 1, "method\u0000": "tools/call", "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "param\u017f": {}},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", " id": 2},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "Name": "b"}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "\uff4eame": "b"}},
        {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": "a", "taskid": "b"}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "Arguments": {}}},
        {"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"ref": {"type": "ref/resource", "Type": "ref/prompt"}}},
        {"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"notifications": {"toolslistchanged": True}}},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "meth\u200bod": "tools/call"},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "_id": 2},
        {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": "a", "task_id": "b"}},
        {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": "a", "task-id": "b"}},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"meta": {}}},
        {"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"notifications": {"task_ids": ["a"]}}},
        {"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"notifications": {"resource_subscriptions": []}}},
        {"jsonrpc": "2.0", "id": 1, "result": {}, "__proto__": {"method": "tools/call"}},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "\u005f_proto__": None},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a", "__proto__": {"name": "b"}}},
        {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"__proto__": {}}}},
        {"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"ref": {"__proto__": {"type": "ref/prompt"}}}},
        {"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"notifications": {"__proto__": {"taskIds": ["a"]}}}},
        [],
        [{"jsonrpc": "2.0", "id": 1, "method": "ping"}],
        "ping",
        1,
        None,
        True,
    ],
)
def test_what_is_not_one_unambiguous_message_is_refused(message: Any) -> None:
    with pytest.raises(InvalidRequest):
        action(json.dumps(message).encode())


def test_a_missing_tool_name_is_a_matter_of_parameters() -> None:
    with pytest.raises(InvalidParams):
        action(body(id=1, method="tools/call", params={}))


def test_unknown_members_are_nobodys_business() -> None:
    members = {"name": "a", "_meta": {"x": 1, "Task_Id": 2}, "arguments": {"Name": 1, "__proto__": {}}}
    vendors = {"vendorThing": 2, "vendor_thing": 3, "n\u00e4me": 4, "\ufdfa" * 65: 5}
    asked = action(body(id=1, method="tools/call", params=members | vendors, extra=1, **{"x" * 300: 1}))

    assert asked.params == members | vendors


def member_names(ending: str) -> list[tuple[str, list[str]]]:
    """Return the members that the specification's types with such names have on the wire."""
    types = {
        name: each for name, each in vars(mcp_types).items() if name.endswith(ending) and hasattr(each, "model_fields")
    }
    return [(name, [field.alias or own for own, field in each.model_fields.items()]) for name, each in types.items()]


@pytest.mark.parametrize("members", [pytest.param(names, id=name) for name, names in member_names("Params")])
def test_no_member_of_the_specification_is_taken_for_another(members: list[str]) -> None:
    params = dict.fromkeys(members) | {"name": "a"}
    if "_meta" in params:
        params["_meta"] = dict.fromkeys(("progressToken", "io.modelcontextprotocol/clientInfo", "traceparent"), 1)

    assert action(body(id=1, method="tools/call", params=params)).params == params


def test_no_filter_of_the_specification_is_taken_for_another() -> None:
    [(_, filters)] = member_names("SubscriptionFilter")
    params = {"notifications": dict.fromkeys(filters, True)}

    assert action(body(id=1, method="subscriptions/listen", params=params)).params == params


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (body(id=7, method="ping"), (7, "request")),
        (body(id="x", method="ping"), ("x", "request")),
        (body(id=7, result={}), (7, "response")),
        (body(method="notifications/initialized"), (None, "notification")),
        (body(id=None, method="ping"), (None, "request")),
        (body(id=1.5, method="ping"), (None, "request")),
        (body(id=7), (7, None)),
        (body(id=7, error={}), (7, "response")),
        (b'{"id":1,"id":2,"method":"ping"}', (None, None)),
        (b'[{"id":1}]', (None, None)),
        (b"", (None, None)),
        (b"\xff", (None, None)),
    ],
)
def test_a_glance_finds_the_id_and_the_kind_of_one_strict_object_and_nothing_else(raw: bytes, expected: Any) -> None:
    assert jsonrpc.glance(raw) == expected


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_give_an_action_or_a_denial(raw: bytes) -> None:
    try:
        action(raw)
    except Denial:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
members = st.dictionaries(
    st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "Method", "x"]),
    json_values | st.sampled_from(["2.0", "tools/call", "ping", {"name": "t"}, {"name": 3}]),
)


@given(members, st.sampled_from(["legacy", "modern"]))
def test_any_json_object_gives_an_action_or_a_denial(message: Any, era: Any) -> None:
    try:
        asked = action(json.dumps(message).encode(), era)
    except Denial:
        return

    assert asked.method == message.get("method", "")
    assert (asked.tool is not None) == (asked.method == "tools/call")


@pytest.mark.parametrize(
    ("version", "era"),
    [
        (None, "legacy"),
        ("2024-11-05", "legacy"),
        ("2025-11-25", "legacy"),
        ("2026-07-27", "legacy"),
        ("2026-07-28", "modern"),
        ("2027-01-01", "modern"),
        ("DRAFT-2026-v1", "legacy"),
        ("2026-07-28 ", "legacy"),
        ("2026-07-28, 2026-07-28", "legacy"),
        ("\uff19\uff19\uff19\uff19-07-28", "legacy"),
        ("", "legacy"),
    ],
)
def test_the_header_alone_tells_the_era(version: str | None, era: str) -> None:
    assert jsonrpc.era_of(version) == era


MODERN = ("MCP-Protocol-Version", "2026-07-28")


def agree(message: dict[str, Any], *lines: tuple[str, str]) -> None:
    asked = facts(*lines)
    jsonrpc.require_agreement(asked, action(json.dumps({"jsonrpc": "2.0", "id": 1, **message}).encode(), asked.era))


CALL = {"method": "tools/call", "params": {"name": "add"}}
UMLAUT = {"method": "tools/call", "params": {"name": "ädd"}}


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Name", "add"))),
        (CALL, (("mcp-method", "tools/call"), ("MCP-NAME", "=?base64?YWRk?="))),
        (UMLAUT, (("Mcp-Method", "tools/call"), ("Mcp-Name", "=?base64?w6RkZA==?="))),
        ({"method": "tools/list"}, (("Mcp-Method", "tools/list"),)),
        (
            {"method": "resources/read", "params": {"uri": "x:y"}},
            (("Mcp-Method", "resources/read"), ("Mcp-Name", "x:y")),
        ),
        ({"method": "tasks/get", "params": {"taskId": "t"}}, (("Mcp-Method", "tasks/get"), ("Mcp-Name", "t"))),
        (
            {"method": "ping", "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}},
            (("Mcp-Method", "ping"),),
        ),
    ],
)
def test_headers_that_say_what_the_body_says_pass(message: Any, lines: Any) -> None:
    agree(message, MODERN, *lines)


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        (CALL, ()),
        (CALL, (("Mcp-Method", "tools/call"),)),
        (CALL, (("Mcp-Name", "add"),)),
        (CALL, (("Mcp-Method", "tools/list"), ("Mcp-Name", "add"))),
        (CALL, (("Mcp-Method", "Tools/call"), ("Mcp-Name", "add"))),
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Name", "Add"))),
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Name", "=?base64?YWRk?"))),
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Name", "=?base64?YWR?="))),
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Name", "=?base64?YWRl?="))),
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Name", "=?base64?/w==?="))),
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Name", "=?base64?YWRkYR==?="))),
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "add"))),
        (CALL, (("Mcp-Method", "tools/call"), ("Mcp-Name", "add"), ("mcp-name", "add"))),
        (
            {"method": "ping", "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2025-11-25"}}},
            (("Mcp-Method", "ping"),),
        ),
    ],
)
def test_modern_headers_that_differ_from_the_body_are_refused(message: Any, lines: Any) -> None:
    """MCP 2026-07-28, streamable HTTP, "Server Validation"; decoding as the official SDK does."""
    with pytest.raises(HeaderMismatch):
        agree(message, MODERN, *lines)


def test_a_legacy_message_may_carry_modern_headers_that_nobody_reads() -> None:
    agree(CALL, ("Mcp-Method", "tools/list"), ("Mcp-Name", "other"))


def test_a_body_that_says_it_is_modern_needs_the_header_to_say_so_too() -> None:
    """The upstream may go by the one or by the other."""
    message = {"method": "ping", "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}}
    with pytest.raises(HeaderMismatch):
        agree(message)
    with pytest.raises(HeaderMismatch):
        agree(message, ("MCP-Protocol-Version", "2025-11-25"))


@pytest.mark.parametrize("name", ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version", "Mcp-Session-Id"])
def test_doubled_routing_headers_are_refused_in_either_era(name: str) -> None:
    with pytest.raises(HeaderMismatch):
        agree(CALL, (name, "x"), (name, "x"))


def test_a_modern_notification_needs_no_method_header() -> None:
    asked = facts(MODERN)

    jsonrpc.require_agreement(asked, action(body(method="notifications/cancelled"), "modern"))
