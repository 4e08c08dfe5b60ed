"""Whatever a definition is: any change of it changes its digest, and how it is written does not."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.policy import pins
from sidecar.records import Pinned

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(pins.HASHED[1:])
TOOLS = st.dictionaries(MEMBERS, JSON).map(lambda members: {"name": "t", **members})


def digest(tool: dict[str, Any]) -> str:
    return pins.sightings([tool])["t"].digest


@given(TOOLS, MEMBERS, JSON)
def test_any_change_of_any_member_changes_the_digest(tool: dict[str, Any], member: str, value: Any) -> None:
    changed = {**tool, member: value}
    assume(json.dumps(changed, sort_keys=True) != json.dumps(tool, sort_keys=True))
    assert digest(changed) != digest(tool)


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(name, shuffled(each, order)) for name, each in value.items()]
        order.shuffle(items)
        return dict(items)
    return [shuffled(each, order) for each in value] if isinstance(value, list) else value


@given(TOOLS, st.randoms(), st.sampled_from([None, 1, 4]), st.booleans())
def test_neither_order_nor_white_space_nor_escapes_change_it(
    tool: dict[str, Any], order: random.Random, indent: int | None, escaped: bool
) -> None:
    text = json.dumps(shuffled(tool, order), indent=indent, ensure_ascii=escaped)
    assert digest(json.loads(text)) == digest(tool)


@given(TOOLS, TOOLS)
def test_whatever_is_shown_is_plain_and_whatever_is_kept_is_read_back(before: Any, after: Any) -> None:
    empty = Pinned(0, False, {})
    first = pins.applied(empty, pins.changes(empty, pins.sightings([before]), 1.0), version=1, is_complete=True)
    then = pins.applied(first, pins.changes(first, pins.sightings([after]), 2.0), version=2, is_complete=True)
    pin = then.pins["t"]
    assert all(line.isprintable() for line in pins.difference(pin))
    assert pins.read(pins.written(pin)) == pin
    assert (pins.state(pin) == "approved") == (digest(before) == digest(after))


@given(TEXT)
def test_inert_text_is_printable(text: str) -> None:
    assert pins.inert(text).isprintable()
