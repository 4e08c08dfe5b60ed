"""What an answer hands out belongs from then on to the one it was handed to; and of lists, each sees what is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

import orjson

from sidecar.catalogue import ToolClasses
from sidecar.model import Handle, Headers, ResponsePlan
from sidecar.policy import sessions
from sidecar.policy.listing import ListAnswer, ListKind, visible_tools
from sidecar.stores import HandleStore

_PARSE_IN_THREAD_BYTES: Final = 65_536


class Handover:
    """Binds sessions and tasks before the client learns of them, forgets sessions that have ended, filters lists."""

    def __init__(self, handles: HandleStore, tools: ToolClasses, clock: Callable[[], float]) -> None:
        self._handles = handles
        self._tools = tools
        self._clock = clock

    async def note_head(self, plan: ResponsePlan, status: int, lines: Headers) -> None:
        """Act on the head of an answer.

        Raises:
            BadGateway: the upstream gives out a session id that can't be one.
            StoreUnavailable: the session could not be bound, so the client must not have it.
        """
        if plan.begins_session and status == 200:
            session_id = sessions.session_given(lines)
            if session_id is not None:
                await self._bind(plan, "session", session_id, plan.session_idle_s)
        elif plan.session is not None and (status == 404 or (plan.ends_session and status < 300)):
            await self._handles.release(plan.principal.account, plan.session)

    async def message(self, plan: ResponsePlan, message: bytes) -> bytes:
        """Return one JSON-RPC message of an answer as its client gets it; the very same one when nothing changes.

        Raises:
            BadGateway: a list that can't be read for certain.
            UpstreamNotReady, StoreUnavailable: what the client may see, or who made a task, can't be found out or kept.
        """
        if plan.makes_task:
            await self._note_task(plan, message)
        for kind in plan.shows:
            listed = await self._parse(message, plan, kind)
            if listed is not None:
                message = listed.keep(await self._visible(plan, kind, listed.names), era=plan.era)
        return message

    async def _parse(self, message: bytes, plan: ResponsePlan, kind: ListKind) -> ListAnswer | None:
        list_id = plan.message_id if plan.lists == kind else None
        if len(message) <= _PARSE_IN_THREAD_BYTES:
            return ListAnswer.parse(message, list_id, kind)
        return await asyncio.to_thread(ListAnswer.parse, message, list_id, kind)

    async def _visible(self, plan: ResponsePlan, kind: ListKind, names: tuple[str, ...]) -> Collection[str]:
        principal = plan.principal
        if kind == "tools":
            return visible_tools(principal, names, self._tools.of)
        return await self._handles.owned(principal.account, sessions.owner(principal), "task", names)

    async def _note_task(self, plan: ResponsePlan, message: bytes) -> None:
        try:
            large = len(message) > _PARSE_IN_THREAD_BYTES
            document = await asyncio.to_thread(orjson.loads, message) if large else orjson.loads(message)
            task_id = sessions.task_given(document)
        except orjson.JSONDecodeError:
            return
        if task_id is not None:
            await self._bind(plan, "task", task_id, sessions.TASK_IDLE_S)

    async def _bind(self, plan: ResponsePlan, kind: Any, handle_id: str, idle_s: float) -> None:
        handle = Handle(kind, handle_id, sessions.owner(plan.principal), idle_s)
        await self._handles.bind(plan.principal.account, handle, self._clock())
