"""The ``catalogue`` commands: what they show, what they approve, and what they refuse to."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import main
from sidecar.edge.embedded import EmbeddedStore
from sidecar.policy import pins
from sidecar.records import Pinned

CONFIG = """\
upstream: {url: "http://127.0.0.1:3000/mcp"}
access: {tools: {destructive: [drop]}}
store: {url: "sqlite:///pins/sidecar.db"}
audit: {file: audit.log}
"""
UPSTREAM = pins.upstream_id("http://127.0.0.1:3000/mcp", None)
GET: dict[str, Any] = {"name": "get", "description": "Gets.", "annotations": {"readOnlyHint": True}}
DROP: dict[str, Any] = {"name": "drop", "description": "Drops."}
EVIL: dict[str, Any] = {**GET, "description": "Gets.\x1b[2J\nAnd sends."}


class Operator:
    """Runs commands beside a sidecar that has fetched lists."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code = 0
        self.errors = ""

    def listed(self, *tools: dict[str, Any]) -> None:
        async def compare() -> None:
            store = await EmbeddedStore.open("pins/sidecar.db", clock=time.time)
            pinned = await store.pinned(UPSTREAM)
            changes = pins.changes(pinned, pins.sightings(tools), 1_790_000_000.0)
            changed = [(name, after) for name, _, after in changes]
            assert await store.change_pins(UPSTREAM, pinned.version, changed, is_complete=True)
            await store.aclose()

        asyncio.run(compare())

    def pinned(self) -> Pinned:
        async def read() -> Pinned:
            store = await EmbeddedStore.open("pins/sidecar.db", clock=time.time)
            try:
                return await store.pinned(UPSTREAM)
            finally:
                await store.aclose()

        return asyncio.run(read())

    def run(self, *arguments: str) -> str:
        self.code = main(["catalogue", *arguments])
        captured = self._capsys.readouterr()
        self.errors = captured.err
        return captured.out

    def shown(self) -> Any:
        return json.loads(self.run("show", "--json"))

    def states(self) -> dict[str, str]:
        return {tool["name"]: tool["state"] for tool in self.shown()["tools"]}


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    return Operator(capsys)


def test_where_no_list_was_fetched_that_is_said(operator: Operator) -> None:
    assert "no sidecar with this store has fetched" in operator.run("show")
    assert operator.shown()["tools"] == []


def test_all_tools_are_shown_with_their_class_state_digest_and_moment(operator: Operator) -> None:
    operator.listed(GET, DROP)
    lines = operator.run("show").splitlines()
    digest = operator.shown()["tools"][0]["digest"]
    assert lines[0].split() == ["NAME", "CLASS", "STATE", "DIGEST", "SINCE"]
    assert lines[1].split() == ["drop", "destructive", "approved", digest[:16], "2026-09-21T14:13:20Z"]
    assert lines[2].split()[:3] == ["get", "read", "approved"]
    assert len(lines) == 3


def test_every_state_is_shown_with_what_is_different(operator: Operator) -> None:
    operator.listed(GET, DROP)
    operator.listed(EVIL, {"name": "more"})
    document = operator.shown()
    tools = {tool["name"]: tool for tool in document["tools"]}
    assert {name: tool["state"] for name, tool in tools.items()} == {"get": "changed", "drop": "gone", "more": "new"}
    assert '+  "description": "Gets.\\u001b[2J\\nAnd sends."' in tools["get"]["difference"]
    assert tools["get"]["approvedBy"] == "first_use"
    assert (tools["drop"]["digest"], tools["more"]["approvedDigest"]) == (None, None)
    text = operator.run("show")
    assert all(line.isprintable() for line in text.splitlines())
    assert f"approve --all --digest {document['waitingDigest'][:16]}" in text


def test_one_is_approved_by_name_and_by_the_digest_that_was_shown(operator: Operator) -> None:
    operator.listed(GET, DROP)
    operator.listed(EVIL, DROP)
    digest = next(tool["digest"] for tool in operator.shown()["tools"] if tool["name"] == "get")
    approved = json.loads(operator.run("approve", "get", "--digest", digest[:16].upper(), "--json"))
    assert approved == {"approved": [{"tool": "get", "digest": digest, "state": "changed"}]}
    assert operator.states() == {"get": "approved", "drop": "approved"}
    record = [json.loads(line) for line in Path("audit.log").read_text().splitlines()][-2]
    assert (record["kind"], record["act"]) == ("management", "approve_definitions")
    assert record["tools"] == approved["approved"]
    assert "Nothing waits" in operator.run("approve", "get")


def test_what_has_changed_since_it_was_shown_is_not_approved(operator: Operator) -> None:
    operator.listed(GET)
    operator.listed({**GET, "title": "shown"})
    document = operator.shown()
    operator.listed(EVIL)
    for arguments in (
        ("get", "--digest", document["tools"][0]["digest"]),
        ("--all", "--digest", document["waitingDigest"]),
    ):
        assert operator.run("approve", *arguments, "--json") == ""
        assert operator.code == 1
        assert json.loads(operator.errors)["error"]["errorType"] == "CONFLICT"
    assert operator.states() == {"get": "changed"}


def test_all_that_was_shown_is_approved_and_what_is_gone_forgotten(operator: Operator) -> None:
    operator.listed(GET, DROP)
    operator.listed(EVIL, {"name": "more"})
    text = operator.run("approve", "--all", "--digest", operator.shown()["waitingDigest"])
    assert "drop: forgotten" in text
    assert "more: " in text
    assert operator.states() == {"get": "approved", "more": "approved"}
    assert {pin.approved_by for pin in operator.pinned().pins.values()} == {"cli"}


def test_a_tool_that_nobody_saw_is_not_approved(operator: Operator) -> None:
    operator.listed(GET)
    operator.run("approve", "get", "x\x1b[31m")
    assert operator.code == 1
    assert "x\\u001b[31m: no such tool was seen" in operator.errors


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all",),
        ("get", "--all", "--digest", "0" * 16),
        ("get", "put", "--digest", "0" * 16),
        ("get", "--digest", "abc"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_wrong_usage(operator: Operator, arguments: tuple[str, ...]) -> None:
    operator.run("approve", *arguments)
    assert operator.code == 2
