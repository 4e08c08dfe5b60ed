"""Answers to list requests: what is hidden is hidden from every reader, and what is kept is as it was written.

An input is a byte that says which list, era, id and what is visible, and the message; or a NUL and what one is made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sidecar.denials import BadGateway
from sidecar.model import Era, JsonRpcId
from sidecar.policy.listing import ListAnswer, ListKind
from tests.fuzz import made, readers
from tests.fuzz.made import Grammar, Shape
from tests.fuzz.readers import ABSENT, EXACT, GO, Members
from tests.fuzz.target import Target

VISIBLE: Final = (frozenset[str](), frozenset({"get"}), frozenset({"get", "drop"}), frozenset({"", "a"}))
IDS: Final[tuple[JsonRpcId | None, ...]] = (7, "7", None, "i")
DEEP: Final = 200
"""What nests deeper is read by no means that the readers here are sure to have too."""
NAME_OF: Final[dict[ListKind, str]] = {"tools": "name", "tasks": "taskId"}


def check(data: bytes) -> bool:
    choice = data[0] if data else 0
    kind: ListKind = "tasks" if choice & 1 else "tools"
    era: Era = "modern" if choice & 2 else "legacy"
    visible, message_id = VISIBLE[choice >> 2 & 3], IDS[choice >> 4 & 3]
    message = GRAMMAR.made(data[2:]) if data[1:2] == made.MARK else data[1:]
    try:
        answer = ListAnswer.parse(message, message_id, kind)
    except BadGateway:
        return False
    if message.count(b"[") + message.count(b"{") > DEEP:
        return answer is None
    if answer is None:
        assert not list(seen(message, kind)), "somebody reads a list here"
        return True
    assert not any("\ud800" <= char <= "\udfff" for name in answer.names for char in name), "read in two ways"
    kept = answer.keep(visible, era=era)
    for names in seen(kept, kind):
        assert set(names) <= visible
        assert names == [name for name in answer.names if name in visible]
    judge_the_rest(message, kept, kind, era, visible)
    judge_again(kept, message_id, kind, era, visible)
    return True


def seen(message: bytes, kind: ListKind) -> Iterator[list[str]]:
    """Yield the names that some reader finds in this message, for each reader that finds a list."""
    for document in readers.documents(message):
        for lookup in (*EXACT, *GO):
            entries = lookup(document, "result", kind)
            if isinstance(entries, list) and isinstance(document, Members):
                yield [str(lookup(entry, NAME_OF[kind])) for entry in entries]


def judge_the_rest(message: bytes, kept: bytes, kind: ListKind, era: Era, visible: frozenset[str]) -> None:
    """All but the hidden entries stays: order, numbers as they are written, members that nobody knows."""
    expected = expected_of(readers.read(message.decode()), kind, era, visible)
    assert readers.read(kept.decode()) == expected
    if readers.read(message.decode()) == expected:
        assert kept is message
    for lookup in EXACT:
        scope = lookup(readers.read(kept.decode()), "result", "cacheScope")
        assert scope == "private" or (scope == ABSENT and era == "legacy")


def expected_of(document: Members, kind: ListKind, era: Era, visible: frozenset[str]) -> Members:
    return Members(
        (name, _result(value, kind, era, visible) if name == "result" else value) for name, value in document
    )


def _result(result: Members, kind: ListKind, era: Era, visible: frozenset[str]) -> Members:
    members: list[tuple[str, Any]] = []
    scoped = "cacheScope" in dict(result)
    for name, value in result:
        if name == kind:
            members.append((name, [entry for entry in value if dict(entry)[NAME_OF[kind]] in visible]))
            members += [("cacheScope", "private")] if era == "modern" and not scoped else []
        else:
            members.append((name, "private" if name == "cacheScope" else value))
    return Members(members)


def judge_again(kept: bytes, message_id: JsonRpcId | None, kind: ListKind, era: Era, visible: frozenset[str]) -> None:
    """What is left can be filtered again, and nothing more goes."""
    again = ListAnswer.parse(kept, message_id, kind)
    assert again is not None
    assert again.keep(visible, era=era) is kept


GRAMMAR: Final = Grammar(
    {
        "": Shape(("jsonrpc", "id", "result"), ("error", "method", "x")),
        "result": Shape(("tools",), ("tasks", "nextCursor", "cacheScope", "content", "_meta")),
        "tools": Shape(("name",), ("inputSchema", "title", "taskId"), listed=True),
        "tasks": Shape(("taskId",), ("status", "name"), listed=True),
        "inputSchema": Shape(("type",), ("name", "tools", "inputSchema")),
    },
    {
        "id": (7, "7", 8, "i"),
        "name": ("get", "drop", "", "a"),
        "taskId": ("a", "b", "get", ""),
        "cacheScope": ("public", "private"),
    },
)
WORDS: Final = (
    *(f'"{name}":'.encode() for name in ("jsonrpc", "id", "method", "result", "error", "tools", "tasks", "name")),
    *(f'"{name}":'.encode() for name in ("taskId", "cacheScope", "Tools", "Result", "Name", "nextCursor", "x")),
    *(b'{"name":"get"}', b'{"name":"drop"}', b'{"taskId":"a"}', b'"public"', b'"private"', b'"2.0"', b"\\u0074ools"),
    *(
        b"\\ud800",
        b"\\udc00",
        b"\xc5\xbf",
        b"\xe2\x84\xaa",
        b"1e400",
        b"-0",
        b"NaN",
        b"Infinity",
        b"\xef\xbb\xbf",
        b"\0",
    ),
    *(b"[", b"]", b"{", b"}", b",", b":", b"null", b"18446744073709551616", b"1.000000000000000005"),
)
LISTS: Final = Target("lists", check, WORDS)
