"""Request facts for tests, from header lines as they stand on the wire."""

from __future__ import annotations

from sidecar.model import RequestFacts
from sidecar.policy import headers, jsonrpc


def facts(*lines: tuple[str, str], method: str = "POST", path: str = "/mcp", query: str | None = None) -> RequestFacts:
    collected, repeated = headers.collect((name.encode("latin-1"), value.encode("latin-1")) for name, value in lines)
    era = jsonrpc.era_of(collected.get("mcp-protocol-version"))
    return RequestFacts(method, path, query, collected, repeated, "192.0.2.1", "request-1", era)
