"""The threat model names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "sidecar" / "THREATS.md").read_text())


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_rule_is_held_by_a_test(file: str, name: str) -> None:
    assert re.search(rf"(def|class) {name}\b|^{name} = ", (ROOT / file).read_text(), re.MULTILINE)


def test_every_rule_names_one() -> None:
    rows = [line for line in (ROOT / "sidecar" / "THREATS.md").read_text().splitlines() if "::test" in line.lower()]
    assert len(NAMED) >= len(rows) >= 60
