"""What somebody else wrote is shown so that nothing of it is out of sight, and nothing of it is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.pins import inert
from sidecar.policy.readable import laid_out

SPACE = st.text(" \t\n\r", max_size=6)
NUMBERS = st.sampled_from(["0", "-0", "4.20e1", "1E+400", "1.000000000000000005", "18446744073709551617"])


def written_somehow(char: str, escaped: bool) -> str:
    return "".join(f"\\u{ord(unit):04X}" for unit in utf16(char)) if escaped else json.dumps(char)[1:-1]


def utf16(char: str) -> list[str]:
    return [char] if ord(char) < 0x10000 else [chr(0xD7C0 + (ord(char) >> 10)), chr(0xDC00 + (ord(char) & 0x3FF))]


@st.composite
def strings(draw: st.DrawFn) -> str:
    """A string's text: its characters as they are where that is JSON, or escaped in either way."""
    chars = draw(st.lists(st.characters(exclude_categories=["Cs"]) | st.sampled_from(' "\\/\n\u3164'), max_size=8))
    ways = [draw(st.sampled_from(["raw", "short", "number"])) for _ in chars]
    pieces = [
        char if way == "raw" and char >= " " and char not in '"\\' else written_somehow(char, way == "number")
        for char, way in zip(chars, ways, strict=True)
    ]
    return '"' + "".join(pieces).replace("/", draw(st.sampled_from(["/", "\\/"]))) + '"'


def inside(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def put(space: str, items: list[str], brackets: str) -> str:
        return brackets[0] + space + f"{space},{space}".join(items) + space + brackets[1]

    def member(parts: tuple[str, str, str]) -> str:
        return f"{parts[0]}{parts[1]}:{parts[1]}{parts[2]}"

    members = st.lists(st.tuples(strings(), SPACE, values), max_size=3, unique_by=lambda parts: json.loads(parts[0]))
    objects = st.builds(put, SPACE, members.map(lambda several: [*map(member, several)]), st.just("{}"))
    return objects | st.builds(put, SPACE, st.lists(values, max_size=3), st.just("[]"))


TEXTS = st.recursive(strings() | NUMBERS | st.sampled_from(["true", "false", "null"]), inside, max_leaves=8)


def read(text: str) -> Any:
    """Read everything as it is written: numbers by their text, members in order."""
    return json.loads(text, parse_int=lambda n: ("n", n), parse_float=lambda n: ("n", n), object_pairs_hook=Pairs)


class Pairs(list[Any]):
    """Members of an object: never equal to the elements of an array."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs) and list.__eq__(self, other)

    __hash__ = None


@given(TEXTS)
def test_it_is_the_same_value_however_it_was_written(text: str) -> None:
    shown = laid_out(text, is_cut=False)
    assert shown is not None
    assert read(shown) == read(text)


@given(TEXTS)
def test_nothing_of_it_is_invisible_and_no_white_space_leads_out_of_sight(text: str) -> None:
    shown = laid_out(text, is_cut=False)
    assert shown is not None
    for line in shown.split("\n"):
        assert line.strip()
        assert inert(line) == line
        assert " " * 41 not in line.lstrip()


@given(TEXTS, st.integers(0, 200))
def test_what_was_cut_is_shown_as_far_as_it_goes(text: str, length: int) -> None:
    shown = laid_out(text[:length], is_cut=True)
    assert shown is not None
    assert inert(shown.replace("\n", "")) == shown.replace("\n", "")


@given(TEXTS)
def test_it_does_not_matter_how_often_it_is_laid_out(text: str) -> None:
    once = laid_out(text, is_cut=False)
    assert once is not None
    assert laid_out(once, is_cut=False) == once


def test_white_space_hides_no_argument() -> None:
    text = '{"id":"t-1"' + "\n" * 4000 + ',"all_of_them":true}'
    assert laid_out(text, is_cut=False) == '{\n  "id": "t-1",\n  "all_of_them": true\n}'


def test_members_have_a_line_each_and_plain_lists_one_for_all() -> None:
    text = '{"a":[1,"x" , null],"b":[{},[ ]],"c":{"d":[[1]]}}'
    assert laid_out(text, is_cut=False) == "\n".join(
        (
            "{",
            '  "a": [1, "x", null],',
            '  "b": [',
            "    {},",
            "    []",
            "  ],",
            '  "c": {',
            '    "d": [',
            "      [1]",
            "    ]",
            "  }",
            "}",
        )
    )


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (r"\u0064\u0065\u006c", "del"),
        (r"\ud83d\uDE00 \u00e9\/", "\U0001f600 \u00e9/"),
        (r"\u0022,\u005c", r"\",\\"),
        (r"\n\t\u202e\u0000\ud800", r"\n\t\u202e\u0000\ud800"),
        ("\u202e\u00a0\U000e0001", r"\u202e\u00a0\udb40\udc01"),
        ("a" + " " * 42 + "b", "a" + " " * 40 + r"\u0020\u0020b"),
        ("\u3164\u2800\ufe0f", r"\u3164\u2800\ufe0f"),
        (r"\u115f\udb40\uDD00", r"\u115f\udb40\uDD00"),
        (r"go\u0020on\u0020\\u0041", r"go on \\u0041"),
        (r"\u0020" * 42 + "b", " " * 40 + r"\u0020\u0020b"),
    ],
)
def test_of_escapes_what_can_be_seen_is_seen_and_the_rest_stays_written_out(written: str, shown: str) -> None:
    assert laid_out(f'"{written}"', is_cut=False) == f'"{shown}"'


@pytest.mark.parametrize(("cut", "shown"), [(r'["a\u00', r'["a\u00'), ('["a\\', '["a\\'), ('{"a" :1', '{\n  "a": 1')])
def test_a_cut_may_be_anywhere(cut: str, shown: str) -> None:
    assert laid_out(cut, is_cut=True) == shown


def test_however_deep_it_nests_the_indent_ends() -> None:
    shown = laid_out("[" * 120 + "]" * 120, is_cut=False)
    assert shown is not None
    assert max(map(len, shown.split("\n"))) <= 2 * 20 + 2


@pytest.mark.parametrize("text", ["", "nan", "{'a':1}", '{"a":1', "1 2", '"a"\u00a0', "[1]]"])
def test_what_is_no_json_is_not_laid_out(text: str) -> None:
    assert laid_out(text, is_cut=False) is None


@pytest.mark.parametrize("text", ["1 2", '{"a" "b"', "]", "{\u00a0"])
def test_nor_is_what_begins_no_json(text: str) -> None:
    assert laid_out(text, is_cut=True) is None
