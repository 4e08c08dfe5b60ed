"""Dictionaries that cannot outgrow their bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.bounded import BoundedCache

KEYS = st.integers(0, 9)


@given(
    st.lists(st.tuples(st.sampled_from(["set", "set", "set", "pop", "get", "clear"]), KEYS, st.integers())),
    st.integers(1, 5),
)
def test_it_is_a_dictionary_that_may_have_forgotten_and_never_holds_too_much(
    acts: list[tuple[str, int, int]], bound: int
) -> None:
    bounded: BoundedCache[int, int] = BoundedCache(bound)
    model: dict[int, int] = {}
    for act, key, value in acts:
        if act == "set":
            bounded[key] = model[key] = value
            assert bounded[key] == value, "what was set last is here"
        elif act == "pop":
            assert bounded.pop(key, None) in (None, model.pop(key, None))
        elif act == "clear":
            bounded.clear()
            model.clear()
        else:
            assert bounded.get(key) in (None, model.get(key))
        assert len(bounded) <= bound


def test_nothing_is_forgotten_up_to_the_bound() -> None:
    bounded: BoundedCache[int, int] = BoundedCache(100)
    for turn in range(3):
        for key in range(100):
            bounded[key] = turn
    assert bounded == dict.fromkeys(range(100), 2)


def test_most_are_found_when_a_few_too_many_take_turns() -> None:
    bounded: BoundedCache[int, None] = BoundedCache(1000)
    found = 0
    for turn in range(10):
        for key in range(1200):
            found += turn > 4 and key in bounded
            if key not in bounded:
                bounded[key] = None
    assert found > 5 * 1200 / 2  # two thirds, give or take; when the oldest were forgotten, none
