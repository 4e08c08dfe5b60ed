"""What an answer hands out belongs from then on to the one it was handed to; and of lists, each sees what is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from sidecar.denials import BadGateway, Denial, StoreUnavailable
from sidecar.model import Handle, Headers, Principal, ResponsePlan
from sidecar.policy import sessions
from sidecar.policy.listing import FilterPolicy, ListAnswer, filters, visible_tools
from sidecar.records import Confirmed
from sidecar.stores import HandleStore
from sidecar.tool_classes import ToolClasses

T = TypeVar("T")

EndSession = Callable[[Principal, str], Awaitable[None]]
"""Asks the upstream, in the name of whom it was given to, to forget a session; may raise any `Denial`."""

Envelope = Callable[[Confirmed, bytes], bytes]
"""Puts what an upstream asks for, after a confirmation of this, into an answer that says that it was confirmed."""

_END_SESSION_S: Final = 2.0
"""A client waits for its refusal meanwhile."""
_WORK_IN_THREAD_BYTES: Final = 65_536
_LARGE_MESSAGES: Final = 2
"""As many as are worked on at once: each takes memory, and more of them would only take turns."""


class Handover:
    """Binds sessions and tasks before the client learns of them, forgets sessions that have ended, filters lists."""

    def __init__(
        self,
        handles: HandleStore,
        tools: ToolClasses,
        clock: Callable[[], float],
        end_session: EndSession,
        *,
        filter_lists: FilterPolicy = "all",
        envelope: Envelope = lambda _, message: message,
    ) -> None:
        self._handles = handles
        self._tools = tools
        self._clock = clock
        self._end_session = end_session
        self._filter_lists: FilterPolicy = filter_lists
        self._envelope = envelope
        self._large_messages = asyncio.Semaphore(_LARGE_MESSAGES)

    async def note_head(self, plan: ResponsePlan, status: int, lines: Headers) -> None:
        """Act on the head of an answer.

        Raises:
            BadGateway: the upstream gives out a session id that can't be one.
            StoreUnavailable: the session could not be bound, so the client must not have it, and the upstream was
                asked to forget it.
        """
        if plan.begins_session and status == 200:
            session_id = sessions.session_given(lines)
            if session_id is not None:
                await self._begin_session(plan, session_id)
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
        if plan.confirmed is not None:
            try:
                message = await self._work(message, self._envelope, plan.confirmed, message)
            except ValueError as problem:
                raise BadGateway(
                    "upstream_answer_malformed", detail=f"an answer is no strict JSON: {problem}"
                ) from problem
        for kind in plan.shows:
            if kind == "tools":
                message = await self._work(message, self._tools_shown, plan, message)
            else:
                message = await self._tasks_shown(plan, message)
        return message

    async def _work(self, message: bytes, work: Callable[..., T], *of: Any) -> T:
        """Do what takes long with a large message off the event loop."""
        if len(message) <= _WORK_IN_THREAD_BYTES:
            return work(*of)
        async with self._large_messages:
            return await asyncio.to_thread(work, *of)

    def _tools_shown(self, plan: ResponsePlan, message: bytes) -> bytes:
        """Leave out the tools that the caller may not call, all in one go: this may run in a thread.

        What is not approved is nobody's to see: a description alone can mislead a model.
        """
        listed = ListAnswer.parse(message, plan.message_id if plan.lists == "tools" else None, "tools")
        if listed is None:
            return message
        visible = self._tools.shown(listed.names)
        if filters(self._filter_lists, plan.principal):
            visible = visible_tools(plan.principal, visible, self._tools.of)
        return listed.keep(visible, era=plan.era)

    async def _tasks_shown(self, plan: ResponsePlan, message: bytes) -> bytes:
        list_id = plan.message_id if plan.lists == "tasks" else None
        listed = await self._work(message, ListAnswer.parse, message, list_id, "tasks")
        if listed is None:
            return message
        principal = plan.principal
        owned = await self._handles.owned(principal.account, sessions.owner(principal), "task", listed.names)
        return await self._work(message, partial(listed.keep, owned, era=plan.era))

    async def _note_task(self, plan: ResponsePlan, message: bytes) -> None:
        try:
            task_id = sessions.task_given(await self._work(message, orjson.loads, message))
        except orjson.JSONDecodeError:
            return
        if task_id is not None:
            await self._bind(plan, "task", task_id, sessions.TASK_IDLE_S)

    async def _begin_session(self, plan: ResponsePlan, session_id: str) -> None:
        try:
            await self._bind(plan, "session", session_id, plan.session_idle_s, elicits=plan.elicits)
        except StoreUnavailable:
            with suppress(Denial, TimeoutError):  # then it is the upstream's to forget, as if the client had left
                async with asyncio.timeout(_END_SESSION_S):
                    await self._end_session(plan.principal, session_id)
            raise

    async def _bind(
        self, plan: ResponsePlan, kind: Any, handle_id: str, idle_s: float, *, elicits: bool = False
    ) -> None:
        handle = Handle(kind, handle_id, sessions.owner(plan.principal), idle_s, elicits)
        await self._handles.bind(plan.principal.account, handle, self._clock())
