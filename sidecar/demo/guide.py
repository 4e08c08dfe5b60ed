"""What the demo prints: commands to paste, each with the answer to expect."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MODERN: Final = "2026-07-28"
_META: Final = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
DEPOSIT: Final = {"description": "Lottery", "amount_cents": 5000}


@dataclass(frozen=True, slots=True)
class Demo:
    """Everything that runs and was made, for the text below."""

    url: str
    admin_url: str
    finance_url: str
    issuer_url: str
    directory: Path
    read_key: str = field(repr=False)
    full_key: str = field(repr=False)
    token: str = field(repr=False)

    @property
    def config_file(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def log_file(self) -> Path:
        return self.directory / "sidecar.log"


def call(tool: str, arguments: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Return the headers and the body of a `tools/call` that needs no session (MCP 2026-07-28)."""
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    params = {"name": tool, "arguments": arguments, "_meta": _META}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return headers, json.dumps(message, separators=(",", ":"))


def text(demo: Demo) -> str:
    """Return the whole guide."""
    inspector, mcp, rest = f"{demo.url}/mcp/inspector", f"{demo.url}/mcp", f"{demo.url}/api/api-keys"
    read_key, full_key = ("X-API-Key", demo.read_key), ("X-API-Key", demo.full_key)
    bearer = ("Authorization", f"Bearer {demo.token}")
    steps = (
        ("Read with a read-only key -> 200 and a balance", _curl_call(inspector, read_key, "get_balance", {})),
        (
            "Write with the same key -> 403 INSUFFICIENT_SCOPE",
            _curl_call(inspector, read_key, "add_transaction", DEPOSIT),
        ),
        ("Write with the full key -> 200", _curl_call(inspector, full_key, "add_transaction", DEPOSIT)),
        ("Read with a token instead of a key -> 200", _curl_call(mcp, bearer, "list_transactions", {"limit": 3})),
        ("No credential -> 401", f"curl -si {mcp} -H 'Content-Type: application/json' -d '{{}}'"),
        ("List your keys -> 200, without their secrets", f"curl -si {rest} -H '{bearer[0]}: {bearer[1]}'"),
        (
            "The MCP Inspector (Node 22 or newer) -> the tools of the finance server",
            f"npx -y @modelcontextprotocol/inspector@latest --cli {inspector} --transport http --method tools/list \\\n"
            f'  --header "X-API-Key: {demo.read_key}"',
        ),
        (
            "The same store from the command line",
            f"{sys.executable} -m sidecar keys list --account alice --config {demo.config_file}",
        ),
        ("Metrics, for Prometheus", f"curl -s {demo.admin_url}/metrics"),
    )
    lines = [f"{number}. {title}\n\n{command}\n" for number, (title, command) in enumerate(steps, 1)]
    return "\n".join([_overview(demo), *lines, "Press Ctrl-C to stop; everything is deleted then."])


def _overview(demo: Demo) -> str:
    return f"""
Running, all of it as account "alice" and for 8 hours:

  sidecar      {demo.url}/mcp (tokens), {demo.url}/mcp/inspector (API keys)
  key page     {demo.url}/keys, in a browser; it takes the token below
  admin        {demo.admin_url}/readyz
  MCP server   {demo.finance_url}, unchanged, behind the sidecar
  issuer       {demo.issuer_url}, a dev issuer; it made the token below and gives out no other
  config       {demo.config_file}
  request log  {demo.log_file}
"""


def _curl_call(url: str, credential: tuple[str, str], tool: str, arguments: Mapping[str, Any]) -> str:
    headers, body = call(tool, arguments)
    lines = [f"-H '{name}: {value}'" for name, value in (credential, *headers.items())]
    return " \\\n  ".join([f"curl -si {url}", *lines, f"-d '{body}'"])
