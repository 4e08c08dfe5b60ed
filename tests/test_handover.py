"""Lists as long as upstreams like to make them: what is done with them, and where."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sidecar.denials import BadGateway, Denial, StoreUnavailable
from sidecar.edge.embedded import EmbeddedStore
from sidecar.handover import EndSession, Handover
from sidecar.model import Principal, ResponsePlan, ToolClass
from sidecar.policy.tools import ToolLists
from sidecar.tool_classes import ToolClasses
from tests.fakes import Clock

READER = Principal("acme", "key_a", "api_key", "key_a", ("mcp:read",), issued_at=0.0, expires_at=2e9)
PADDING = "x" * 100_000


class Annotations:
    """Says that `look` only reads, and remembers which threads asked; `first` is done before."""

    def __init__(self, first: Callable[[], None] = lambda: None) -> None:
        self.threads: set[threading.Thread] = set()
        self._first = first

    def annotated(self, tool: str) -> ToolClass | None:
        self._first()
        self.threads.add(threading.current_thread())
        return "read" if tool == "look" else None


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    store = await EmbeddedStore.open(str(tmp_path / "sidecar.db"), clock=Clock())
    yield store
    await store.aclose()


async def no_session_ends(principal: Principal, session_id: str) -> None:
    raise AssertionError(session_id)


def handover(store: EmbeddedStore, annotations: Annotations, end_session: EndSession = no_session_ends) -> Handover:
    return Handover(store, ToolClasses(ToolLists({}), annotations), Clock(), end_session)


def plan(**changes: Any) -> ResponsePlan:
    return ResponsePlan(READER, "legacy", 60.0, message_id=1, **changes)


def listing(kind: str, *entries: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {kind: entries}}).encode()


def shown(message: bytes, kind: str, member: str) -> list[str]:
    return [entry[member] for entry in json.loads(message)["result"][kind]]


@pytest.mark.parametrize(("padding", "on_the_loop"), [("", True), (PADDING, False)])
async def test_a_long_list_of_tools_is_filtered_in_one_thread_that_is_not_the_event_loops(
    store: EmbeddedStore, padding: str, on_the_loop: bool
) -> None:
    annotations = Annotations()
    message = listing("tools", {"name": "look", "title": padding}, {"name": "put"}, {"name": "drop"})
    kept = await handover(store, annotations).message(plan(shows=("tools",), lists="tools"), message)
    assert shown(kept, "tools", "name") == ["look"]
    (thread,) = annotations.threads
    assert (thread is threading.current_thread()) == on_the_loop


async def test_no_more_than_two_long_lists_are_worked_on_at_once(store: EmbeddedStore) -> None:
    three, two = threading.Barrier(3), threading.Barrier(2)
    met = {2: 0, 3: 0}

    def meet() -> None:
        for meeting, patience_s in ((two, 10.0), (three, 0.2)):
            with suppress(threading.BrokenBarrierError):
                meeting.wait(patience_s)
                met[meeting.parties] += 1

    filtering = handover(store, Annotations(meet))
    message = listing("tools", {"name": "look", "title": PADDING})
    await asyncio.gather(*[filtering.message(plan(shows=("tools",)), message) for _ in range(4)])
    assert met == {2: 4, 3: 0}


@pytest.mark.parametrize("padding", ["", PADDING])
async def test_of_a_list_of_tasks_each_sees_their_own(store: EmbeddedStore, padding: str) -> None:
    ours = handover(store, Annotations())
    made = {"jsonrpc": "2.0", "id": 1, "result": {"task": {"taskId": "mine", "statusMessage": padding}}}
    await ours.message(plan(makes_task=True), json.dumps(made).encode())
    message = listing("tasks", {"taskId": "mine", "statusMessage": padding}, {"taskId": "theirs"})
    assert shown(await ours.message(plan(shows=("tasks",), lists="tasks"), message), "tasks", "taskId") == ["mine"]


@pytest.mark.parametrize("kind", ["tools", "tasks"])
@pytest.mark.parametrize("padding", ["", PADDING])
async def test_what_is_no_list_stays_as_it_is_and_what_should_be_one_is_refused(
    store: EmbeddedStore, padding: str, kind: str
) -> None:
    ours = handover(store, Annotations())
    other = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": padding}}).encode()
    assert await ours.message(plan(shows=(kind,), lists=kind), other) is other
    empty = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"data": padding}}).encode()
    with pytest.raises(BadGateway, match="upstream_list_malformed"):
        await ours.message(plan(shows=(kind,), lists=kind), empty)
    assert await ours.message(plan(shows=(kind,)), empty) is empty


@pytest.mark.parametrize("failure", [None, BadGateway("upstream_refused")])
async def test_a_session_that_cannot_be_bound_is_given_back(store: EmbeddedStore, failure: Denial | None) -> None:
    ended: list[tuple[Principal, str]] = []

    async def end_session(principal: Principal, session_id: str) -> None:
        ended.append((principal, session_id))
        if failure is not None:
            raise failure

    ours = handover(store, Annotations(), end_session)
    head = ((b"Mcp-Session-Id", b"s-1"),)
    await ours.note_head(plan(begins_session=True), 200, head)
    assert ended == []
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await ours.note_head(plan(begins_session=True), 200, head)
    assert ended == [(READER, "s-1")]
