"""Whose session or task is this?"""

from __future__ import annotations

import re
from typing import Any, Final, TypeGuard

from sidecar.denials import BadGateway, Denial, InvalidParams, MissingCapability, SessionNotFound, UnknownMethod
from sidecar.model import Action, Handle, Headers, Principal, RequestFacts

TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"
_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
TASK_IDLE_S: Final = 7 * 86_400.0
"""A task may be asked about long after it was made; the upstream forgets it by its own rules."""
_SESSION_ID: Final = re.compile(r"[!-~]{1,1024}")
"""Visible ASCII (MCP 2025-11-25, transports, "Session Management"); the length is ours."""
_TASK_METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/update"})
_LONGEST_TASK_ID: Final = 1024
_MOST_TASKS: Final = 100
"""In one request."""


def owner(principal: Principal) -> str:
    """Return who owns what the upstream gives this principal: issuer, subject and client, or the key; and which kind.

    Never what changes with a refresh of the token, and never the session id alone: possession of it proves nothing
    (MCP 2025-11-25, security best practices, "Session Hijacking").
    """
    return f"{principal.kind} {principal.credential_id}"


def handles(principal: Principal, facts: RequestFacts, action: Action, session_idle_s: float) -> tuple[Handle, ...]:
    """Return what the request says it belongs to: its session, and the tasks that it asks about.

    `initialize` begins a session and belongs to none; in the modern era there are no sessions.

    Raises:
        InvalidParams: a `taskId` that is none.
    """
    found = []
    session_id = session_of(facts, action)
    if session_id is not None:
        found.append(Handle("session", session_id, owner(principal), session_idle_s))
    for task_id in _tasks_of(action):
        if not _is_task_id(task_id) or len(found) > _MOST_TASKS:
            raise InvalidParams("task_id", f"A task id must be a string of 1 to {_LONGEST_TASK_ID} characters")
        found.append(Handle("task", task_id, owner(principal), TASK_IDLE_S))
    return tuple(found)


def unknown(handle: Handle, facts: RequestFacts, action: Action) -> Denial:
    """Return the refusal for a handle that is not the caller's: another's looks exactly like one that never was."""
    if handle.kind == "session":
        return SessionNotFound("session_unknown")
    if facts.era == "modern" and action.method == "tasks/result":
        return UnknownMethod("unknown_method")  # removed with 2026-07-28
    if facts.era == "modern" and not declares_tasks(action):
        required: dict[str, Any] = {"extensions": {TASKS_EXTENSION: {}}}
        return MissingCapability(
            "tasks_undeclared",
            f"This method needs the client capability {TASKS_EXTENSION}",
            data={"requiredCapabilities": required},
        )
    return InvalidParams("task_unknown", "Task not found")


def declares_tasks(action: Action) -> bool:
    """Tell whether the request's client has declared the tasks extension, as it does on every request."""
    found: object = action.params
    for member in ("_meta", _CAPABILITIES, "extensions"):
        if not isinstance(found, dict) or member not in found:
            return False
        found = found[member]
    return isinstance(found, dict) and TASKS_EXTENSION in found


def session_of(facts: RequestFacts, action: Action) -> str | None:
    """Return the session id that counts for this request and is passed on with it."""
    if facts.era == "modern" or (action.kind == "request" and action.method == "initialize"):
        return None
    return facts.headers.get("mcp-session-id")


def session_given(lines: Headers) -> str | None:
    """Return the session id that an answer to `initialize` gives out, None when the upstream has no sessions.

    Raises:
        BadGateway: an id that could not be sent back, or several.
    """
    given = [value.decode("latin-1") for name, value in lines if name.lower() == b"mcp-session-id"]
    if len(given) > 1 or not all(_SESSION_ID.fullmatch(session_id) for session_id in given):
        raise BadGateway("upstream_session_id", detail="an impossible session id")
    return given[0] if given else None


def task_given(message: object) -> str | None:
    """Return the id of the task that an answer says was made, None when it makes none.

    `CreateTaskResult` has it in `task` (MCP 2025-11-25), or is the task itself (tasks extension, `resultType: task`).
    """
    result = message.get("result") if isinstance(message, dict) else None
    if not isinstance(result, dict):
        return None
    task = result if result.get("resultType") == "task" and "task" not in result else result.get("task")
    task_id = task.get("taskId") if isinstance(task, dict) else None
    return task_id if _is_task_id(task_id) else None


def _is_task_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 1 <= len(value) <= _LONGEST_TASK_ID


def _tasks_of(action: Action) -> tuple[object, ...]:
    """Return the tasks that a request is about: one, or those that `subscriptions/listen` asks to hear of."""
    if action.kind != "request":
        return ()
    if action.method in _TASK_METHODS or (action.method.startswith("tasks/") and "taskId" in action.params):
        return (action.params.get("taskId"),)
    wanted = action.params.get("notifications") if action.method == "subscriptions/listen" else None
    listened = wanted.get("taskIds") if isinstance(wanted, dict) else None
    return () if listened is None else tuple(listened) if isinstance(listened, list) else (None,)
