"""An MCP server on the official SDK with everything that the conformance scenarios name, in both eras.

It knows nothing of credentials. `python -m tests.interop.fixture_server --port 0` prints its URL once it listens.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import mcp_types as types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types.jsonrpc import INVALID_PARAMS
from pydantic import BaseModel
from starlette.applications import Starlette

from tests.interop import fixture_catalogue as catalogue
from tests.interop.fixture_tasks import EXTENSION, WORKS, TaskParams, Tasks, UpdateParams
from tests.interop.fixture_tools import Call, Json, accepted, ask, input_required

NAME: Final = "interop-fixture"
RETRY_MS: Final = 100
CONTEXT: Final = ask("What context should the prompt use?", context={"type": "string"})
Context = ServerRequestContext[Any, Any]


class Events(EventStore):
    """Remembers every event of every stream, so that a client can take one up again by GET."""

    def __init__(self) -> None:
        self._serial = itertools.count(1)
        self._events: dict[str, tuple[str, types.JSONRPCMessage | None]] = {}

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        event_id = str(next(self._serial))
        self._events[event_id] = (stream_id, message)
        return event_id

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if last_event_id not in self._events:
            return None
        stream_id, _ = self._events[last_event_id]
        for event_id, (of_stream, message) in tuple(self._events.items()):
            if of_stream == stream_id and int(event_id) > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, event_id))
        return stream_id


class Fixture:
    """The handlers of the methods. They return the SDK's own models, which it writes as the era wants."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        self.tasks = Tasks()

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams) -> BaseModel:
        return types.ListToolsResult.model_validate({"tools": catalogue.listed_tools()})

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> BaseModel | Json:
        call, known, work = Call(ctx, params, self.bus), catalogue.TOOLS.get(params.name), WORKS.get(params.name)
        if known is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
        result = await (known[0](call) if work is None else self.tasks.call(call, work))
        if result.get("resultType") == "task":
            return result
        kind = types.InputRequiredResult if "inputRequests" in result else types.CallToolResult
        return kind.model_validate(result)

    async def list_prompts(self, ctx: Context, params: types.PaginatedRequestParams) -> BaseModel:
        return types.ListPromptsResult.model_validate({"prompts": catalogue.listed_prompts()})

    async def get_prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> BaseModel:
        if params.name == "test_input_required_result_prompt":
            filled = accepted(params.input_responses, "user_context")
            if not filled:
                return types.InputRequiredResult.model_validate(input_required(user_context=CONTEXT))
            return _prompt([{"type": "text", "text": f"Consider {filled.get('context')}."}])
        contents = catalogue.prompt(params.name, params.arguments or {})
        if contents is None:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")
        return _prompt(contents)

    async def list_resources(self, ctx: Context, params: types.PaginatedRequestParams) -> BaseModel:
        return types.ListResourcesResult.model_validate({"resources": catalogue.listed_resources()})

    async def list_templates(self, ctx: Context, params: types.PaginatedRequestParams) -> BaseModel:
        return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": [catalogue.TEMPLATE]})

    async def read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> BaseModel:
        contents = catalogue.resource(params.uri)
        if contents is None:
            raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": params.uri})
        return types.ReadResourceResult.model_validate({"contents": [contents]})

    async def complete(self, ctx: Context, params: types.CompleteRequestParams) -> BaseModel:
        words = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
        return types.CompleteResult(completion=types.Completion(values=words, total=len(words), has_more=False))

    async def accept(self, ctx: Context, params: types.RequestParams) -> BaseModel:
        """Answer what needs no more than a yes: log levels and subscriptions, which nothing here depends on."""
        return types.EmptyResult()


def _prompt(contents: list[Json]) -> BaseModel:
    messages = [{"role": "user", "content": content} for content in contents]
    return types.GetPromptResult.model_validate({"messages": messages})


def app(host: str = "127.0.0.1") -> Starlette:
    """Return the ASGI app, which answers to loopback names only, as the SDK has it."""
    fixture, server = Fixture(), Server[Any](NAME, version="1.0.0", get_tool_input_schema=_input_schema)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    add = server.add_request_handler
    add("tools/list", types.PaginatedRequestParams, fixture.list_tools)
    add("tools/call", types.CallToolRequestParams, fixture.call_tool)
    add("prompts/list", types.PaginatedRequestParams, fixture.list_prompts)
    add("prompts/get", types.GetPromptRequestParams, fixture.get_prompt)
    add("resources/list", types.PaginatedRequestParams, fixture.list_resources)
    add("resources/templates/list", types.PaginatedRequestParams, fixture.list_templates)
    add("resources/read", types.ReadResourceRequestParams, fixture.read_resource)
    add("resources/subscribe", types.SubscribeRequestParams, fixture.accept)
    add("resources/unsubscribe", types.UnsubscribeRequestParams, fixture.accept)
    add("logging/setLevel", types.SetLevelRequestParams, fixture.accept)
    add("completion/complete", types.CompleteRequestParams, fixture.complete)
    add("subscriptions/listen", types.SubscriptionsListenRequestParams, ListenHandler(fixture.bus))
    add("tasks/get", TaskParams, fixture.tasks.get)
    add("tasks/update", UpdateParams, fixture.tasks.update)
    add("tasks/cancel", TaskParams, fixture.tasks.cancel)
    server.extensions[EXTENSION] = {}
    return server.streamable_http_app(event_store=Events(), retry_interval=RETRY_MS, host=host)


def _input_schema(name: str) -> Json | None:
    known = catalogue.TOOLS.get(name)
    return None if known is None else known[1]


@contextmanager
def fixture_server() -> Iterator[str]:
    """Run the fixture in its own process and yield its URL."""
    command = [sys.executable, "-m", "tests.interop.fixture_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the fixture did not start"
            yield url
        finally:
            process.terminate()


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted. The first line printed is the URL."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.fixture_server")
    parser.add_argument("--port", type=int, default=0, help="port to listen on, 0 for any free one (%(default)s)")
    port = parser.parse_args(argv).port
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # sampling and logging are what is tested here
    # h11, not httptools: it takes the spaces off a header value, which the SDK leaves to its server.
    config = uvicorn.Config(app(), http="h11", log_level="error", timeout_graceful_shutdown=1)
    with socket.create_server(("127.0.0.1", port)) as listener, contextlib.suppress(KeyboardInterrupt):
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)  # noqa: T201 - its one line of output
        uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
