"""The tools that the conformance scenarios name, and a few that the client tests need.

A tool is a function from a `Call` to the result's plain JSON. What a scenario expects of each is described in the suite
itself (`conformance list --server`, and the descriptions of its scenarios).
"""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import wave
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import SubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged
from mcp_types.jsonrpc import MISSING_REQUIRED_CLIENT_CAPABILITY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

Json = dict[str, Any]
PAUSE_S: Final = 0.05
"""Between two notifications, so that a client (and a proxy that buffers) can be told from one that waits for all."""
RECONNECT_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Call:
    """One `tools/call`: its context, its parameters and where changes are announced."""

    ctx: ServerRequestContext[Any, Any]
    params: types.CallToolRequestParams
    bus: SubscriptionBus

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.params.arguments or {}

    @property
    def is_modern(self) -> bool:
        return self.ctx.protocol_version in MODERN_PROTOCOL_VERSIONS

    def can(self, capability: str) -> bool:
        declared = self.ctx.session.client_capabilities
        return declared is not None and getattr(declared, capability) is not None

    async def log(self, data: str) -> None:
        await self.ctx.session.send_log_message("info", data, related_request_id=self.ctx.request_id)

    async def elicit(self, message: str, schema: Json) -> types.ElicitResult:
        return await self.ctx.session.elicit_form(message, schema, related_request_id=self.ctx.request_id)


Tool = Callable[[Call], Awaitable[Json]]


def text(words: str) -> Json:
    """Return a result that says this."""
    return {"content": [{"type": "text", "text": words}]}


def png() -> str:
    """Return a red pixel, base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def wav() -> str:
    """Return a moment of silence, base64."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(b"\x80" * 8)
    return base64.b64encode(buffer.getvalue()).decode()


def ask(message: str, **properties: Json) -> Json:
    """Return an elicitation with these required properties."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def input_required(state: str | None = None, **requests: Json) -> Json:
    """Return what asks the client for more (MCP 2026-07-28, multi round-trip requests)."""
    result: Json = {"resultType": "input_required", "inputRequests": requests}
    return result if state is None else {**result, "requestState": state}


def accepted(responses: Mapping[str, Any] | None, key: str) -> Mapping[str, Any] | None:
    """Return what the user filled in under this key, if the form was accepted."""
    answer = (responses or {}).get(key)
    return (answer.content or {}) if isinstance(answer, types.ElicitResult) and answer.action == "accept" else None


NAME: Final = ask("What is your name?", name={"type": "string"})
CONFIRM: Final = ask("Please confirm", ok={"type": "boolean"})


async def greet(call: Call) -> Json:
    return text(f"Hello, {call.arguments['name']}!")


async def simple_text(call: Call) -> Json:
    return text("This is a simple text response for testing.")


async def image(call: Call) -> Json:
    return {"content": [{"type": "image", "data": png(), "mimeType": "image/png"}]}


async def audio(call: Call) -> Json:
    return {"content": [{"type": "audio", "data": wav(), "mimeType": "audio/wav"}]}


async def embedded_resource(call: Call) -> Json:
    resource = {"uri": "test://embedded-resource", "mimeType": "text/plain"}
    content = {**resource, "text": "This is an embedded resource content."}
    return {"content": [{"type": "resource", "resource": content}]}


async def mixed(call: Call) -> Json:
    resource = {"uri": "test://mixed-content-resource", "mimeType": "application/json"}
    return {
        "content": [
            {"type": "text", "text": "Multiple content types test:"},
            {"type": "image", "data": png(), "mimeType": "image/png"},
            {"type": "resource", "resource": {**resource, "text": '{"test":"data","value":123}'}},
        ]
    }


async def logging(call: Call) -> Json:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await call.log(words)
        await asyncio.sleep(PAUSE_S)
    return text("Three things were logged.")


async def progress(call: Call) -> Json:
    for done in (0, 50, 100):
        await call.ctx.session.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(PAUSE_S)
    return text("All of 100 is done.")


async def failing(call: Call) -> Json:
    return {**text("This tool intentionally returns an error for testing"), "isError": True}


async def reconnection(call: Call) -> Json:
    """Leave the client without a connection in the middle of the call (SSE polling, MCP 2025-11-25).

    Not at once: the SDK would close the stream before its first event, the one to resume from, was written.
    """
    await asyncio.sleep(PAUSE_S)
    if call.ctx.close_sse_stream is not None:
        await call.ctx.close_sse_stream()
    await asyncio.sleep(RECONNECT_S)
    return text("The stream was closed and taken up again.")


async def sampling(call: Call) -> Json:
    message = types.SamplingMessage(role="user", content=types.TextContent(text=str(call.arguments["prompt"])))
    answer = await call.ctx.session.create_message([message], max_tokens=100, related_request_id=call.ctx.request_id)
    return text(f"LLM response: {getattr(answer.content, 'text', '')}")


async def elicitation(call: Call) -> Json:
    """Ask for what the scenario asks for, in whichever way the era has."""
    form = ask(
        str(call.arguments["message"]),
        username={"type": "string", "description": "User's response"},
        email={"type": "string", "description": "User's email address"},
    )
    if call.is_modern:
        answer = (call.params.input_responses or {}).get("user")
        if not isinstance(answer, types.ElicitResult):
            return input_required(user=form)
    else:
        answer = await call.elicit(form["params"]["message"], form["params"]["requestedSchema"])
    return text(f"User response: action={answer.action}, content={answer.content}")


async def elicitation_defaults(call: Call) -> Json:
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    answer = await call.elicit("Please look through the defaults", {"type": "object", "properties": properties})
    return text(f"Elicitation completed: action={answer.action}, content={answer.content}")


async def elicitation_enums(call: Call) -> Json:
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
    properties = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    answer = await call.elicit("Please choose", {"type": "object", "properties": properties})
    return text(f"Elicitation completed: action={answer.action}, content={answer.content}")


async def missing_capability(call: Call) -> Json:
    if not call.can("sampling"):
        data: Json = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", data)
    return text("The client can sample.")


async def streaming_elicitation(call: Call) -> Json:
    await call.ctx.session.report_progress(1, 2)
    return text("confirmed") if accepted(call.params.input_responses, "confirm") else input_required(confirm=CONFIRM)


async def trigger_tool_change(call: Call) -> Json:
    await call.bus.publish(ToolsListChanged())
    return text("Announced.")


async def trigger_prompt_change(call: Call) -> Json:
    await call.bus.publish(PromptsListChanged())
    return text("Announced.")


async def write_note(call: Call) -> Json:
    return text(f"Written: {call.arguments.get('note', '')}")
