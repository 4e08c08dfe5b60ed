"""Whose session or task is this?"""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.denials import BadGateway, InvalidParams, MissingCapability, SessionNotFound, UnknownMethod
from sidecar.model import Action, Handle, Principal, Verdict
from sidecar.policy import sessions
from tests.policy.facts import facts

ALICE = Principal("acme", "alice", "jwt", "jwt:1", (), 0, 0)
OTHERS = [
    Principal("acme", "alice", "jwt", "jwt:2", (), 0, 0),
    Principal("acme", "alice", "api_key", "jwt:1", (), 0, 0),
    Principal("acme", "key_1", "api_key", "key_1", (), 0, 0),
]
SESSION = ("Mcp-Session-Id", "s-1")
MODERN = ("MCP-Protocol-Version", "2026-07-28")
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
DECLARED: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
PING = Action("request", "ping", 1)


def handles(action: Action, *lines: tuple[str, str]) -> tuple[Handle, ...]:
    return sessions.handles(ALICE, facts(*lines), action, 60.0)


def about_task(task_id: Any, method: str = "tasks/get") -> Action:
    return Action("request", method, 1, params={"taskId": task_id})


def test_an_owner_is_a_credential_of_one_kind_and_not_the_account() -> None:
    assert len({sessions.owner(principal) for principal in (ALICE, *OTHERS)}) == 4


@pytest.mark.parametrize(
    "action",
    [PING, Action("notification", "notifications/cancelled"), Action("response", id=1), Action("stream"),
     Action("end_session")],
)  # fmt: skip
def test_whatever_names_a_session_belongs_to_it(action: Action) -> None:
    assert handles(action, SESSION) == (Handle("session", "s-1", sessions.owner(ALICE), 60.0),)
    assert handles(action) == ()


def test_initialize_belongs_to_no_session_even_when_it_names_one() -> None:
    initialize = Action("request", "initialize", 1)

    assert handles(initialize, SESSION) == ()
    assert sessions.session_of(facts(SESSION), initialize) is None


def test_the_modern_era_has_no_sessions() -> None:
    assert handles(PING, SESSION, MODERN) == ()
    assert sessions.session_of(facts(SESSION, MODERN), PING) is None


@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/cancel", "tasks/update"])
def test_who_asks_about_a_task_belongs_to_it_and_to_the_session(method: str) -> None:
    owner = sessions.owner(ALICE)
    task = Handle("task", "t-1", owner, sessions.TASK_IDLE_S)

    assert handles(about_task("t-1", method)) == (task,)
    assert handles(about_task("t-1", method), SESSION) == (Handle("session", "s-1", owner, 60.0), task)


def test_who_listens_for_tasks_belongs_to_all_of_them() -> None:
    listen = Action("request", "subscriptions/listen", 1, params={"notifications": {"taskIds": ["t-1", "t-2"]}})

    assert [handle.id for handle in handles(listen, MODERN)] == ["t-1", "t-2"]
    assert handles(Action("request", "subscriptions/listen", 1, params={"notifications": {}}), MODERN) == ()
    assert handles(Action("request", "subscriptions/listen", 1), MODERN) == ()


@pytest.mark.parametrize("task_ids", ["t-1", [1], [""], [None], {"t": 1}, ["t"] * 102])
def test_who_listens_for_what_is_no_list_of_tasks_is_refused(task_ids: Any) -> None:
    with pytest.raises(InvalidParams):
        handles(Action("request", "subscriptions/listen", 1, params={"notifications": {"taskIds": task_ids}}), MODERN)


@pytest.mark.parametrize("task_id", [None, 1, "", ["t"], "x" * 1025])
def test_a_task_that_has_no_id_is_refused(task_id: Any) -> None:
    with pytest.raises(InvalidParams):
        handles(about_task(task_id))


def test_anothers_session_looks_like_none_and_so_does_anothers_task() -> None:
    task = Handle("task", "t", "o", 1)
    declared = Action("request", "tasks/get", 1, params={"taskId": "t", "_meta": {CAPABILITIES: DECLARED}})

    assert isinstance(sessions.unknown(Handle("session", "s", "o", 1), facts(), PING), SessionNotFound)
    assert isinstance(sessions.unknown(task, facts(), about_task("t")), InvalidParams)
    assert isinstance(sessions.unknown(task, facts(MODERN), declared), InvalidParams)


def test_a_modern_client_that_did_not_declare_tasks_is_told_to() -> None:
    refusal = sessions.unknown(Handle("task", "t", "o", 1), facts(MODERN), about_task("t"))

    assert isinstance(refusal, MissingCapability)
    assert refusal.data == {"requiredCapabilities": DECLARED}


def test_the_modern_era_has_no_tasks_result() -> None:
    refusal = sessions.unknown(Handle("task", "t", "o", 1), facts(MODERN), about_task("t", "tasks/result"))

    assert isinstance(refusal, UnknownMethod)


@pytest.mark.parametrize("method", ["tasks/delete", "tasks/anything"])
def test_a_method_nobody_knows_yet_belongs_to_the_task_that_it_names(method: str) -> None:
    assert [handle.id for handle in handles(about_task("t-1", method))] == ["t-1"]
    assert handles(Action("request", method, 1)) == ()


@pytest.mark.parametrize(
    ("lines", "given"),
    [
        ((), None),
        (((b"MCP-SESSION-ID", b"abc"),), "abc"),
        (((b"Mcp-Session-Id", b"eyJ.a-b_c~!"),), "eyJ.a-b_c~!"),
    ],
)
def test_a_session_is_given_out_by_its_header(lines: Any, given: str | None) -> None:
    assert sessions.session_given(lines) == given


@pytest.mark.parametrize(
    "lines",
    [
        ((b"Mcp-Session-Id", b""),),
        ((b"Mcp-Session-Id", b"a b"),),
        ((b"Mcp-Session-Id", b"\xe9"),),
        ((b"Mcp-Session-Id", b"x" * 1025),),
        ((b"Mcp-Session-Id", b"a"), (b"mcp-session-id", b"a")),
    ],
)
def test_an_id_that_no_client_could_send_back_is_never_stored(lines: Any) -> None:
    with pytest.raises(BadGateway):
        sessions.session_given(lines)


@pytest.mark.parametrize(
    ("message", "task_id"),
    [
        ({"id": 1, "result": {"task": {"taskId": "t-1", "status": "working"}}}, "t-1"),
        ({"id": 1, "result": {"resultType": "task", "taskId": "t-2", "status": "working"}}, "t-2"),
        ({"id": 1, "result": {"resultType": "task", "task": {"taskId": "t-3"}}}, "t-3"),
        ({"id": 1, "result": {"resultType": "complete", "taskId": "t-2"}}, None),
        ({"id": 1, "result": {"content": []}}, None),
        ({"id": 1, "result": {"task": {"taskId": 7}}}, None),
        ({"id": 1, "result": {"task": {"taskId": ""}}}, None),
        ({"id": 1, "result": {"task": "t-1"}}, None),
        ({"id": 1, "result": "task"}, None),
        ({"id": 1, "error": {}}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_task_is_given_out_by_the_answer_that_makes_it(message: Any, task_id: str | None) -> None:
    assert sessions.task_given(message) == task_id


def test_a_handle_does_not_show_its_id() -> None:
    """Who knows it can take the session over where the upstream is reached otherwise."""
    handle = Handle("session", "a-session-id", "owner", 60)
    assert "a-session-id" not in f"{handle!r}{Verdict('handle_unknown', 0.0, unknown=handle)!r}"
