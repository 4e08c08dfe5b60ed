"""The tasks extension (`io.modelcontextprotocol/tasks`), which the SDK does not bring: enough of it for its scenarios.

Calls of some tools become tasks when the client has declared the extension; tasks are then asked about by their ids.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY

from tests.interop.fixture_tools import CONFIRM, NAME, Call, Json, accepted, input_required, text

EXTENSION: Final = "io.modelcontextprotocol/tasks"
HEADER_MISMATCH: Final = -32020
_TTL_MS: Final = 600_000
_POLL_MS: Final = 100
Context = ServerRequestContext[Any, Any]


class TaskParams(types.RequestParams):
    """Parameters of `tasks/get` and `tasks/cancel`."""

    task_id: str


class UpdateParams(TaskParams):
    """Parameters of `tasks/update`."""

    input_responses: dict[str, Any]


@dataclass(slots=True)
class Task:
    """One call that goes on by itself."""

    status: str = "working"
    outcome: Json = field(default_factory=dict)
    pending: Json = field(default_factory=dict)
    """The questions not answered yet, by their keys."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    updated_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def turn(self, status: str, **outcome: Any) -> None:
        self.status, self.outcome, self.updated_at = status, outcome, datetime.now(UTC).isoformat()

    async def ask(self, **requests: Json) -> None:
        """Wait until the client has answered all of these."""
        self.pending = dict(requests)
        self.turn("input_required")
        await self.answered.wait()
        self.turn("working")

    def shown(self) -> Json:
        times = {"createdAt": self.created_at, "lastUpdatedAt": self.updated_at}
        waiting = {"inputRequests": self.pending} if self.pending else {}
        limits = {"ttlMs": _TTL_MS, "pollIntervalMs": _POLL_MS}
        return {"taskId": self.id, "status": self.status, **times, **limits, **self.outcome, **waiting}


Work = Callable[[Call, Task], Awaitable[Json]]


async def slow_compute(call: Call, task: Task) -> Json:
    await asyncio.sleep(float(call.arguments.get("seconds", 0)))
    return text(f"Computed {call.arguments.get('label', 'it')}.")


async def failing_job(call: Call, task: Task) -> Json:
    await asyncio.sleep(1)
    return {**text("The job failed."), "isError": True}


async def protocol_error_job(call: Call, task: Task) -> Json:
    raise MCPError(INTERNAL_ERROR, "The job broke")


async def confirm_delete(call: Call, task: Task) -> Json:
    await task.ask(confirm=CONFIRM)
    return text("Deleted.")


async def multi_input(call: Call, task: Task) -> Json:
    await task.ask(first=NAME, second=CONFIRM)
    return text("Both are answered.")


async def after_asking(call: Call, task: Task) -> Json:
    filled = accepted(call.params.input_responses, "user_name") or {}
    return text(f"Hello, {filled.get('name')}!")


WORKS: Final[dict[str, Work]] = {
    "slow_compute": slow_compute,
    "failing_job": failing_job,
    "protocol_error_job": protocol_error_job,
    "confirm_delete": confirm_delete,
    "multi_input": multi_input,
    "test_tool_with_task": after_asking,
}
_ONLY_AS_TASKS: Final = frozenset({"failing_job", "test_tool_with_task", "confirm_delete", "multi_input"})


class Tasks:
    """All tasks of the server, by their ids."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    async def call(self, call: Call, work: Work) -> Json:
        """Begin a task where the client knows them, else do the work at once where that can be."""
        name = call.params.name
        if not _declared(call.ctx):
            if name in _ONLY_AS_TASKS:
                raise _extension_missing()
            return await work(call, Task())
        if name == "test_tool_with_task" and not accepted(call.params.input_responses, "user_name"):
            return input_required("asked", user_name=NAME)
        task = Task()
        self._tasks[task.id] = task
        task.work = asyncio.create_task(self._run(call, work, task))
        return {"resultType": "task", **task.shown()}

    async def _run(self, call: Call, work: Work, task: Task) -> None:
        try:
            result = await work(call, task)
            task.turn("completed", result={"resultType": "complete", "isError": False, **result})
        except MCPError as error:
            task.turn("failed", error={"code": error.error.code, "message": error.error.message})

    async def get(self, ctx: Context, params: TaskParams) -> Json:
        return {"resultType": "complete", **self._task(ctx, params).shown()}

    async def cancel(self, ctx: Context, params: TaskParams) -> Json:
        task = self._task(ctx, params)
        if task.work is not None and not task.work.done():
            task.work.cancel()
            task.pending = {}
            task.turn("cancelled")
        return {"resultType": "complete"}

    async def update(self, ctx: Context, params: UpdateParams) -> Json:
        task = self._task(ctx, params)
        for key in params.input_responses:
            task.pending.pop(key, None)
        if not task.pending:
            task.answered.set()
        return {"resultType": "complete"}

    def _task(self, ctx: Context, params: TaskParams) -> Task:
        if not _declared(ctx):
            raise _extension_missing()
        if getattr(ctx.request, "headers", {}).get("mcp-name") != params.task_id:
            raise MCPError(HEADER_MISMATCH, "Mcp-Name does not match params.taskId")
        task = self._tasks.get(params.task_id)
        if task is None:
            raise MCPError(INVALID_PARAMS, "Task not found")
        return task


def _declared(ctx: Context) -> bool:
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and EXTENSION in (capabilities.extensions or {})


def _extension_missing() -> MCPError:
    data: Json = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
    return MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This needs the tasks extension", data)
