"""The tools that ask for more before they answer (MCP 2026-07-28, multi round-trip requests)."""

from __future__ import annotations

from typing import Final

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp_types.jsonrpc import INVALID_PARAMS

from tests.interop.fixture_tools import CONFIRM, NAME, Call, Json, accepted, ask, input_required, text

ROOTS: Final[Json] = {"method": "roots/list", "params": {}}


def sample(words: str, max_tokens: int) -> Json:
    """Return a sampling request."""
    message = {"role": "user", "content": {"type": "text", "text": words}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": max_tokens}}


async def input_elicitation(call: Call) -> Json:
    filled = accepted(call.params.input_responses, "user_name")
    return input_required(user_name=NAME) if not filled else text(f"Hello, {filled.get('name')}!")


async def input_sampling(call: Call) -> Json:
    answer = (call.params.input_responses or {}).get("capital_question")
    if not isinstance(answer, types.CreateMessageResult):
        return input_required(capital_question=sample("What is the capital of France?", 100))
    return text(f"The model said: {getattr(answer.content, 'text', '')}")


async def input_roots(call: Call) -> Json:
    answer = (call.params.input_responses or {}).get("client_roots")
    if not isinstance(answer, types.ListRootsResult):
        return input_required(client_roots=ROOTS)
    return text(f"Roots: {', '.join(str(root.uri) for root in answer.roots)}")


async def input_with_state(call: Call) -> Json:
    """Ask with a state, which the SDK seals; a changed one never gets here."""
    if not accepted(call.params.input_responses, "confirm") or call.params.request_state is None:
        return input_required("asked", confirm=CONFIRM)
    if call.params.request_state != "asked":
        raise MCPError(INVALID_PARAMS, "Another request's state")
    return text("state-ok")


async def input_multiple(call: Call) -> Json:
    if not {"user_name", "greeting", "client_roots"} <= (call.params.input_responses or {}).keys():
        return input_required("asked", user_name=NAME, greeting=sample("Generate a greeting", 50), client_roots=ROOTS)
    return text("All three are answered.")


async def input_multi_round(call: Call) -> Json:
    match call.params.request_state:
        case None:
            return input_required("round 1", step1=ask("Step 1: What is your name?", name={"type": "string"}))
        case "round 1":
            color = ask("Step 2: What is your favorite color?", color={"type": "string"})
            return input_required("round 2", step2=color)
    return text("Both steps are done.")


async def input_capabilities(call: Call) -> Json:
    requests = {
        "user_name": (call.can("elicitation"), NAME),
        "greeting": (call.can("sampling"), sample("Generate a greeting", 50)),
        "client_roots": (call.can("roots"), ROOTS),
    }
    return {
        "resultType": "input_required",
        "inputRequests": {key: request for key, (able, request) in requests.items() if able},
    }
