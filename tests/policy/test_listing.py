"""A caller sees of a list what it may call, and what it sees is as the upstream wrote it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import BadGateway, InsufficientScope, UpstreamNotReady
from sidecar.model import SCOPES, Action, CredentialKind, JsonRpcId, Principal, ToolClass
from sidecar.policy import access
from sidecar.policy.listing import (
    MAX_ENTRIES,
    FilterPolicy,
    ListAnswer,
    ListKind,
    body_form,
    filters,
    is_readable,
    visible_tools,
)

CLASSES: dict[str, ToolClass] = {"get": "read", "list": "read", "set": "write", "drop": "destructive"}
NUMBERS = (
    b'{"maximum":18446744073709551616,"minimum":-0,"multipleOf":1.000000000000000005,"x":[1e400,-1E-400,0.10,1e0]}'
)
TOOLS = (
    b'{ "jsonrpc" : "2.0", "x-top": [1.0, {}], "result": {"_meta": {"a\\u00e9\\/": null},\r\n'
    b' "tools": [ {"name": "get", "inputSchema": ' + NUMBERS + b', "vendor": {"k": ["\\u2028\xe2\x80\xa8"]}} ,\n'
    b'  {"name":"drop"}, {"inputSchema":'
    + NUMBERS
    + b',"name":"s\\u0065t"}], "nextCursor" : "p2", "more": -0 } , "id":7 }'
)


def principal(*scopes: str, kind: CredentialKind = "api_key") -> Principal:
    return Principal("acct", "subject", kind, "credential", scopes, 0, 0)


def listed(message: bytes, message_id: JsonRpcId | None = 7, kind: ListKind = "tools") -> ListAnswer:
    answer = ListAnswer.parse(message, message_id, kind)
    assert answer is not None
    return answer


def answer(result: bytes, message_id: bytes = b"7") -> bytes:
    return b'{"jsonrpc":"2.0","id":' + message_id + b',"result":' + result + b"}"


def parsed(message: bytes) -> Any:
    """Read JSON with the text of every number, since no value holds them all."""
    return json.loads(message, parse_int=lambda text: f"#{text}", parse_float=lambda text: f"#{text}")


# What a caller may see


@pytest.mark.parametrize(
    ("scopes", "visible"),
    [
        ((), set()),
        (("mcp:full",), {"get", "list", "set", "drop"}),
        (("mcp:read",), {"get", "list"}),
        (("mcp:tools:call",), {"get", "list"}),
        (("mcp:tools:list",), {"get", "list"}),
        (("mcp:resources:read",), set()),
        (("mcp:resources:read", "mcp:tools:list"), {"get", "list"}),
        (("mcp:read", "mcp:full"), {"get", "list", "set", "drop"}),
        (("mcp:admin", "MCP:FULL"), set()),
    ],
)
def test_every_scope_sees_the_tools_of_the_table(scopes: tuple[str, ...], visible: set[str]) -> None:
    assert visible_tools(principal(*scopes), CLASSES, CLASSES.__getitem__) == visible


@given(st.sets(st.sampled_from(SCOPES)))
def test_what_is_seen_is_what_may_be_called_and_listing_alone_shows_what_reading_does(scopes: set[str]) -> None:
    def may_call(tool: str) -> bool:
        held = scopes | {"mcp:read"} if "mcp:tools:list" in scopes else scopes
        try:
            access.authorize(principal(*held), Action("request", "tools/call", 1, tool), CLASSES[tool])
        except InsufficientScope:
            return False
        return True

    assert visible_tools(principal(*scopes), CLASSES, CLASSES.__getitem__) == {t for t in CLASSES if may_call(t)}


def test_a_tool_of_no_known_class_is_a_write() -> None:
    assert visible_tools(principal("mcp:read"), ["get", "new"], CLASSES.get) == {"get"}


def test_who_may_do_everything_sees_everything_also_before_the_catalogue_is_there() -> None:
    def not_ready(tool: str) -> ToolClass:
        raise UpstreamNotReady("catalogue_missing")

    assert visible_tools(principal("mcp:full"), ["a", "b"], not_ready) == {"a", "b"}
    with pytest.raises(UpstreamNotReady):
        visible_tools(principal("mcp:read"), ["a"], not_ready)


@pytest.mark.parametrize(
    ("policy", "kind", "expected"),
    [
        ("keys", "api_key", True),
        ("keys", "jwt", False),
        ("all", "api_key", True),
        ("all", "jwt", True),
        ("none", "api_key", False),
        ("none", "jwt", False),
    ],
)
def test_the_operator_says_whose_lists_are_filtered(policy: FilterPolicy, kind: CredentialKind, expected: bool) -> None:
    assert filters(policy, principal("mcp:full", kind=kind)) is expected


# What is left of a list


def test_what_is_kept_is_kept_to_the_byte() -> None:
    answer = listed(TOOLS)

    assert answer.names == ("get", "drop", "set")
    assert answer.keep({"get", "set"}, era="legacy") == TOOLS.replace(b' ,\n  {"name":"drop"}, ', b",").replace(
        b"[ {", b"[{"
    )


@pytest.mark.parametrize("visible", [set(), {"get"}, {"drop"}, {"get", "set"}, {"set", "drop", "get"}, {"other"}])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_only_entries_go_and_numbers_order_and_unknown_members_stay(visible: set[str], era: Any) -> None:
    expected = parsed(TOOLS)
    expected["result"]["tools"] = [tool for tool in expected["result"]["tools"] if tool["name"] in visible]
    if era == "modern":
        expected["result"]["cacheScope"] = "private"

    kept = listed(TOOLS).keep(visible, era=era)

    assert parsed(kept) == expected
    assert [list(tool) for tool in parsed(kept)["result"]["tools"]] == [
        list(tool) for tool in expected["result"]["tools"]
    ]


def test_numbers_that_no_double_holds_survive() -> None:
    kept = listed(TOOLS).keep({"get"}, era="modern")

    assert NUMBERS in kept
    assert b'"more": -0 ' in kept


def test_a_list_of_which_nothing_is_hidden_is_the_very_same_message() -> None:
    assert listed(TOOLS).keep({"get", "set", "drop"}, era="legacy") is TOOLS
    private = answer(b'{"tools":[],"cacheScope":"priv\\u0061te"}')
    assert listed(private).keep((), era="modern") is private
    assert listed(private).keep((), era="legacy") is private


@pytest.mark.parametrize("scope", [b'"public"', b'"Private"', b"null", b"1", b'{"a":[]}', b'["private"]'])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_cache_scope_becomes_private_wherever_it_stands(scope: bytes, era: Any) -> None:
    for before, after in ((b'"cacheScope": ' + scope + b" ,", b""), (b"", b', "c\\u0061cheScope":' + scope)):
        message = answer(b"{" + before + b'"tools":[{"name":"a"},{"name":"b"}]' + after + b"}")

        everything = parsed(listed(message).keep({"a", "b"}, era=era))["result"]
        something = parsed(listed(message).keep({"b"}, era=era))["result"]

        assert everything == {"tools": [{"name": "a"}, {"name": "b"}], "cacheScope": "private"}
        assert something == {"tools": [{"name": "b"}], "cacheScope": "private"}


def test_only_the_modern_era_is_told_of_a_cache_scope_that_was_not_there() -> None:
    message = answer(b'{"tools":[],"ttlMs":5}')

    assert listed(message).keep((), era="legacy") is message
    assert listed(message).keep((), era="modern") == answer(b'{"tools":[],"cacheScope":"private","ttlMs":5}')


def test_tasks_are_known_by_their_ids() -> None:
    message = answer(b'{"tasks":[{"taskId":"t-1","name":"x"},{"name":"t-1","taskId":"t-2"}],"tools":1}')
    answer_ = listed(message, kind="tasks")

    assert answer_.names == ("t-1", "t-2")
    assert answer_.keep({"t-2"}, era="legacy") == answer(b'{"tasks":[{"name":"t-1","taskId":"t-2"}],"tools":1}')


def test_two_tools_of_one_name_share_its_fate() -> None:
    message = answer(b'{"tools":[{"name":"a","v":1},{"name":"b"},{"name":"a","v":2}]}')

    assert listed(message).names == ("a", "b", "a")
    assert parsed(listed(message).keep({"a"}, era="legacy"))["result"]["tools"] == [
        {"name": "a", "v": "#1"},
        {"name": "a", "v": "#2"},
    ]


texts = st.text(alphabet=st.sampled_from('ab"\\/\u2028é😀\x7f{}[]:,'), max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
members = st.dictionaries(texts.map(lambda text: f"x-{text}"), values, max_size=3)


@given(
    st.lists(st.tuples(texts, members), max_size=5),
    st.sets(texts, max_size=5),
    members,
    members,
    st.sampled_from(["", "public", "private"]),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_whatever_a_list_holds_exactly_the_invisible_entries_go(
    tools: Sequence[tuple[str, dict[str, Any]]],
    visible: set[str],
    beside: dict[str, Any],
    above: dict[str, Any],
    scope: str,
    indent: int | None,
    escape: bool,
) -> None:
    result = {**beside, "tools": [{**more, "name": name} for name, more in tools]}
    if scope:
        result["cacheScope"] = scope
    message = json.dumps({**above, "result": result, "id": "i"}, indent=indent, ensure_ascii=escape).encode()
    wanted = {**result, "tools": [tool for tool in result["tools"] if tool["name"] in visible], "cacheScope": "private"}

    kept = json.loads(listed(message, "i").keep(visible, era="modern"))

    assert kept == {**above, "result": wanted, "id": "i"}
    assert json.dumps(kept["result"]["tools"]) == json.dumps(wanted["tools"])


# Which message is a list


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b" \r\n",
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1e400}}',
        b'{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"tools":[{"name":"x"}]}}',
        b'{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no","data":{"tools":[1]}}}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}',
        b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"}}',
        b'{"jsonrpc":"2.0","id":8,"result":"no list"}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.0","id":[7],"result":{}}',
        b'{"jsonrpc":"2.0","id":8}',
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"\\ud800"}}',
        b"{}",
    ],
)
def test_any_other_message_passes_untouched(message: bytes) -> None:
    assert ListAnswer.parse(message, 7, "tools") is None


@pytest.mark.parametrize("message_id", [b"8", b'"7"', b"null"])
def test_a_list_under_an_id_that_was_not_asked_for_is_still_a_list(message_id: bytes) -> None:
    message = b'{"jsonrpc":"2.0","id":' + message_id + b',"result":{"tools":[{"name":"drop"}]}}'
    assert listed(message).names == ("drop",)


@pytest.mark.parametrize(
    ("message_id", "found"),
    [(7, b"7"), (7, b"7.0"), (7, b"70e-1"), (7, b'"7"'), ("7", b"7"), ("7", b'"\\u0037"'), (1, b"true"), (0, b"-0")],
)
def test_an_id_that_some_client_takes_for_its_own_is_its_own(message_id: JsonRpcId, found: bytes) -> None:
    message = answer(b'{"tools":[{"name":"a"}]}', found)

    assert listed(message, message_id).keep((), era="legacy") == answer(b'{"tools":[]}', found)


def test_where_answers_come_again_every_list_is_one_whatever_its_id() -> None:
    again = answer(b'{"tools":[{"name":"a"},{"name":"b"}]}', b"12")

    assert listed(again, None).keep({"b"}, era="legacy") == answer(b'{"tools":[{"name":"b"}]}', b"12")
    for other in (b'{"content":[]}', b"null", b'"tools"', b'{"tasks":[{"taskId":"t"}]}'):
        assert ListAnswer.parse(answer(other), None, "tools") is None
    for other in (b'{"method":"ping","id":1}', b'{"id":1}', b'{"id":1,"error":{}}'):
        assert ListAnswer.parse(other, None, "tools") is None
    with pytest.raises(BadGateway):
        ListAnswer.parse(answer(b'{"tools":[1]}'), None, "tools")


@pytest.mark.parametrize(
    "message",
    [
        *(
            answer(result)
            for result in (
                b"null",
                b"1",
                b"[]",
                b'"tools"',
                b"{}",
                b'{"tools":null}',
                b'{"tools":{}}',
                b'{"tools":{"0":{"name":"a"}}}',
                b'{"tools":"a"}',
                b'{"tools":[null]}',
                b'{"tools":["a"]}',
                b'{"tools":[["name","a"]]}',
                b'{"tools":[{}]}',
                b'{"tools":[{"name":"a"},{"name":1}]}',
                b'{"tools":[{"name":null}]}',
                b'{"tools":[{"name":["a"]}]}',
                b'{"tools":[{"Name":"a"}]}',
                b'{"tools":[{"name":"a","Name":"b"}]}',
                b'{"tools":[],"Tools":[{"name":"a"}]}',
                b'{"tools":[],"tool\\u017f":[{"name":"a"}]}',
                b'{"tools":[],"CacheScope":"public"}',
                b'{"tasks":[{"taskId":"t"}]}',
                b'{"tools":[],"tools":[{"name":"a"}]}',
                b'{"tools":[],"\\u0074ools":[{"name":"a"}]}',
                b'{"tools":[{"name":"a","name":"b"}]}',
                b'{"tools":[{"name":"a","n\\u0061me":"b"}]}',
                b'{"tools":[{"name":"a","inputSchema":{"x":1,"x":2}}]}',
                b'{"tools":[{"name":"\\ud800"}]}',
                b'{"tools":[{"name":"a","description":"\\udc00\\ud800"}]}',
                b'{"tools":[{"name":"a","description":"\\\\\\uD83D\\\\ude00"}]}',
                b'{"tools":[{"name":"a","x":NaN}]}',
                b'{"tools":[{"name":"a","x":-Infinity}]}',
                b'{"tools":[{"name":"a","x":01}]}',
                b'{"tools":[{"name":"a","x":' + b"9" * 5000 + b"}]}",
                b'{"tools":[{"name":"a\n"}]}',
                b'{"tools":[{"name":"a\\x"}]}',
                b'{"tools":[{"name":"a"},]}',
                b'{"tools":[{"name":"a"} {"name":"b"}]}',
                b'{"tools":[{"name":"a"}],}',
                b'{"tools":[{"name":"a"}]',
                b'{"tools" [{"name":"a"}]}',
                b'{tools:[{"name":"a"}]}',
                b'{1:[{"name":"a"}],"tools":[]}',
                b'{"tools":[{"name":"\xff"}]}',
                b'{"tools":[{"name":"\xed\xa0\x80"}]}',
                b'{"tools":[{"name":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
                b'{"tools":[/**/]}',
            )
        ),
        b'{"jsonrpc":"2.0","id":7}',
        b'{"jsonrpc":"2.0","id":7,"Result":{"tools":[{"name":"a"}]}}',
        b'{"jsonrpc":"2.0","id":7,"RESULT":{"tools":[{"name":"a"}]},"error":{}}',
        b'{"jsonrpc":"2.0","ID":7,"result":{"tools":[{"name":"a"}]}}',
        b'{"jsonrpc":"2.0","id":8,"ID":7,"result":{"tools":[{"name":"a"}]}}',
        b'{"jsonrpc":"2.0","id":8,"id":7,"result":{"tools":[{"name":"a"}]}}',
        b'{"jsonrpc":"2.0","result":{"tools":[{"name":"a"}]}}',
        b'{"jsonrpc":"2.0","id":7,"error":{},"result":{"tools":[{"name":"a"}]}}',
        b'{"jsonrpc":"2.0","id":7,"method":"ping","result":{"tools":[{"name":"a"}]}}',
        b"[" + answer(b'{"tools":[{"name":"a"}]}') + b"]",
        answer(b'{"tools":[]}') + b"\n" + answer(b'{"tools":[{"name":"a"}]}'),
        answer(b'{"tools":[]}') + b"{",
        b"\xef\xbb\xbf" + answer(b'{"tools":[{"name":"a"}]}'),
        answer(b'{"tools":[{"name":"a"}]}').decode().encode("utf-16"),
        b"\x0c" + answer(b'{"tools":[{"name":"a"}]}'),
        b"null",
        b"7",
        b"nonsense",
        b"{",
        b"[" * 100_000,
    ],
)
def test_what_readers_differ_about_never_passes(message: bytes) -> None:
    with pytest.raises(BadGateway) as refused:
        ListAnswer.parse(message, 7, "tools")

    assert refused.value.reason == "upstream_list_malformed"


@pytest.mark.parametrize("kind", ["tools", "tasks"])
def test_a_list_longer_than_anybody_needs_never_passes(kind: ListKind) -> None:
    member = "name" if kind == "tools" else "taskId"
    entries = [{member: str(number)} for number in range(MAX_ENTRIES + 1)]
    longest = answer(json.dumps({kind: entries[1:]}).encode())
    assert len(listed(longest, kind=kind).names) == MAX_ENTRIES

    with pytest.raises(BadGateway, match="upstream_list_malformed"):
        listed(answer(json.dumps({kind: entries}).encode()), kind=kind)


def test_escapes_that_make_whole_characters_are_no_reason_to_refuse() -> None:
    message = answer(b'{"tools":[{"name":"\\ud83d\\uDE00","description":"\\\\ud800 \\\\\\\\udc00 \\"\\n"}]}')

    assert listed(message).names == ("😀",)
    assert listed(message).keep({"😀"}, era="legacy") is message


@given(st.binary(max_size=60) | st.text(alphabet='{}[]:,"\\idresultoname17 .-e', max_size=60).map(str.encode))
def test_any_bytes_are_a_list_or_none_or_refused(message: bytes) -> None:
    assert_nothing_slips_through(message)


@given(st.integers(0, len(TOOLS) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_list_is_a_list_or_refused_and_never_passes_with_a_tool(at: int, by: bytes, length: int) -> None:
    assert_nothing_slips_through(TOOLS[:at] + by + TOOLS[at + length :])


def assert_nothing_slips_through(message: bytes) -> None:
    try:
        answer = ListAnswer.parse(message, 7, "tools")
    except BadGateway:
        return
    if answer is not None:
        assert json.loads(answer.keep((), era="modern"))["result"]["tools"] == []
    elif message.strip():
        read = json.loads(message)
        assert "result" not in read or str(read["id"]) != "7"


# In which form a list comes


@pytest.mark.parametrize(
    ("lines", "form"),
    [
        ([(b"Content-Type", b"application/json")], "json"),
        ([(b"content-type", b"Application/JSON ; Charset=UTF-8; x=y")], "json"),
        ([(b"Content-Type", b'application/json;charset="utf-8"')], "json"),
        ([(b"Content-Type", b"text/event-stream"), (b"Content-Encoding", b"identity")], "events"),
        ([(b"Content-Type", b"text/event-stream;charset=utf8")], "events"),
        ([], None),
        ([(b"Content-Type", b"")], None),
        ([(b"Content-Type", b"text/plain")], None),
        ([(b"Content-Type", b"application/json, text/event-stream")], None),
        ([(b"Content-Type", b"application/json"), (b"Content-type", b"text/event-stream")], None),
        ([(b"Content-Type", b"application/json; charset=utf-16")], None),
        ([(b"Content-Type", b"text/event-stream; charset=utf-8; charset=utf-7")], None),
        ([(b"Content-Type", b"text/event-stream; charset*=utf-16")], None),
        ([(b"Content-Type", b"application/json"), (b"CONTENT-ENCODING", b"gzip")], None),
        ([(b"Content-Type", b"text/event-stream"), (b"Content-Encoding", b"identity, br")], None),
    ],
)
def test_a_list_comes_as_plain_json_or_plain_events_or_not_at_all(
    lines: list[tuple[bytes, bytes]], form: str | None
) -> None:
    assert is_readable(tuple(lines)) is (form is not None)
    if form is not None:
        assert body_form(tuple(lines)) == form
        return
    with pytest.raises(BadGateway) as refused:
        body_form(tuple(lines))
    assert refused.value.reason == "upstream_list_malformed"
