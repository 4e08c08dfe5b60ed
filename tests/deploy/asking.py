"""What somebody does with a sidecar in a container: make a key inside, and call with it from outside."""

from __future__ import annotations

import json

from tests.deploy.containers import Container, Network
from tests.e2e.bed import KEY_ROUTE, tool_call

PUBLIC = "http://127.0.0.1:8080"
ADMIN = "http://127.0.0.1:9090"
LIVE = f"{ADMIN}/livez"


async def make_key(container: Container) -> str:
    """Make a key that may do everything."""
    act = ["--account", "acme", "--name", "test", "--scope", "mcp:full", "--json"]
    made = await container.run("sidecar", "keys", "create", *act)
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


async def call(network: Network, key: str) -> int:
    """Call a tool and return the status."""
    headers = {"X-API-Key": key, "Accept": "application/json, text/event-stream"}
    answer = await network.request("POST", PUBLIC + KEY_ROUTE, json=tool_call("look"), headers=headers)
    return answer.status_code
