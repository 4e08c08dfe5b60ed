"""The method and scope tables: who may do what."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.denials import DroppedNotification, InsufficientScope, UnknownMethod
from sidecar.model import SCOPES, Action, Principal, ToolClass
from sidecar.policy import access

READS = ["resources/list", "resources/templates/list", "resources/read", "resources/subscribe", "resources/unsubscribe"]
TASKS = ["tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update"]


def principal(*scopes: str, kind: Any = "api_key") -> Principal:
    return Principal("acct", "subject", kind, "credential", scopes, 0, 0)


def request(method: str, **params: Any) -> Action:
    return Action("request", method, 1, params.get("name") if method == "tools/call" else None, params)


def may(scope: str, action: Action, tool_class: ToolClass | None = None) -> bool:
    try:
        access.authorize(principal(scope), action, tool_class)
    except (InsufficientScope, UnknownMethod, DroppedNotification):
        return False
    return True


ALLOWED: list[tuple[Action, ToolClass | None, set[str]]] = [
    (request("tools/list"), None, {"mcp:full", "mcp:read", "mcp:tools:call", "mcp:tools:list"}),
    (request("tools/call", name="t"), "read", {"mcp:full", "mcp:read", "mcp:tools:call"}),
    (request("tools/call", name="t"), "write", {"mcp:full"}),
    (request("tools/call", name="t"), "destructive", {"mcp:full"}),
    (request("tools/call", name="t"), None, {"mcp:full"}),
    *((request(method), None, {"mcp:full", "mcp:read", "mcp:resources:read"}) for method in READS),
    (request("prompts/list"), None, {"mcp:full", "mcp:read"}),
    (request("prompts/get", name="p"), None, {"mcp:full", "mcp:read"}),
    (request("logging/setLevel", level="info"), None, {"mcp:full", "mcp:read"}),
    (request("completion/complete"), None, {"mcp:full", "mcp:read"}),
    (request("completion/complete", ref="ref/resource"), None, {"mcp:full", "mcp:read"}),
    (request("completion/complete", ref={"type": "ref/prompt"}), None, {"mcp:full", "mcp:read"}),
    (
        request("completion/complete", ref={"type": "ref/resource", "uri": "x:"}),
        None,
        {"mcp:full", "mcp:read", "mcp:resources:read"},
    ),
    *((request(method), None, {"mcp:full", "mcp:read", "mcp:tools:call"}) for method in TASKS),
    (
        request("subscriptions/listen", notifications={"toolsListChanged": True}),
        None,
        {"mcp:full", "mcp:read", "mcp:tools:call", "mcp:tools:list"},
    ),
    (
        request("subscriptions/listen", notifications={"resourceSubscriptions": ["x:"]}),
        None,
        {"mcp:full", "mcp:read", "mcp:resources:read"},
    ),
    (
        request("subscriptions/listen", notifications={"toolsListChanged": True, "promptsListChanged": True}),
        None,
        {"mcp:full", "mcp:read"},
    ),
    (request("subscriptions/listen", notifications={"somethingNew": True}), None, {"mcp:full"}),
    (request("vendor/erase"), None, {"mcp:full"}),
    (Action("notification", "notifications/vendor"), None, {"mcp:full"}),
]


@pytest.mark.parametrize(("action", "tool_class", "allowed"), ALLOWED)
def test_an_action_is_open_to_exactly_the_scopes_of_the_table(
    action: Action, tool_class: ToolClass | None, allowed: set[str]
) -> None:
    assert {scope for scope in SCOPES if may(scope, action, tool_class)} == allowed


@pytest.mark.parametrize(
    "action",
    [
        request("initialize"),
        request("ping"),
        request("server/discover"),
        Action("notification", "notifications/initialized"),
        Action("notification", "notifications/cancelled"),
        Action("response", id=1),
        Action("stream"),
        Action("end_session"),
        Action("manage"),
    ],
)
def test_a_valid_credential_without_scopes_may_do_what_needs_none(action: Action) -> None:
    access.authorize(principal(), action, None)


def test_no_scope_at_all_allows_no_call() -> None:
    with pytest.raises(InsufficientScope):
        access.authorize(principal(), request("tools/call", name="t"), "read")


def test_an_unknown_scope_grants_nothing_not_even_itself() -> None:
    assert access.expand(["mcp:admin", "mcp:fullish", "MCP:FULL"]) == frozenset()


def test_a_refusal_names_all_missing_scopes_in_table_order() -> None:
    listen = request("subscriptions/listen", notifications={"resourcesListChanged": 1, "promptsListChanged": 1})

    with pytest.raises(InsufficientScope) as refused:
        access.authorize(principal("mcp:tools:list"), listen, None)

    assert refused.value.required == "mcp:read mcp:resources:read"
    assert refused.value.granted == ("mcp:tools:list",)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("api_key", "API key does not have permission for this operation"),
        ("jwt", "Token does not have permission for this operation"),
    ],
)
def test_a_refusal_speaks_of_the_credential_that_was_used(kind: Any, message: str) -> None:
    with pytest.raises(InsufficientScope) as refused:
        access.authorize(principal("mcp:read", kind=kind), request("tools/call", name="t"), "write")

    assert refused.value.message == message


def test_an_unknown_method_is_unknown_rather_than_forbidden() -> None:
    """A 403 on a probe sends clients to a login instead of the other era."""
    with pytest.raises(UnknownMethod):
        access.authorize(principal("mcp:read"), request("vendor/erase"), None)


def test_an_unknown_notification_is_dropped() -> None:
    with pytest.raises(DroppedNotification):
        access.authorize(principal("mcp:read"), Action("notification", "notifications/vendor"), None)


@pytest.mark.parametrize(
    ("action", "tool_class", "expected"),
    [
        (request("tools/call", name="t"), "read", False),
        (request("tools/call", name="t"), "write", True),
        (request("tools/call", name="t"), "destructive", True),
        (request("tools/list"), None, False),
        (request("tasks/cancel"), None, True),
        (request("tasks/get"), None, False),
        (request("vendor/erase"), None, True),
        (Action("stream"), None, False),
        (Action("notification", "notifications/vendor"), None, False),
        (Action("manage", "GET"), None, False),
        (Action("manage", "POST"), None, True),
        (Action("manage", "DELETE"), None, True),
    ],
)
def test_only_what_may_change_something_counts_as_a_write(
    action: Action, tool_class: ToolClass | None, expected: bool
) -> None:
    assert access.is_write(action, tool_class) is expected
