"""Callers and calls for tests of confirmations."""

from __future__ import annotations

import json
from typing import Any

from sidecar.model import Action, CredentialKind, Headers, Permit, Principal, ResponsePlan
from sidecar.policy import jsonrpc
from sidecar.policy.confirmation import Asked, asked_about
from sidecar.records import Confirmation, KeyRecord
from tests.policy.facts import facts

NOW = 1_790_000_000.0


def caller(kind: CredentialKind = "jwt", credential_id: str = "ann at web", account: str = "acme") -> Principal:
    return Principal(account, "ann", kind, credential_id, ("mcp:full",), NOW, NOW + 60, "web")


def key_holder(origin: Any) -> Principal:
    record = KeyRecord("key_1", "acme", "k", "mcp_", ("mcp:full",), "hash", NOW, "ann", origin, 60, NOW + 60)
    return Principal("acme", "key_1", "api_key", "key_1", ("mcp:full",), NOW, NOW + 60, key=record)


def call_body(tool: str = "drop", arguments: object = None, **params: Any) -> bytes:
    whole = {"name": tool, "arguments": {"id": 42} if arguments is None else arguments, **params}
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": whole}).encode()


def call(tool: str = "drop", arguments: object = None, **params: Any) -> Action:
    return jsonrpc.action(jsonrpc.parse(call_body(tool, arguments, **params)), "legacy")


def asked(
    body: bytes | None = None,
    *,
    query: str | None = None,
    headers: Headers = (),
    version: str = "2025-11-25",
    **changes: Any,
) -> Asked:
    """Return what a person is asked about, of a call that is made of these changes unless its body is given."""
    body = call_body(**changes) if body is None else body
    message = jsonrpc.parse(body)
    seen = facts(("MCP-Protocol-Version", version), query=query)
    target = "/mcp" if query is None else f"/mcp?{query}"
    permit = Permit("POST", target, headers, body, (), ResponsePlan(caller(), seen.era, 60))
    return asked_about(seen, jsonrpc.action(message, seen.era), permit)


def confirmation(**changes: Any) -> Confirmation:
    fields: dict[str, Any] = {
        "id": "a" * 32,
        "kind": "approval",
        "account": "acme",
        "owner": "jwt ann at web",
        "binding": "b",
        "session": "",
        "subject": "ann",
        "client_id": "web",
        "tool": "drop",
        "message": "Run drop?",
        "created_at": NOW,
        "expires_at": NOW + 60,
    }
    return Confirmation(**{**fields, **changes})
