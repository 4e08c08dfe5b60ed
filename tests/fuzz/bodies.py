"""Request bodies: what passes means the same to every parser, and it is passed on to the byte.

An input is a body, or a NUL and what one is made of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import orjson

from sidecar.denials import Denial, InvalidJson
from sidecar.model import Era, Permit, Progress
from sidecar.policy import jsonrpc, strictjson
from sidecar.policy.identity import content_digest
from tests.fuzz import made, readers
from tests.fuzz.made import Grammar, Shape
from tests.fuzz.readers import ABSENT, Lookup, Members
from tests.fuzz.target import Target, at_once
from tests.policy.facts import facts
from tests.test_gateway import JWT, ROUTE, Bed

FACTS: Final = (
    ("jsonrpc",), ("id",), ("method",), ("params",), ("result",), ("error",),
    ("params", "name"), ("params", "uri"), ("params", "taskId"), ("params", "task"), ("params", "_meta"),
    ("params", "ref", "type"), ("params", "notifications", "taskIds"),
    ("params", "notifications", "resourceSubscriptions"), ("params", "notifications", "toolsListChanged"),
)  # fmt: skip
HARMLESS: Final = frozenset(
    {
        *("initialize", "ping", "server/discover", "tools/list", "logging/setLevel", "completion/complete"),
        *("resources/list", "resources/templates/list", "resources/read", "resources/subscribe"),
        *("resources/unsubscribe", "resources/directory/read", "skills/list", "skills/get", "prompts/list"),
        *("prompts/get", "tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update"),
        *("subscriptions/listen", "notifications/initialized", "notifications/cancelled", "notifications/progress"),
        *("notifications/roots/list_changed", "notifications/tasks/status"),
    }
)
"""What `mcp:read` may ask for beside calls of the one tool that is known to read."""
ERAS: Final[tuple[Era, ...]] = ("legacy", "modern")
READ_TOOL: Final = "get"
READER: Final = Bed(replace(JWT, scopes=("mcp:read",)))
ASKED: Final = facts(("Authorization", "Bearer a.b.c"), ("Content-Type", "application/json"))


def check(data: bytes) -> bool:
    body = GRAMMAR.made(data[1:]) if data.startswith(made.MARK) else data
    judge_strictness(body)
    try:
        document = jsonrpc.parse(body)
    except Denial:
        assert jsonrpc.glance(body) == (None, None)
        return False
    read, *others = readers.documents(body)
    assert len(others) == 1
    assert others == [read], "not every program reads one and the same text"
    for lookup in readers.LOOKUPS:
        judge_agreement(document, lookup, read)
        judge_actions(document, lookup, read)
    permit = walk(body)
    if permit is None:
        return False
    assert permit.body is body
    assert (b"Content-Digest", content_digest(body).encode()) in permit.headers
    for lookup in readers.LOOKUPS:
        judge_harmlessness(lookup, read)
    return True


def judge_strictness(body: bytes) -> None:
    """The one strict reader gives the only reading or refuses, and gives the right reason for it."""
    try:
        value = strictjson.loads(body)
    except Denial as denial:
        # What the standard library reads from strict UTF-8, and nothing else is wrong with, must have a name twice.
        if not isinstance(denial, InvalidJson):
            assert readers.has_doubled_name(readers.read(body.decode()))
        return
    read = readers.read(body.decode())
    assert readers.is_finite(read)
    assert not readers.has_doubled_name(read)
    assert readers.told(value) == readers.told(read)
    assert orjson.loads(body) == value


def judge_agreement(document: dict[str, Any], lookup: Lookup, read: Any) -> None:
    for path in FACTS:
        assert readers.told(_at(document, *path)) == readers.told(lookup(read, *path)), (path, lookup)


def _at(node: Any, *path: str) -> Any:
    for name in path:
        node = node.get(name, ABSENT) if isinstance(node, dict) else ABSENT
    return node


def judge_actions(document: dict[str, Any], lookup: Lookup, read: Any) -> None:
    """In both eras an action is what every reader would take it for."""
    method, tool = lookup(read, "method"), lookup(read, "params", "name")
    for era in ERAS:
        try:
            action = jsonrpc.action(document, era)
        except Denial:
            continue
        assert (action.method or ABSENT) == method
        assert action.id is None or action.id == readers.told(lookup(read, "id"))
        assert (action.tool is None) == (method != "tools/call" or action.kind != "request")
        assert action.tool is None or action.tool == tool


def walk(body: bytes) -> Permit | None:
    """Let somebody who may only read ask for this, of the whole gateway."""
    bed, progress = READER, Progress()
    bed.admissions.admissions.clear()
    try:
        permit: Permit = at_once(bed.gateway.check(ROUTE, ASKED, bed.reader(body), progress))
    except Denial:
        return None
    finally:
        if progress.holds_stream and progress.principal is not None:
            bed.gateway._stream_limit.release(progress.principal)
    return permit


def judge_harmlessness(lookup: Lookup, read: Any) -> None:
    """No reader may see in it more than `mcp:read` allows."""
    assert isinstance(read, Members)
    method = lookup(read, "method")
    if method == "tools/call":
        assert lookup(read, "params", "name") == READ_TOOL
    elif method != ABSENT:
        assert method in HARMLESS


NOTICES: Final = ("toolsListChanged", "taskIds", "resourceSubscriptions", "promptsListChanged", "vendorThing")
GRAMMAR: Final = Grammar(
    {
        "": Shape(("jsonrpc", "id", "method", "params"), ("result", "error", "vendor", "__proto__")),
        "params": Shape(("name", "arguments"), ("uri", "taskId", "task", "ref", "notifications", "_meta", "__proto__")),
        "__proto__": Shape(("method", "name"), ("params", "uri", "taskId")),
        "ref": Shape(("type", "uri"), ("name",)),
        "notifications": Shape(("taskIds",), NOTICES),
        "_meta": Shape(("io.modelcontextprotocol/protocolVersion",), ("progressToken",)),
        "arguments": Shape(("name",), ("method", "x", "arguments")),
    },
    {
        "jsonrpc": ("2.0", "2.0", "2.0", "1.0"),
        "method": ("tools/call", *sorted(HARMLESS), "vendor/do", "Tools/call", "tools/call\0", "notifications/vendor"),
        "name": ("get", "get", "put", "drop", "GET", "get ", "\uff47et"),
        "id": (1, "1", -1, 2**53, ""),
        "type": ("ref/resource", "ref/prompt", "Ref/resource"),
        "io.modelcontextprotocol/protocolVersion": ("2025-11-25", "2026-07-28"),
    },
)
WORDS: Final = (
    *(f'"{name}"'.encode() for path in FACTS for name in path),
    *(f'"{name}":'.encode() for path in FACTS for name in path),
    *(f'"{method}"'.encode() for method in sorted(HARMLESS)),
    *(b'"tools/call"', b'"2.0"', b'"get"', b'"put"', b"\\u0000", b"\\u017f", b"\\u212a", b"\xc5\xbf", b"\xe2\x84\xaa"),
    *(b"\xef\xbb\xbf", b"1e400", b"-0", b"9007199254740992", b"18446744073709551616", b"\\ud800", b"\\", b'"', b"{}"),
    *(b'"Method":"tools/call"', b'"Name":"put"', b'"name":"put"', b'"__proto__":{', b"null", b"[", b"]", b","),
)
BODIES: Final = Target("bodies", check, WORDS)
