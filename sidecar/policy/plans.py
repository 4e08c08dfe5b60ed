"""What will become of the answer to this action?"""

from __future__ import annotations

from typing import Final, Literal

from sidecar.model import Action, Handle, Principal, RequestFacts, ResponsePlan
from sidecar.policy.confirmation import takes_forms
from sidecar.policy.listing import FilterPolicy, ListKind, filters
from sidecar.policy.sessions import declares_tasks

_LISTS: Final[dict[str, ListKind]] = {"tools/list": "tools", "tasks/list": "tasks"}


class Plans:
    """Makes a plan for each answer, by `access.filter_lists` and the idle time of sessions.

    `hides_tools`: some tools are nobody's to see, so that every list of tools is looked at.
    """

    def __init__(self, *, filter_lists: FilterPolicy, session_idle_s: float, hides_tools: bool = False) -> None:
        self._filter_lists: Literal["keys", "all", "none"] = filter_lists
        self._session_idle_s = session_idle_s
        self._hides_tools = hides_tools

    def make(
        self, principal: Principal, facts: RequestFacts, action: Action, belongs_to: tuple[Handle, ...]
    ) -> ResponsePlan:
        """Return the plan. Tasks are everybody's own whatever the configuration says."""
        is_request = action.kind == "request"
        lists = _LISTS.get(action.method) if is_request else None
        session = next((handle for handle in belongs_to if handle.kind == "session"), None) if belongs_to else None
        begins_session = is_request and action.method == "initialize"
        ends_session = action.kind == "end_session"
        makes_task = is_request and action.method == "tools/call" and _may_make_task(action)
        shows = self._shown(principal, facts, lists)
        return ResponsePlan(
            principal,
            facts.era,
            self._session_idle_s,
            action.id,
            session,
            begins_session,
            ends_session,
            makes_task,
            shows,
            lists,
            begins_session and takes_forms(action.params.get("capabilities")),
        )

    def _shown(self, principal: Principal, facts: RequestFacts, lists: ListKind | None) -> tuple[ListKind, ...]:
        asked: tuple[ListKind, ...]
        if "last-event-id" in facts.headers:
            asked = ("tools", "tasks")
        elif lists is None:
            return ()
        else:
            asked = (lists,)
        tools = self._hides_tools or filters(self._filter_lists, principal)
        return tuple(kind for kind in asked if kind == "tasks" or tools)


def _may_make_task(action: Action) -> bool:
    """Tell whether the answer to a call may be a task: the client asked for one, or said that it can take one.

    MCP 2025-11-25, tasks; since 2026-07-28 the tasks extension, where the server decides.
    """
    return isinstance(action.params.get("task"), dict) or declares_tasks(action)
