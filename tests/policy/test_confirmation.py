"""Who has to be asked, how, and whose yes counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import InvalidParams
from sidecar.model import Action, Principal, Route, ToolClass
from sidecar.policy import confirmation
from sidecar.policy.confirmation import MOVES, Rules, ToolsThatNeedIt
from tests.policy import confirming
from tests.policy.confirming import call, call_body, caller, key_holder
from tests.policy.facts import facts

ROUTES = (Route("/mcp", ("jwt",)), Route("/keys", ("api_key",)))
EVERY_CLASS: tuple[ToolClass, ...] = ("read", "write", "destructive")


def asked_for(rules: Rules, principal: Principal, route: str) -> list[str]:
    return [tool_class for tool_class in EVERY_CLASS if rules.needs(principal, route, tool_class)]


@pytest.mark.parametrize(
    ("tools", "needed"), [("declared", ["destructive"]), ("writes", ["write", "destructive"]), ("never", [])]
)
def test_tokens_go_by_the_general_rule(tools: ToolsThatNeedIt, needed: list[str]) -> None:
    rules = Rules(tools=tools, routes=ROUTES, keys_are_managed=True)

    assert asked_for(rules, caller(), "/mcp") == needed
    assert rules.may_apply is (tools != "never")


def test_a_route_has_a_rule_of_its_own() -> None:
    routes = (Route("/mcp", ("jwt",), confirmation="writes"), Route("/keys", ("api_key",), confirmation="declared"))
    rules = Rules(tools="never", routes=routes, keys_are_managed=True)

    assert asked_for(rules, caller(), "/mcp") == ["write", "destructive"]
    assert asked_for(rules, key_holder("cli"), "/keys") == ["destructive"]
    assert rules.may_apply


def test_keys_need_no_confirmation_unless_their_route_says_so() -> None:
    rules = Rules(tools="writes", routes=ROUTES, keys_are_managed=True)

    assert asked_for(rules, key_holder("rest"), "/keys") == []


def test_a_key_that_any_token_could_make_counts_as_its_maker() -> None:
    routes = (Route("/mcp", ("jwt",), confirmation="writes"), Route("/keys", ("api_key",), confirmation="never"))
    rules = Rules(tools="declared", routes=routes, keys_are_managed=False)

    assert asked_for(rules, key_holder("rest"), "/keys") == ["write", "destructive"]
    assert asked_for(rules, key_holder("cli"), "/keys") == []


def test_only_keys_having_rules_of_their_own_makes_rules_apply() -> None:
    routes = (Route("/mcp", ("jwt",)), Route("/keys", ("api_key",), confirmation="writes"))

    assert Rules(tools="never", routes=routes, keys_are_managed=True).may_apply


LEGACY = (("MCP-Protocol-Version", "2025-06-18"), ("Accept", "application/json, text/event-stream"))
MODERN = (("MCP-Protocol-Version", "2026-07-28"), ("Accept", "application/json, text/event-stream"))


def meta(capabilities: object) -> dict[str, Any]:
    return {"_meta": {"io.modelcontextprotocol/clientCapabilities": capabilities}}


def test_a_legacy_client_that_can_ask_is_asked_on_its_calls_stream() -> None:
    assert confirmation.channel(facts(*LEGACY), call(), approver="caller", elicits=True) == "stream"


@pytest.mark.parametrize(
    ("lines", "elicits"),
    [
        (LEGACY, False),
        (LEGACY[1:], True),
        (LEGACY[:1], True),
        ((("MCP-Protocol-Version", "2025-03-26"), LEGACY[1]), True),
        ((("MCP-Protocol-Version", "2024-11-05"), LEGACY[1]), True),
    ],
)
def test_a_legacy_client_that_cannot_be_asked_needs_an_approval(lines: Any, elicits: bool) -> None:
    assert confirmation.channel(facts(*lines), call(), approver="caller", elicits=elicits) == "approval"


@pytest.mark.parametrize("capabilities", [{"elicitation": {}}, {"elicitation": {"form": {}, "url": {}}}])
def test_a_modern_client_that_can_ask_is_asked_by_a_retry(capabilities: object) -> None:
    action = call(**meta(capabilities))

    assert confirmation.channel(facts(*MODERN), action, approver="caller", elicits=False) == "retry"


@pytest.mark.parametrize(
    "params", [{}, {"_meta": 1}, meta(None), meta({}), meta({"elicitation": True}), meta({"elicitation": {"url": {}}})]
)
def test_a_modern_client_that_cannot_show_forms_needs_an_approval(params: dict[str, Any]) -> None:
    assert confirmation.channel(facts(*MODERN), call(**params), approver="caller", elicits=True) == "approval"


@pytest.mark.parametrize("lines", [LEGACY, MODERN])
def test_the_callers_own_client_is_never_asked_where_somebody_else_has_to_agree(lines: Any) -> None:
    action = call(**meta({"elicitation": {}}))

    assert confirmation.channel(facts(*lines), action, approver="other", elicits=True) == "approval"


def test_only_an_acceptance_with_the_box_ticked_is_a_yes() -> None:
    assert confirmation.word({"action": "accept", "content": {"confirm": True}}) == "accept"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ({"action": "accept"}, "decline"),
        ({"action": "accept", "content": {"confirm": 1}}, "decline"),
        ({"action": "accept", "content": {"confirm": "true"}}, "decline"),
        ({"action": "accept", "content": [True]}, "decline"),
        ({"action": "decline", "content": {"confirm": True}}, "decline"),
        ({"action": "cancel"}, "cancel"),
        ({}, "cancel"),
        (None, "cancel"),
    ],
)
def test_everything_else_is_a_no(answer: object, word: str) -> None:
    assert confirmation.word(answer) == word


def test_the_oldest_clients_with_elicitation_are_asked_without_a_mode() -> None:
    assert "mode" not in confirmation.elicitation("Run?", mode=False)
    assert confirmation.elicitation("Run?", mode=True)["mode"] == "form"
    assert confirmation.elicitation("Run?", mode=True)["requestedSchema"]["required"] == ["confirm"]


@pytest.mark.parametrize(
    ("lines", "params", "spare", "is_too_large"),
    [
        (LEGACY, {}, 0, False),
        (LEGACY, {}, -1, True),
        (LEGACY, {"requestState": "s" * 100}, -1, True),
        (MODERN, {}, 0, False),
        (MODERN, {}, -1, True),
        (MODERN, {"requestState": "s" * 1000, "inputResponses": {"a": "é" * 500}}, -1000, False),
        (MODERN, {"requestState": "s" * 1000}, -2000, True),
        (MODERN, {"requestState": "s" * 131_072}, -131_072, False),
        (MODERN, {"requestState": "s" * 131_072}, -131_073, True),
        (MODERN, {"requestState": "s" * 200_000}, -200_000, True),
    ],
)
def test_a_call_is_judged_up_to_so_many_bytes_and_what_its_client_carries(
    lines: Any, params: dict[str, Any], spare: int, is_too_large: bool
) -> None:
    action, body = call(**params), call_body(**params)
    body += b" " * (confirmation.JUDGED_BYTES - spare - len(body))

    assert confirmation.is_too_large(facts(*lines), action, body) is is_too_large


def binding(principal: Principal | None = None, **changes: Any) -> str:
    return confirmation.call_binding(principal or caller(), confirming.asked(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"tool": "drop2"},
        {"arguments": {"id": 43}},
        {"arguments": {"id": "42"}},
        {"arguments": {"id": 42.0}},
        {"arguments": {}},
        {"arguments": {"id": [42]}},
        {"task": {"ttl": 1}},
        {"connection": "prod"},
        {"requestState": "of an upstream that does not care for revisions"},
        {"query": "project_ref=PRODUCTION"},
        {"query": ""},
        {"headers": ((b"mcp-param-database", b"PRODUCTION"),)},
        {"headers": ((b"x-project", b"PRODUCTION"),)},
        {"principal": caller(credential_id="bob")},
        {"principal": caller(account="other")},
        {"principal": caller(kind="api_key")},
    ],
)
def test_another_call_is_bound_to_something_else(changes: dict[str, Any]) -> None:
    assert binding(**changes) != binding()


def test_numbers_that_some_parsers_read_alike_are_different_arguments() -> None:
    one, two = ({"id": number} for number in (2**64, 2**64 + 1))

    assert binding(arguments=one) != binding(arguments=two)


def test_the_order_of_arguments_and_what_changes_with_each_try_do_not_count() -> None:
    again = call_body(arguments={"b": [1, None], "a": True}, _meta={"progressToken": 1}).replace(b'"id": 7', b'"id": 8')

    assert binding(body=again) == binding(arguments={"a": True, "b": [1, None]})


def test_what_a_client_carries_does_not_count_where_the_protocol_has_it_carry_something() -> None:
    again: dict[str, Any] = {"requestState": "R", "inputResponses": {"a": {}}, "version": "2026-07-28"}

    assert binding(**again) == binding(version="2026-07-28")


def test_headers_that_say_nothing_of_what_is_called_do_not_count() -> None:
    headers = ((b"Accept", b"*/*"), (b"traceparent", b"00-1"), (b"X-Request-Id", b"1"), (b"Signature", b"x"))

    assert binding(headers=headers) == binding()
    assert binding(headers=((b"x-a", b"1"), (b"x-b", b"2"))) == binding(headers=((b"x-b", b"2"), (b"x-a", b"1")))


@pytest.mark.parametrize("arguments", ['{"table":"users"}', ["users"], 1, False])
def test_arguments_that_are_no_object_are_refused(arguments: object) -> None:
    with pytest.raises(InvalidParams) as refused:
        confirming.asked(arguments=arguments)
    assert refused.value.reason == "arguments_malformed"


def test_a_number_is_another_request_id_than_its_text() -> None:
    assert len({confirmation.request_binding(caller(), "s", request_id) for request_id in (1, "1", 2)}) == 3
    assert confirmation.request_binding(caller(), "s", 1) != confirmation.request_binding(caller(), "t", 1)


def test_only_who_was_asked_may_answer_and_only_in_the_same_session() -> None:
    session = confirmation.session_digest("s")
    question = confirming.confirmation(kind="question", session=session)

    assert confirmation.may_answer(question, caller(), session)
    assert not confirmation.may_answer(question, caller(credential_id="bob"), session)
    assert not confirmation.may_answer(question, caller(), confirmation.session_digest(None))
    assert not confirmation.may_answer(confirming.confirmation(session=session), caller(), session)


def test_the_question_names_tool_account_and_every_argument() -> None:
    text = confirmation.message(confirming.asked(arguments={"id": 42, "why": "done"}), "acme")

    assert text == 'Run "drop" on account "acme"?\n"id": 42\n"why": "done"'


def test_a_long_value_is_cut_and_the_question_says_so() -> None:
    text = confirmation.message(confirming.asked(arguments={"a": "x" * 1000, "b": "seen"}), "acme")

    assert "(802 more characters)" in text
    assert '"b": "seen"' in text


def test_too_many_arguments_are_counted() -> None:
    text = confirmation.message(confirming.asked(arguments={f"a{number}": number for number in range(25)}), "acme")

    assert text.endswith("and 5 more arguments that are not shown")


@pytest.mark.parametrize("params", [b"", b',"arguments":null', b',"arguments":{}'])
def test_arguments_that_are_none_are_not_shown(params: bytes) -> None:
    body = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"drop"%b}}' % params

    assert confirmation.message(confirming.asked(body), "acme") == 'Run "drop" on account "acme"?'


def test_numbers_are_shown_as_they_are_sent() -> None:
    numbers = b'{"n":98765432109876543210,"of":[0.30000000000000000000000001,1e2],"in":{"a":1.0}}'
    body = call_body().replace(b'{"id": 42}', numbers)

    text = confirmation.message(confirming.asked(body), "acme")

    assert text.endswith('"n": 98765432109876543210\n"of": [0.30000000000000000000000001, 1e2]\n"in": {"a": 1.0}')


def test_what_comes_besides_the_arguments_is_shown_too() -> None:
    asked = confirming.asked(
        connection="prod", query="project_ref=A&read_only", headers=((b"x-project", b"B"),), _meta={"a": 1}
    )

    rows = ['parameter "connection": "prod"', 'header "x-project": "B"']
    rows += ['query "project_ref": "A"', 'query "read_only": ""']
    assert confirmation.besides(asked) == "\n".join(rows)
    assert confirmation.message(asked, "acme").split("\n") == ['Run "drop" on account "acme"?', '"id": 42', *rows]
    assert confirmation.besides(confirming.asked()) is None


def test_too_much_besides_the_arguments_is_counted() -> None:
    asked = confirming.asked(query="&".join(f"a{number}=1" for number in range(23)))

    assert str(confirmation.besides(asked)).endswith(
        "and 3 more parameters, headers and parts of the query that are not shown"
    )


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_a_client_chose_cannot_pass_for_our_text(name: str, value: str) -> None:
    lines = confirmation.message(confirming.asked(arguments={name: value}), "acme").split("\n")

    assert len(lines) == 2
    for mark in ("<", ">", "`", "://", "](", "\u202e", "\u200b", "\r", "\u2028"):
        assert mark not in lines[1]


@pytest.mark.parametrize("char", ["\u3164", "\u115f", "\u1160", "\uffa0", "\u034f", "\ufe0f", "\U000e0100", "\u2800"])
def test_what_nobody_sees_is_written_out(char: str) -> None:
    assert confirmation.message(confirming.asked(arguments={"table": f"users{char}"}), "acme").isascii()


def test_who_waits_for_an_approval_is_told_what_to_do() -> None:
    text = confirmation.approval_text(confirming.confirmation(), "https://mcp.example")

    assert "https://mcp.example/approvals/" + "a" * 32 in text
    assert "sidecar approvals approve " + "a" * 32 in text


def test_who_finds_too_many_calls_waiting_is_told_to_wait() -> None:
    text = confirmation.too_many_text()

    assert "sidecar approvals list" in text
    assert "Do not call again" in text


def test_only_an_answer_by_one_of_our_ids_is_one_of_ours() -> None:
    for action, is_ours in (
        (Action("response", id="sc-" + "0" * 32), True),
        (Action("response", id="sc-0"), False),
        (Action("response", id=1), False),
        (Action("request", id="sc-" + "0" * 32), False),
    ):
        assert confirmation.answers_a_question(action) is is_ours


@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=12))
def test_whatever_happens_in_whatever_order_a_call_passes_at_most_once_and_only_after_a_yes(moves: list[str]) -> None:
    """Answers, cancellations, timeouts, disconnects (all *withdraw*), and attempts to go on, interleaved at will."""
    state, happened = "waiting", []
    for move in moves:
        before, after = MOVES[move]
        if state in before:
            state = after
            happened.append(move)

    assert happened.count("spend") <= 1
    if "spend" in happened:
        assert happened == ["approve", "spend"]
    assert "withdraw" not in happened[:-1]
    if "decline" in happened:
        assert happened in (["decline"], ["decline", "withdraw"])
