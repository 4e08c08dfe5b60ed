"""Every seed, and whatever broke a target once, keeps its properties; so do small changes of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.engine import mutated, smaller
from tests.fuzz.targets import TARGETS, inputs

CHANGES = 400
FILES = [pytest.param(name, path, id=f"{name}/{path.name}") for name in TARGETS for path in inputs(name)]


@pytest.mark.parametrize(("name", "path"), FILES)
def test_an_input_that_is_kept_passes_with_its_properties_or_is_refused(name: str, path: Path) -> None:
    TARGETS[name].check(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_made_of_the_seeds_do_too(name: str) -> None:
    rng = random.Random(name)  # noqa: S311 - a seed makes the same mutations every time
    seeds = [path.read_bytes() for path in inputs(name)]

    for _ in range(CHANGES):
        changed = mutated(rng, seeds, TARGETS[name].words)
        try:
            TARGETS[name].check(changed)
        except Exception as fault:
            fault.add_note(f"with {changed!r}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_each_target_are_not_all_refused_and_not_all_passed(name: str) -> None:
    outcomes = {TARGETS[name].check(path.read_bytes()) for path in inputs(name)}

    assert outcomes == ({True} if name == "events" else {True, False})


def test_a_find_is_made_as_small_as_it_can_be() -> None:
    assert smaller(b"12345x789xabc", lambda data: data.count(b"x") == 2) == b"xx"
