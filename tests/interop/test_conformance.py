"""The official conformance suite finds the same through the sidecar as directly: every check, nothing excused."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE
from tests.interop.conftest import Start
from tests.interop.node_programs import run
from tests.interop.shim import Shim

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("node")]

LIMIT_S: Final = 120
COUNTS: Final = {
    "2025-11-25": {"SUCCESS": 84, "INFO": 8},
    "2026-07-28": {"SUCCESS": 196, "INFO": 1, "SKIPPED": 1},
}
"""What the fixture gets directly, the scenarios that are not scored included. `README.md` tells the same numbers."""
_RESULTS: Final = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
_PLACE: Final = re.compile(r"127\.0\.0\.1:\d+(/mcp/inspector|/mcp)?")


@dataclass(frozen=True, slots=True, order=True)
class Check:
    """One check of one scenario."""

    scenario: str
    id: str
    name: str
    status: str
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of the suite found."""

    code: int
    checks: tuple[Check, ...]

    def counts(self) -> dict[str, int]:
        statuses = [check.status for check in self.checks]
        return {status: statuses.count(status) for status in dict.fromkeys(statuses)}


def differences(direct: Report, through: Report) -> list[str]:
    """Return a line for each check that came out in one of the runs only."""
    one, other = set(direct.checks), set(through.checks)
    runs = dict.fromkeys(one - other, "direct") | dict.fromkeys(other - one, "through")
    return [f"{check.scenario} {check.id} {by}: {check.status} {check.problem}" for check, by in sorted(runs.items())]


async def conformance(url: str, revision: str, results: Path) -> Report:
    """Run the server scenarios that a revision requires, and those that it reports besides."""
    done = await run(
        "conformance", "server", "--url", url, "--requirements", revision, "-o", str(results), timeout_s=LIMIT_S
    )
    checks = _found(results)
    assert checks, done.out + done.err
    return Report(done.code, checks)


def _found(results: Path) -> tuple[Check, ...]:
    return tuple(check for folder in sorted(results.iterdir()) for check in _checks(folder))


def _checks(folder: Path) -> list[Check]:
    named = _RESULTS.fullmatch(folder.name)
    assert named, folder
    return [
        Check(
            named[1], check["id"], check["name"], check["status"], _PLACE.sub("HERE", check.get("errorMessage") or "")
        )
        for check in json.loads((folder / "checks.json").read_text())
    ]


def assert_nothing_differs(direct: Report, through: Report, revision: str) -> None:
    different = differences(direct, through)
    assert not different, "\n".join(different)
    assert through == direct
    assert direct.code == 0
    assert direct.counts() == COUNTS[revision]


@pytest.mark.parametrize("route", [JWT_ROUTE, KEY_ROUTE])
@pytest.mark.parametrize("revision", list(COUNTS))
async def test_the_suite_finds_the_same_through_the_sidecar(
    revision: str, route: str, start: Start, front: Shim, fixture_url: str, tmp_path: Path
) -> None:
    bed = await start(public_url=front.url)
    front.target = bed.sidecar.public_url_bound
    front.line = (
        f"Authorization: Bearer {bed.token('mcp:full', aud=front.url + JWT_ROUTE)}"
        if route == JWT_ROUTE
        else f"X-API-Key: {await bed.key('mcp:full')}"
    )
    direct = await conformance(fixture_url, revision, tmp_path / "direct")
    through = await conformance(front.url + route, revision, tmp_path / "through")
    assert_nothing_differs(direct, through, revision)
