"""The bound on bodies that are held whole."""

from __future__ import annotations

import pytest

from sidecar.denials import Overloaded
from sidecar.edge.http.holding import FREE_BYTES, HeldBytes


def test_what_is_let_go_makes_room_for_others() -> None:
    room = HeldBytes(1_000_000)
    held = room.change(0, 600_000)
    with pytest.raises(Overloaded):
        room.change(0, 600_000)
    held = room.change(held, 300_000)
    other = room.change(0, 600_000)
    assert (room.change(held, 0), room.change(other, 0)) == (0, 0)
    assert room.change(0, 1_000_000) == 1_000_000


def test_a_refusal_notes_nothing_and_growth_within_ones_own_part_is_never_refused() -> None:
    room = HeldBytes(1_000_000)
    first, second = room.change(0, 900_000), room.change(0, 100_000)
    with pytest.raises(Overloaded):
        room.change(second, 200_000)
    assert room.change(first, 800_000) == 800_000
    assert room.change(second, 200_000) == 200_000


def test_small_bodies_count_for_nothing() -> None:
    room = HeldBytes(0)
    assert room.change(0, FREE_BYTES) == 0
    with pytest.raises(Overloaded):
        room.change(0, FREE_BYTES + 1)
