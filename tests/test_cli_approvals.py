"""The ``approvals`` commands: what people read, and what programs do."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.edge.embedded import EmbeddedStore
from sidecar.records import Confirmation
from tests.policy.confirming import confirmation

CONFIG = """\
upstream: {url: "http://127.0.0.1:3000/mcp"}
store: {url: "sqlite:///calls/sidecar.db"}
audit: {file: audit.log}
"""
ID = "0123456789abcdef" * 2


class Operator:
    """Runs commands over a store in which calls wait."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code = 0
        self.errors = ""

    def kept(self, *calls: Confirmation) -> None:
        async def keep() -> None:
            store = await EmbeddedStore.open("calls/sidecar.db", clock=time.time)
            for call in calls:
                await store.keep(call, time.time())
            await store.aclose()

        asyncio.run(keep())

    def run(self, *arguments: str) -> str:
        self.code = main(["approvals", *arguments])
        captured = self._capsys.readouterr()
        self.errors = captured.err
        return captured.out


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Operator:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    return Operator(capsys)


def waiting(**changes: object) -> Confirmation:
    now = time.time()
    fields = {"id": ID, "arguments": '{"table": "users"}', "created_at": now, "expires_at": now + 60}
    return confirmation(**{**fields, **changes})


def test_where_nothing_waits_that_is_said(operator: Operator) -> None:
    assert operator.run("list") == "No call waits for an approval.\n"
    assert json.loads(operator.run("list", "--json")) == {"approvals": []}


def test_a_person_reads_who_wants_what_and_nothing_of_it_is_live(operator: Operator) -> None:
    hostile = "drop\x1b[2J\u202e"
    operator.kept(waiting(tool=hostile, arguments='{"a": "\x9b2J\u2066"}', is_cut=True))
    text = operator.run("list")
    assert text.startswith(f"{ID}  waiting\n")
    for shown in ("acme", "ann by the client web", "drop\\u001b[2J\\u202e", "and more, which is not kept", "until 2"):
        assert shown in text
    assert text.replace("\n", "").isprintable()


def test_no_white_space_and_no_escape_hides_an_argument(operator: Operator) -> None:
    operator.kept(waiting(arguments='{"id":"t-1"' + "\n" * 4000 + ',"\\u0061ll":4.20e1}'))
    assert operator.run("list").endswith('\narguments\n    {\n      "id": "t-1",\n      "all": 4.20e1\n    }\n')


def test_of_arguments_that_are_none_or_no_json_that_is_said(operator: Operator) -> None:
    operator.kept(waiting(arguments=None), waiting(id="b" * 32, binding="c", arguments='{"a":\n'))
    text = operator.run("list")
    assert "\narguments  -\n" in text
    assert text.endswith('\narguments (can\'t be read as JSON: as they were sent)\n    {"a":\n    \n')


def test_what_was_decided_is_listed_with_all_alone(operator: Operator) -> None:
    operator.kept(waiting())
    assert operator.run("approve", ID) == "drop of acme is approved; it passes once, when it is made again.\n"
    assert operator.run("approve", ID) == "drop of acme is approved; it passes once, when it is made again.\n"
    assert "No call waits" in operator.run("list")
    assert f"{ID}  approved" in operator.run("list", "--all")
    assert "decided  by operator\n" in operator.run("list", "--all")
    assert (operator.run("decline", ID), operator.code) == ("", 1)
    assert "it is approved" in operator.errors


def test_the_audit_keeps_who_decided_what(operator: Operator) -> None:
    operator.kept(waiting())
    operator.run("decline", ID)
    records = [json.loads(line) for line in Path("audit.log").read_text().splitlines()]
    (record,) = (one for one in records if one["kind"] == "management")
    told = {name: record[name] for name in ("act", "approval", "tool", "account", "caller", "command", "decision")}
    assert told == {
        "act": "decline_call",
        "approval": ID,
        "tool": "drop",
        "account": "acme",
        "caller": "ann",
        "command": "approvals decline",
        "decision": "done",
    }


@pytest.mark.parametrize("command", ["list", "approve", "decline"])
def test_help_teaches(operator: Operator, command: str) -> None:
    text = operator.run(command, "--help")
    assert f"sidecar approvals {command}" in text
    assert operator.code == 0
