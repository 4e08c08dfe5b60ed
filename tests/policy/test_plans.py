"""What will become of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.model import Action, Handle, Principal, ResponsePlan
from sidecar.policy.plans import Plans
from tests.policy.facts import facts

JWT = Principal("acme", "alice", "jwt", "jwt:1", ("mcp:read",), 0, 0)
KEY = Principal("acme", "key_1", "api_key", "key_1", ("mcp:read",), 0, 0)
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
DECLARED: dict[str, Any] = {"_meta": {CAPABILITIES: {"extensions": {"io.modelcontextprotocol/tasks": {}}}}}
RESUMED = ("Last-Event-ID", "7")


def plan(
    action: Action, principal: Principal = KEY, *lines: tuple[str, str], policy: Any = "keys", handles: Any = ()
) -> ResponsePlan:
    return Plans(filter_lists=policy, session_idle_s=60.0).make(principal, facts(*lines), action, handles)


@pytest.mark.parametrize(
    ("action", "begins", "ends", "makes"),
    [
        (Action("request", "initialize", 1), True, False, False),
        (Action("end_session"), False, True, False),
        (Action("request", "tools/call", 1, "t", {"task": {"ttl": 5}}), False, False, True),
        (Action("request", "tools/call", 1, "t", {"task": True}), False, False, False),
        (Action("request", "tools/call", 1, "t", DECLARED), False, False, True),
        (Action("request", "tools/call", 1, "t", {"_meta": {CAPABILITIES: {"extensions": {}}}}), False, False, False),
        (Action("request", "tools/call", 1, "t", {"_meta": {CAPABILITIES: []}}), False, False, False),
        (Action("request", "ping", 1), False, False, False),
        (Action("notification", "initialize"), False, False, False),
    ],
)
def test_the_plan_says_what_the_answer_will_begin_end_or_make(
    action: Action, begins: bool, ends: bool, makes: bool
) -> None:
    made = plan(action)

    assert (made.begins_session, made.ends_session, made.makes_task) == (begins, ends, makes)
    assert made.reads_messages is makes


def test_the_plan_knows_the_requests_session_and_id() -> None:
    session, task = Handle("session", "s", "o", 60.0), Handle("task", "t", "o", 1)
    made = plan(Action("request", "ping", 7), handles=(task, session))

    assert (made.session, made.message_id, made.principal, made.era) == (session, 7, KEY, "legacy")


@pytest.mark.parametrize(
    ("policy", "principal", "shows"),
    [
        ("keys", KEY, ("tools",)),
        ("keys", JWT, ()),
        ("all", KEY, ("tools",)),
        ("all", JWT, ("tools",)),
        ("none", KEY, ()),
        ("none", JWT, ()),
    ],
)
def test_whose_tool_lists_are_filtered_is_the_operators_word(policy: str, principal: Principal, shows: Any) -> None:
    assert plan(Action("request", "tools/list", 1), principal, policy=policy).shows == shows


@pytest.mark.parametrize("policy", ["keys", "all", "none"])
def test_tasks_are_everybodys_own_whatever_is_configured(policy: str) -> None:
    assert plan(Action("request", "tasks/list", 1), JWT, policy=policy).shows == ("tasks",)


def test_a_resumed_stream_may_bring_lists_again() -> None:
    assert plan(Action("stream"), KEY, RESUMED).shows == ("tools", "tasks")
    assert plan(Action("stream"), JWT, RESUMED).shows == ("tasks",)
    assert plan(Action("stream"), KEY).shows == ()
    assert plan(Action("request", "tools/call", 1, "t"), KEY, RESUMED).shows == ("tools", "tasks")


def test_only_the_answer_to_a_list_request_has_to_be_a_list() -> None:
    assert plan(Action("request", "tools/list", 1), KEY, RESUMED).lists == "tools"
    assert plan(Action("request", "tasks/list", 1)).lists == "tasks"
    assert plan(Action("request", "ping", 1), KEY, RESUMED).lists is None
    assert plan(Action("notification", "tools/list")).lists is None


@pytest.mark.parametrize("policy", ["keys", "all", "none"])
def test_where_some_tools_are_nobodys_to_see_every_list_of_tools_is_looked_at(policy: Any) -> None:
    plans = Plans(filter_lists=policy, session_idle_s=60.0, hides_tools=True)
    assert plans.make(JWT, facts(), Action("request", "tools/list", 1), ()).shows == ("tools",)


def test_a_session_of_a_client_that_can_ask_people_is_one_to_remember() -> None:
    for capabilities, elicits in (({"elicitation": {}}, True), ({"elicitation": {"url": {}}}, False), ({}, False)):
        assert plan(Action("request", "initialize", 1, None, {"capabilities": capabilities})).elicits is elicits
    assert not plan(Action("request", "ping", 1, None, {"capabilities": {"elicitation": {}}})).elicits
