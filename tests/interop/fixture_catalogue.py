"""What the fixture lists: each tool with its schema and annotations, the prompts, the resources."""

from __future__ import annotations

from typing import Any, Final

from tests.interop import fixture_inputs as inputs
from tests.interop import fixture_tools as tools
from tests.interop.fixture_tasks import WORKS
from tests.interop.fixture_tools import Json, Tool

NOTHING: Final[Json] = {"type": "object", "properties": {}}
JSON_SCHEMA_2020_12: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def _taking(name: str, **more: Any) -> Json:
    return {"type": "object", "properties": {name: {"type": "string", **more}}, "required": [name]}


READS: Final[dict[str, tuple[Tool, Json]]] = {
    "test_simple_text": (tools.simple_text, NOTHING),
    "greet": (tools.greet, _taking("name")),
    "test_image_content": (tools.image, NOTHING),
    "test_audio_content": (tools.audio, NOTHING),
    "test_embedded_resource": (tools.embedded_resource, NOTHING),
    "test_multiple_content_types": (tools.mixed, NOTHING),
    "test_tool_with_logging": (tools.logging, NOTHING),
    "test_logging_tool": (tools.logging, NOTHING),
    "test_tool_with_progress": (tools.progress, NOTHING),
    "test_error_handling": (tools.failing, NOTHING),
    "test_reconnection": (tools.reconnection, NOTHING),
    "test_sampling": (tools.sampling, _taking("prompt")),
    "test_elicitation": (tools.elicitation, _taking("message")),
    "test_elicitation_sep1034_defaults": (tools.elicitation_defaults, NOTHING),
    "test_elicitation_sep1330_enums": (tools.elicitation_enums, NOTHING),
    "test_missing_capability": (tools.missing_capability, NOTHING),
    "test_streaming_elicitation": (tools.streaming_elicitation, NOTHING),
    "json_schema_2020_12_tool": (tools.simple_text, JSON_SCHEMA_2020_12),
    "test_custom_headers": (tools.simple_text, _taking("region", **{"x-mcp-header": "Region"})),
    "test_input_required_result_elicitation": (inputs.input_elicitation, NOTHING),
    "test_input_required_result_sampling": (inputs.input_sampling, NOTHING),
    "test_input_required_result_list_roots": (inputs.input_roots, NOTHING),
    "test_input_required_result_request_state": (inputs.input_with_state, NOTHING),
    "test_input_required_result_tampered_state": (inputs.input_with_state, NOTHING),
    "test_input_required_result_multiple_inputs": (inputs.input_multiple, NOTHING),
    "test_input_required_result_multi_round": (inputs.input_multi_round, NOTHING),
    "test_input_required_result_capabilities": (inputs.input_capabilities, NOTHING),
}
WRITES: Final[dict[str, tuple[Tool, Json]]] = {
    **dict.fromkeys(WORKS, (tools.simple_text, NOTHING)),
    "test_trigger_tool_change": (tools.trigger_tool_change, NOTHING),
    "test_trigger_prompt_change": (tools.trigger_prompt_change, NOTHING),
    "write_note": (tools.write_note, _taking("note")),
}
TOOLS: Final = {**READS, **WRITES}


def listed_tools() -> list[Json]:
    """Return what `tools/list` shows."""
    return [
        {
            "name": name,
            "description": f"The fixture's {name.replace('_', ' ')}.",
            "inputSchema": schema,
            "annotations": {"readOnlyHint": name in READS, "destructiveHint": False},
        }
        for name, (_, schema) in TOOLS.items()
    ]


_ARGUMENTS: Final[dict[str, tuple[str, ...]]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


def listed_prompts() -> list[Json]:
    """Return what `prompts/list` shows."""
    return [
        {
            "name": name,
            "description": f"The fixture's {name.replace('_', ' ')}.",
            "arguments": [{"name": argument, "description": argument, "required": True} for argument in arguments],
        }
        for name, arguments in _ARGUMENTS.items()
    ]


def prompt(name: str, arguments: dict[str, str]) -> list[Json] | None:
    """Return the contents of a prompt's messages, or None for a name that nothing has."""
    match name:
        case "test_simple_prompt":
            return [{"type": "text", "text": "This is a simple prompt for testing."}]
        case "test_prompt_with_arguments":
            given = f"arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'"
            return [{"type": "text", "text": f"Prompt with arguments: {given}"}]
        case "test_prompt_with_embedded_resource":
            resource = {"uri": arguments["resourceUri"], "mimeType": "text/plain"}
            return [
                {"type": "resource", "resource": {**resource, "text": "Embedded resource content for testing."}},
                {"type": "text", "text": "Please process the embedded resource above."},
            ]
        case "test_prompt_with_image":
            return [
                {"type": "image", "data": tools.png(), "mimeType": "image/png"},
                {"type": "text", "text": "Please analyze the image above."},
            ]
    return None


RESOURCES: Final[dict[str, Json]] = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": tools.png()},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content"},
}
TEMPLATE: Final[Json] = {
    "uriTemplate": "test://template/{id}/data",
    "name": "template",
    "description": "Data of any id.",
    "mimeType": "application/json",
}


def listed_resources() -> list[Json]:
    """Return what `resources/list` shows."""
    return [
        {
            "uri": uri,
            "name": uri.removeprefix("test://"),
            "description": f"The fixture's {uri.removeprefix('test://')}.",
            "mimeType": content["mimeType"],
        }
        for uri, content in RESOURCES.items()
    ]


def resource(uri: str) -> Json | None:
    """Return what a URI holds, or None for one that nothing has."""
    known = RESOURCES.get(uri)
    if known is not None:
        return {"uri": uri, **known}
    head, tail = "test://template/", "/data"
    if not (uri.startswith(head) and uri.endswith(tail)):
        return None
    given = uri[len(head) : -len(tail)]
    data = f'{{"id":"{given}","templateTest":true,"data":"Data for ID: {given}"}}'
    return {"uri": uri, "mimeType": "application/json", "text": data}
