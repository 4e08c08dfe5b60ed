"""Other people's clients ask their person, and the sidecar goes by what the person said."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from tests.e2e.bed import JWT_ROUTE, Bed
from tests.interop.conftest import Start
from tests.interop.node_programs import run
from tests.interop.test_clients import LIMIT_S, WALKERS, Client, ready
from tests.service import until

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("node")]

ASKED: Final = [client for client in WALKERS if client.name != "mcp-remote"]
GIVE_UP: Final = [one for one in ASKED if one.name.startswith("TypeScript") and one.era == "legacy"]
"""These say so; in the modern era the time that a person takes is no request's."""
each_client = pytest.mark.parametrize("client", ASKED, ids=lambda client: f"{client.name} {client.era}")
WRITES: Final = {"tools": "writes"}


async def call(client: Client, how: str, bed: Bed) -> dict[str, Any]:
    """Have the client call a tool that writes, and its person answer so; return what it saw."""
    header = ("Authorization", f"Bearer {bed.token()}")
    command = client.line(bed.sidecar.public_url_bound + JWT_ROUTE, header)
    done = await run(*command, timeout_s=LIMIT_S, given={"CONFIRM": how})
    assert done.out.strip(), done.err
    seen: dict[str, Any] = json.loads(done.out.splitlines()[-1])
    return seen


async def calls(bed: Bed, count: int) -> list[dict[str, Any]]:
    """Return the log's lines of the calls, once there are so many."""
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = [
            line for line in bed.accesses() if line["method"] == "tools/call" and line.get("status") not in (403, 503)
        ]
        return len(found) >= count

    await until(are_there)
    return found


def forwarded(lines: list[dict[str, Any]]) -> int:
    return len([line for line in lines if line.get("upstream_ms") is not None])


@each_client
async def test_a_call_that_the_person_accepted_is_done_once(client: Client, start: Start) -> None:
    bed = await ready(start, confirmation=WRITES)
    seen = await call(client, "accept", bed)
    assert (seen.get("said"), seen.get("is_error")) == ("Written: x", False), seen
    lines = await calls(bed, 2 if client.era == "modern" else 1)
    assert forwarded(lines) == 1
    assert {line["era"] for line in lines} == {client.era}


@pytest.mark.parametrize("how", ["decline", "cancel"])
@each_client
async def test_a_call_that_the_person_did_not_accept_is_not_done(client: Client, how: str, start: Start) -> None:
    bed = await ready(start, confirmation=WRITES)
    seen = await call(client, how, bed)
    if seen.get("is_error"):
        assert "was not run" in seen["said"]
    else:
        assert "died" in seen, seen
        assert "Written" not in str(seen)
    assert forwarded(await calls(bed, 1)) == 0


@each_client
async def test_a_call_that_was_accepted_too_late_is_not_done(client: Client, start: Start) -> None:
    bed = await ready(start, confirmation={**WRITES, "hold_s": 1, "ttl_s": 1})
    seen = await call(client, "late", bed)
    assert "Written" not in str(seen), seen
    assert seen.get("is_error") or "died" in seen, seen
    assert forwarded(await calls(bed, 1)) == 0


@each_client
async def test_a_call_whose_client_has_left_is_not_done(client: Client, start: Start) -> None:
    bed = await ready(start, confirmation=WRITES)
    assert await call(client, "leave", bed) == {"left": True}
    assert forwarded(await calls(bed, 1)) == 0


@pytest.mark.parametrize("client", GIVE_UP, ids=lambda one: one.name)
async def test_a_call_that_the_client_gave_up_is_not_done_whatever_the_person_says_then(
    client: Client, start: Start
) -> None:
    bed = await ready(start, confirmation=WRITES)
    seen = await call(client, "impatient", bed)
    assert "died" in seen, seen
    assert forwarded(await calls(bed, 1)) == 0


@each_client
async def test_a_client_that_can_t_ask_learns_where_the_call_waits(client: Client, start: Start) -> None:
    bed = await ready(start, confirmation=WRITES)
    seen = await call(client, "none", bed)
    if client.era == "legacy":
        assert (seen.get("is_error"), "/approvals/" in seen.get("said", "")) == (True, True), seen
    else:
        assert "died" in seen, seen
    assert forwarded(await calls(bed, 1)) == 0
