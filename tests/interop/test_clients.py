"""Other people's clients work through the sidecar as they do directly: the same walk, on both routes, in both eras.

The walk: connect, list, call a tool that reads, one with progress, one that asks the user, and one that writes, which
the credential's scope does not allow; then read once more, to see whether the client got over the refusal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, Bed, Era, tool_call
from tests.interop import node_programs
from tests.interop.conftest import Start
from tests.interop.fixture_catalogue import READS, WRITES
from tests.interop.node_programs import HERE, run

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("node")]

LIMIT_S: Final = 60
VERSIONS: Final[Mapping[Era, str]] = {"legacy": "2025-11-25", "modern": "2026-07-28"}
CLIENTS: Final = HERE / "clients"
ELICITED: Final = "User response: action=accept, content={'username': 'ada', 'email': 'ada@example.com'}"
READ: Final = "This is a simple text response for testing."


@dataclass(frozen=True, slots=True)
class Client:
    """A client as it is started: `URL` and `HEADER` stand for what the test puts in."""

    name: str
    era: Era
    command: tuple[str, ...]
    survives_403: bool = True

    def line(self, url: str, header: tuple[str, str]) -> list[str]:
        """Return the command line; Python 1.x of the SDK is not in our own environment."""
        put_in = {"URL": [url], "HEADER": list(header), "HEADER-LINE": [f"{header[0]}: {header[1]}"]}
        if "PYTHON-1" in self.command:
            put_in["PYTHON-1"] = [node_programs.python_of_mcp_1()]
        return [word for given in self.command for word in put_in.get(given, [given])]


def _remote(name: str, era: Era, protocol: str) -> Client:
    remote = ("mcp-remote", "URL", "--header", "HEADER-LINE", "--transport", "http-only", "--protocol", protocol)
    return Client(name, era, (sys.executable, str(CLIENTS / "python_v2.py"), "legacy", "--", *remote))


PYTHON_1: Final = Client(
    "Python mcp 1.x", "legacy", ("PYTHON-1", str(CLIENTS / "python_v1.py"), "URL", "HEADER"), survives_403=False
)
"""Known of the 1.x: any 4xx ends the connection. `denials: in_band` is for these."""
WALKERS: Final = (
    PYTHON_1,
    Client("Python mcp 2.x", "legacy", (sys.executable, str(CLIENTS / "python_v2.py"), "legacy", "URL", "HEADER")),
    Client("Python mcp 2.x", "modern", (sys.executable, str(CLIENTS / "python_v2.py"), "modern", "URL", "HEADER")),
    Client("TypeScript sdk 1.x", "legacy", ("node", str(CLIENTS / "typescript_v1.mjs"), "URL", "HEADER")),
    Client("TypeScript client 2.x", "legacy", ("node", str(CLIENTS / "typescript_v2.mjs"), "legacy", "URL", "HEADER")),
    Client("TypeScript client 2.x", "modern", ("node", str(CLIENTS / "typescript_v2.mjs"), "modern", "URL", "HEADER")),
    _remote("mcp-remote", "legacy", "legacy"),
    _remote("mcp-remote", "modern", "auto"),
)
each_walker = pytest.mark.parametrize("client", WALKERS, ids=lambda client: f"{client.name} {client.era}")
each_route = pytest.mark.parametrize("route", [JWT_ROUTE, KEY_ROUTE])


class Serving(Protocol):
    """A running sidecar that gives out credentials, in this process or in others."""

    def token(self, scope: str) -> str: ...

    async def key(self, *scopes: str) -> str: ...


async def credential(bed: Serving, route: str, scope: str) -> tuple[str, str]:
    """Return the header that carries a credential with this scope on this route."""
    if route == JWT_ROUTE:
        return "Authorization", f"Bearer {bed.token(scope)}"
    return "X-API-Key", await bed.key(scope)


async def ready(start: Start, **settings: Any) -> Bed:
    """Start a sidecar that already knows the fixture's tools."""
    bed = await start(**settings)
    await bed.post_when_catalogued(tool_call("write_note"), token=bed.token("mcp:read"))
    return bed


async def walk(client: Client, url: str, header: tuple[str, str], home: Path) -> dict[str, Any]:
    """Let the client do its walk and return what it saw."""
    given = {"MCP_REMOTE_CONFIG_DIR": str(home), "BROWSER": "true"}
    done = await run(*client.line(url, header), timeout_s=LIMIT_S, given=given)
    assert done.out.strip(), done.err
    seen: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return seen


def eras(bed: Bed) -> set[str]:
    return {
        access["era"] for access in bed.accesses() if access["method"].startswith("tools/") and access["status"] == 200
    }


def assert_walked(seen: dict[str, Any], client: Client, route: str) -> None:
    """Assert all of the walk but its end, which depends on how the refusal came."""
    told = str(seen)
    assert seen.get("read") == READ, told
    assert seen["progress"] == [0, 50, 100], told
    assert seen.get("elicited") == ELICITED, told
    assert "written" not in seen, told
    assert set(seen["tools"]) == (set(READS) if route == KEY_ROUTE else {*READS, *WRITES})


def assert_got_over_the_refusal(seen: dict[str, Any]) -> None:
    assert seen.get("refused"), seen
    assert seen.get("after") == READ, seen


@each_route
@each_walker
async def test_a_client_works_through_the_sidecar_as_it_does_directly(
    client: Client, route: str, start: Start, fixture_url: str, tmp_path: Path
) -> None:
    bed = await ready(start)
    direct = await walk(client, fixture_url, ("X-Nothing", "here"), tmp_path / "direct")
    assert direct.get("written") == "Written: x", direct
    header = await credential(bed, route, "mcp:read")
    seen = await walk(client, bed.sidecar.public_url_bound + route, header, tmp_path / "through")
    assert_walked(seen, client, route)
    assert seen["version"] == direct["version"]
    assert eras(bed) >= {client.era}
    if client.survives_403:
        assert_got_over_the_refusal(seen)
    else:
        assert "after" not in seen, "it outlives a refusal now: say so in the README"


@each_route
async def test_a_refusal_in_band_keeps_the_python_1_client_connected(start: Start, route: str, tmp_path: Path) -> None:
    routes = [
        {"path": JWT_ROUTE, "credentials": ["jwt"], "denials": "in_band"},
        {"path": KEY_ROUTE, "credentials": ["api_key"], "denials": "in_band"},
    ]
    bed = await ready(start, routes=routes)
    header = await credential(bed, route, "mcp:read")
    seen = await walk(PYTHON_1, bed.sidecar.public_url_bound + route, header, tmp_path)
    assert_walked(seen, PYTHON_1, route)
    assert_got_over_the_refusal(seen)


async def inspect(url: str, header: tuple[str, str], era: Era, *arguments: str) -> tuple[int, Any]:
    """Run the Inspector's command line once; return its exit code and what it printed."""
    line = ("mcp-inspector", "--cli", url, "--transport", "http", "--header", f"{header[0]}: {header[1]}", "--quiet")
    how = ("--protocol-era", era, "--format", "json", "--stored-auth-only")
    done = await run(*line, *how, *arguments, timeout_s=LIMIT_S)
    return done.code, json.loads(done.out)["result"] if done.out.strip() else done.err


def calling(tool: str, *arguments: str) -> list[str]:
    return [
        "--method",
        "tools/call",
        "--tool-name",
        tool,
        *(word for pair in arguments for word in ("--tool-arg", pair)),
    ]


@each_route
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_inspector_works_through_the_sidecar(start: Start, route: str, era: Era) -> None:
    bed = await ready(start)
    url, header = bed.sidecar.public_url_bound + route, await credential(bed, route, "mcp:read")
    code, listed = await inspect(url, header, era, "--method", "tools/list")
    assert code == 0, listed
    assert {tool["name"] for tool in listed["tools"]} == (set(READS) if route == KEY_ROUTE else {*READS, *WRITES})
    code, read = await inspect(url, header, era, *calling("test_simple_text"))
    assert (code, read["content"][0]["text"]) == (0, READ), read
    code, progress = await inspect(url, header, era, *calling("test_tool_with_progress"))
    assert (code, progress["isError"]) == (0, False), progress
    code, refused = await inspect(url, header, era, *calling("write_note", "note=x"))
    assert code != 0, refused
    assert eras(bed) == {era}


@each_route
async def test_the_inspector_answers_an_elicitation_of_the_upstream(start: Start, route: str) -> None:
    """Without a person it says that the user cancelled; in the modern era it waits for one, directly as well."""
    bed = await ready(start)
    url, header = bed.sidecar.public_url_bound + route, await credential(bed, route, "mcp:read")
    code, elicited = await inspect(url, header, "legacy", *calling("test_elicitation", "message=Who?"))
    assert (code, elicited["content"][0]["text"]) == (0, "User response: action=cancel, content=None"), elicited
