"""Parts of a JSON text are found where they stand, and can be changed without touching the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.jsonparts import Part, edited, read, require_whole_characters

texts = st.text(alphabet='ab"\\/é😀{}[]:, \n', max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def assert_stands_where_it_says(part: Part, text: str, expected: Any) -> None:
    assert json.loads(text[part.begin : part.end]) == expected
    if isinstance(part.value, dict) and any(isinstance(member, Part) for member in part.value.values()):
        assert list(part.value) == list(expected)
        for name, member in part.value.items():
            assert_stands_where_it_says(member, text, expected[name])
    elif isinstance(part.value, list) and any(isinstance(element, Part) for element in part.value):
        for element, value in zip(part.value, expected, strict=True):
            assert_stands_where_it_says(element, text, value)
    else:
        assert part.value == expected


@given(values, st.integers(0, 4), st.sampled_from([None, 0, 1]), st.booleans())
def test_every_part_stands_where_it_is_said_to(value: Any, depth: int, indent: int | None, escape: bool) -> None:
    text = f" \r\n{json.dumps(value, indent=indent, ensure_ascii=escape)}\t"

    assert_stands_where_it_says(read(text, depth), text, value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,",
        '{"a"',
        '{"a":',
        '{"a":1,}',
        "[1,]",
        "{1:2}",
        "{} {}",
        "[1 2]",
        "[NaN]",
        "\ufeff1",
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 9])
def test_what_is_not_one_json_value_has_no_parts(text: str, depth: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(text, depth)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_doubled_name_is_refused_at_every_depth(depth: int) -> None:
    for text in ('{"a":1,"a":1}', '{"a":1,"\\u0061":1}', '{"b":{"a":1,"a":1}}', '[[{"a":1,"a":1}]]'):
        with pytest.raises(ValueError, match=r"twice|before"):
            read(text, depth)


def test_too_many_levels_are_refused_rather_than_crash() -> None:
    with pytest.raises(ValueError, match="deeply"):
        read("[" * 200_000 + "]" * 200_000, 3)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('"plain \\n \\" \\\\ \\u0041"', True),
        ('"\\ud83d\\ude00"', True),
        ('"\\\\ud83d"', True),
        ('"\\ud83d"', False),
        ('"\\ude00\\ud83d"', False),
        ('"\\ud83d\\ud83d\\ude00"', False),
        ('"\\ud83d\\\\ude00"', False),
        ('"\\uD83Dx\\uDE00"', False),
        ('"\\\\\\uDBFF"', False),
    ],
)
def test_half_a_surrogate_pair_is_found_however_it_is_hidden(text: str, whole: bool) -> None:
    if whole:
        require_whole_characters(text)
        return
    with pytest.raises(ValueError, match="surrogate"):
        require_whole_characters(text)


def test_edits_change_what_they_name_and_nothing_else() -> None:
    assert edited("abcdef", [(1, 2, "XX"), (2, 2, "-"), (4, 6, "")]) == "aXX-cd"
    assert edited("abc", []) == "abc"
