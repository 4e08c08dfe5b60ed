"""The sidecar asks the upstream itself what its tools are, in the era that the upstream speaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from sidecar.catalogue import Catalogue, NoCatalogue
from sidecar.denials import BadGateway, UpstreamNotReady
from sidecar.edge.embedded import EmbeddedStore
from sidecar.edge.telemetry_pins import Pins
from sidecar.model import Headers, ToolClass
from sidecar.pinning import Pinning
from sidecar.policy.tools import ToolLists
from sidecar.tool_classes import ToolClasses
from tests.fakes import CannedAnswer, ScriptedUpstream, Ticks
from tests.stores import FakeClock

PAGES: dict[str | None, dict[str, Any]] = {
    None: {
        "tools": [
            {"name": "get", "annotations": {"readOnlyHint": True}},
            {"name": "drop", "annotations": {"destructiveHint": True}},
        ],
        "nextCursor": "2",
    },
    "2": {"tools": [{"name": "add"}, {"name": "odd", "annotations": {"readOnlyHint": "true"}}]},
}


def result(content: Any) -> CannedAnswer:
    return CannedAnswer(200, orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": content}))


def failure(status: int, code: int) -> CannedAnswer:
    error = {"code": code, "message": "no"}
    return CannedAnswer(status, orjson.dumps({"jsonrpc": "2.0", "id": 1, "error": error}))


def as_event(answer: CannedAnswer) -> CannedAnswer:
    note = b'event: message\r\ndata: {"jsonrpc":"2.0","method":"notifications/message"}\r\n\r\n'
    return CannedAnswer(200, b": hello\r\n\r\n" + note + b"id: 1\r\ndata: " + answer.complete() + b"\r\n\r\n")  # type: ignore[operator] # canned answers are complete


def modern(method: str, message: dict[str, Any], lines: dict[str, str]) -> CannedAnswer:
    assert lines["mcp-protocol-version"] == "2026-07-28"
    assert lines["mcp-method"] == "tools/list"
    assert message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    return result(PAGES[message["params"].get("cursor")])


def legacy(method: str, message: dict[str, Any], lines: dict[str, str]) -> CannedAnswer:
    if method == "DELETE":
        assert lines["mcp-session-id"] == "s-1"
        return CannedAnswer(204)
    if lines.get("mcp-protocol-version") == "2026-07-28":
        return failure(400, -32000)
    if message["method"] == "initialize":
        answer = result({"protocolVersion": "2025-06-18", "capabilities": {}})
        return CannedAnswer(200, answer.complete() or b"", ((b"MCP-Session-Id", b"s-1"),))
    assert lines["mcp-session-id"] == "s-1"
    assert lines["mcp-protocol-version"] == "2025-06-18"
    if message["method"] == "notifications/initialized":
        return CannedAnswer(202)
    return as_event(result(PAGES[message["params"].get("cursor")]))


class Reports:
    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[int | None, str]] = asyncio.Queue()

    def __call__(self, tools: int | None, problem: str, changed: bool) -> None:
        self.heard.put_nowait((tools, problem))


def sign(method: str, lines: Headers, body: bytes | None) -> tuple[str, Headers]:
    return "/mcp", lines


def catalogue_of(
    upstream: ScriptedUpstream,
    *,
    reports: Reports | None = None,
    ticks: Ticks | None = None,
    names_account: bool = False,
) -> Catalogue:
    return Catalogue(
        upstream,
        sign,
        refresh_s=300,
        report=reports or Reports(),
        names_account=names_account,
        sleep=ticks or Ticks(),
    )


@pytest.mark.parametrize("era", [modern, legacy])
async def test_all_pages_are_read_in_the_upstreams_own_era(era: Any) -> None:
    upstream = ScriptedUpstream(era)
    catalogue = catalogue_of(upstream)

    await catalogue.refresh()

    assert catalogue.annotated("get") == "read"
    assert catalogue.annotated("drop") == "destructive"
    assert catalogue.annotated("add") is None
    assert catalogue.annotated("odd") is None
    assert catalogue.annotated("unheard of") is None
    assert all(answer.closed for answer in upstream.answers)


async def test_a_legacy_session_is_ended_again() -> None:
    upstream = ScriptedUpstream(legacy)

    await catalogue_of(upstream).refresh()

    assert [method for method, _, _ in upstream.requests] == ["POST"] * 5 + ["DELETE"]


async def test_before_the_first_fetch_nothing_is_known() -> None:
    with pytest.raises(UpstreamNotReady):
        catalogue_of(ScriptedUpstream(modern)).annotated("get")


@pytest.mark.parametrize(
    "answer",
    [
        CannedAnswer(500, b"oops"),
        CannedAnswer(200, b"<html>"),
        CannedAnswer(200, b"[]"),
        result({"tools": "many"}),
        result({}),
        result({"tools": [{"name": 1}]}),
        result({"tools": ["get"]}),
        result({"tools": [], "nextCursor": "again"}),
        result({"tools": [], "nextCursor": 7}),
        result({"protocolVersion": "2025\r\nX: y", "tools": "no"}),
    ],
)
async def test_what_makes_no_list_keeps_the_last_one(answer: CannedAnswer) -> None:
    broken = False

    def upstream(method: str, message: dict[str, Any], lines: dict[str, str]) -> CannedAnswer:
        return answer if broken else modern(method, message, lines)

    catalogue = catalogue_of(ScriptedUpstream(upstream))
    await catalogue.refresh()
    broken = True

    with pytest.raises(BadGateway):
        await catalogue.refresh()

    assert catalogue.annotated("get") == "read"


async def test_an_endless_list_is_given_up() -> None:
    def endless(method: str, message: dict[str, Any], lines: dict[str, str]) -> CannedAnswer:
        page = int(message["params"].get("cursor", "0"))
        names = [{"name": f"t{page}-{i}"} for i in range(500)]
        return result({"tools": names, "nextCursor": str(page + 1)})

    upstream = ScriptedUpstream(endless)
    with pytest.raises(BadGateway):
        await catalogue_of(upstream).refresh()

    assert len(upstream.requests) < 30


@pytest.mark.parametrize(
    ("status", "names_account", "hint"),
    [
        (401, False, "it may want catalogue.account to be set"),
        (403, True, "catalogue.account is set, so"),
        (421, False, "the host of upstream.url"),
        (421, True, "the host of upstream.url"),
        (400, False, "HTTP 400"),
    ],
)
async def test_a_refusal_is_told_with_what_most_likely_has_to_change(
    status: int, names_account: bool, hint: str
) -> None:
    upstream = ScriptedUpstream(lambda *_: CannedAnswer(status, b"no"))
    with pytest.raises(BadGateway) as refused:
        await catalogue_of(upstream, names_account=names_account).refresh()
    assert refused.value.detail is not None
    assert hint in refused.value.detail
    assert ("it may want" in refused.value.detail) is (status == 401)


@pytest.mark.parametrize("session_id", [b"s\xe9", b"", b"a b", b"x" * 1025])
async def test_a_session_id_that_could_not_be_sent_back_is_refused(session_id: bytes) -> None:
    def odd(method: str, message: dict[str, Any], lines: dict[str, str]) -> CannedAnswer:
        answer = legacy(method, message, lines)
        return CannedAnswer(
            answer.status, answer.complete() or b"", tuple((name, session_id) for name, _ in answer.headers)
        )

    with pytest.raises(BadGateway):
        await catalogue_of(ScriptedUpstream(odd)).refresh()


async def test_whatever_goes_wrong_the_next_fetch_is_tried() -> None:
    broken = True

    def upstream(method: str, message: dict[str, Any], lines: dict[str, str]) -> CannedAnswer:
        if broken:
            raise ZeroDivisionError("nobody thought of this")
        return modern(method, message, lines)

    reports, ticks = Reports(), Ticks()
    catalogue = catalogue_of(ScriptedUpstream(upstream), reports=reports, ticks=ticks)
    catalogue.start()

    async with asyncio.timeout(5):
        assert "ZeroDivisionError" in (await reports.heard.get())[1]
        failing = [catalogue.failing]
        await ticks.asked.get()
        broken = False
        ticks.end()
        assert await reports.heard.get() == (4, "")
        failing.append(catalogue.failing)
    assert failing == [True, False]
    await catalogue.aclose()


async def test_an_upstream_without_tools_has_an_empty_catalogue() -> None:
    def toolless(method: str, message: dict[str, Any], lines: dict[str, str]) -> CannedAnswer:
        if message.get("method") == "tools/list":
            return failure(404 if "mcp-method" in lines else 200, -32601)
        return legacy(method, message, lines)

    catalogue = catalogue_of(ScriptedUpstream(toolless))

    await catalogue.refresh()

    assert catalogue.annotated("get") is None


async def test_a_failed_fetch_is_tried_again_ever_less_often_and_a_good_one_after_the_interval() -> None:
    broken = True

    def upstream(method: str, message: dict[str, Any], lines: dict[str, str]) -> CannedAnswer:
        return CannedAnswer(500) if broken else modern(method, message, lines)

    reports, ticks = Reports(), Ticks()
    catalogue = catalogue_of(ScriptedUpstream(upstream), reports=reports, ticks=ticks)
    catalogue.start()

    async with asyncio.timeout(5):
        for expected in (1.0, 2.0, 4.0):
            assert (await reports.heard.get())[0] is None
            assert await ticks.asked.get() == expected
            broken = expected < 4
            ticks.end()
        assert await reports.heard.get() == (4, "")
        assert await ticks.asked.get() == 300
    await catalogue.aclose()


async def test_only_other_tools_or_classes_than_before_are_a_change() -> None:
    tools = [{"name": "get", "annotations": {"readOnlyHint": True}}]
    upstream = ScriptedUpstream(lambda method, message, lines: result({"tools": list(tools)}))
    catalogue = catalogue_of(upstream)

    assert [await catalogue.refresh(), await catalogue.refresh()] == [False, False], "the first one is no change"
    tools[0] = {"name": "get", "annotations": {"readOnlyHint": False}}
    assert [await catalogue.refresh(), await catalogue.refresh()] == [True, False]
    tools.append({"name": "put"})
    assert await catalogue.refresh()


async def test_annotations_that_are_not_trusted_say_nothing() -> None:
    nothing = NoCatalogue()
    nothing.start()

    assert nothing.annotated("get") is None
    await nothing.aclose()


class Annotated:
    """What an upstream says of its tools; None: it was not reached yet."""

    def __init__(self, classes: dict[str, ToolClass] | None) -> None:
        self._classes = classes

    def annotated(self, tool: str) -> ToolClass | None:
        if self._classes is None:
            raise UpstreamNotReady("catalogue_missing")
        return self._classes.get(tool)


@pytest.mark.parametrize(
    ("tool", "because", "entry"),
    [
        ("put_x", "list", "put*"),
        ("get", "annotation", None),
        ("get_put", "annotation", None),
        ("else", "default", None),
    ],
)
def test_why_a_tool_is_what_it_is_can_be_told(tool: str, because: str, entry: str | None) -> None:
    known = Annotated({"get": "read", "get_put": "destructive", "put_x": "read"})
    tools = ToolClasses(ToolLists({"write": ["put*"]}), known)
    finding = tools.why(tool)
    assert (finding.tool_class, finding.because, finding.entry) == (tools.of(tool), because, entry)


@pytest.mark.parametrize("waits", [True, False])
def test_why_a_tool_is_what_it_is_is_not_guessed(waits: bool) -> None:
    tools = ToolClasses(ToolLists({"write": ["put*"]}), Annotated(None), waits=waits)
    assert tools.why("put").because == "list"
    with pytest.raises(UpstreamNotReady):
        tools.why("get")


async def test_a_tool_that_is_listed_twice_is_taken_at_its_worst_word() -> None:
    read, drop = {"readOnlyHint": True}, {"destructiveHint": True}
    tools = [
        *({"name": "same", "annotations": read}, {"name": "same", "annotations": read}),
        *({"name": "bare", "annotations": read}, {"name": "bare"}),
        *({"name": "drop", "annotations": drop}, {"name": "drop", "annotations": read}),
    ]
    catalogue = catalogue_of(ScriptedUpstream(lambda *_: result({"tools": tools})))

    await catalogue.refresh()

    assert [catalogue.annotated(tool) for tool in ("same", "bare", "drop")] == ["read", None, "destructive"]


async def test_a_list_of_too_many_tools_is_given_up_even_on_one_page() -> None:
    tools = [{"name": f"t{i}"} for i in range(10_001)]
    catalogue = catalogue_of(ScriptedUpstream(lambda *_: result({"tools": tools})))

    with pytest.raises(BadGateway) as caught:
        await catalogue.refresh()

    assert caught.value.reason == "catalogue_too_large"


async def test_a_definition_that_nests_too_deeply_makes_no_list(tmp_path: Path) -> None:
    deep = b"[" * 201 + b"]" * 201
    body = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","inputSchema":%b}]}}' % deep
    store = await EmbeddedStore.open(str(tmp_path / "sidecar.db"), clock=FakeClock())
    pinning = Pinning(
        store, "u", blocks=True, report=Pins(CollectorRegistry(), lambda *_, **__: None), clock=FakeClock()
    )
    upstream = ScriptedUpstream(lambda *_: CannedAnswer(200, body))
    catalogue = Catalogue(upstream, sign, refresh_s=300, report=Reports(), pinning=pinning)

    with pytest.raises(BadGateway):
        await catalogue.refresh()

    assert catalogue.known is None
    await store.aclose()
