"""Names are folded as the most lenient reader of members folds them, at a cost that no name can raise."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.policy.lookalikes import fold

NAMES = ("method", "params", "id", "jsonrpc", "taskId", "_meta", "ref", "notifications", "resourceSubscriptions")
UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\ufe00\ufe0f\uffa0\U000e0100\U000e01ef"
"""Unicode's Default_Ignorable_Code_Point, as far as Python calls them printable (the ends of each range)."""


@pytest.mark.parametrize(
    ("spelling", "folded"),
    [
        ("Method", "method"),
        ("METHOD", "method"),
        ("method\u0000", "method"),
        (" me thod\u00a0\t", "method"),
        ("param\u017f", "params"),
        ("tas\u212aId", "taskid"),
        ("\uff4eame", "name"),
        ("\U0001d5c7ame", "name"),
        ("re\ufb00", "reff"),
        ("me\u200bthod\u2060\ufeff", "method"),
        ("task_id", "taskid"),
        ("task-id", "taskid"),
        ("TASK_ID", "taskid"),
        ("meta", "meta"),
        ("_meta", "meta"),
        ("\u0131d", "id"),
        ("\u0130d", "id"),
        *((f"met{char}hod", "method") for char in UNSEEN),
        ("", ""),
    ],
)
def test_a_spelling_folds_onto_the_name_that_a_lenient_reader_takes_it_for(spelling: str, folded: str) -> None:
    assert fold(spelling) == folded


@pytest.mark.parametrize(
    "name", ["m\u00e9thod", "me\u0301thod", "\u043cethod", "\ufdfa", "method\u4e2d", "\u00df\u00e4"]
)
def test_a_name_with_a_character_that_no_reader_takes_for_ascii_folds_onto_none(name: str) -> None:
    assert fold(name) is None


def test_folding_normalises_nothing_for_that_may_take_the_square_of_a_names_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stranger's body is folded too, for the id that its refusal carries."""

    def refuse(*_: str) -> str:
        raise AssertionError("normalised")

    with monkeypatch.context() as patched:
        patched.setattr(unicodedata, "normalize", refuse)
        folded = fold("\uff4eame" * 5000), fold("a" + "\u0300" * 60000), fold("\ufdfa" * 20000)
    assert folded == ("name" * 5000, None, None)


def model(name: str) -> str | None:
    """Fold the whole name at once, by the book, whatever that costs."""
    for char, stands_for in [("\u0131", "i"), ("\u0130", "i"), *((char, "") for char in "_-")]:
        name = name.replace(char, stands_for)
    folded = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(char for char in folded if char.isprintable() and char not in " _-" and not is_unseen(char))
    return visible if visible.isascii() else None


def is_unseen(char: str) -> bool:
    return char in UNSEEN or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def test_every_character_that_can_be_seen_folds_as_by_the_book() -> None:
    for char in filter(str.isprintable, map(chr, range(sys.maxunicode + 1))):
        assert fold(char) == model(char), f"U+{ord(char):04X}"


SPELLINGS: dict[str, list[str]] = {}
for each in map(chr, range(0x20000)):
    if each.isprintable():
        SPELLINGS.setdefault(unicodedata.normalize("NFKC", each).casefold(), []).append(each)


@st.composite
def respelt(draw: st.DrawFn) -> str:
    """Write a name otherwise: other letters that stand for its own, and anything between them."""
    name = draw(st.sampled_from(NAMES))
    letters = [draw(st.sampled_from(SPELLINGS.get(char.lower(), [char]))) for char in name]
    for _ in range(draw(st.integers(0, 3))):
        extra = draw(st.sampled_from("_- \u0000\u200b\u0301\ufe0f\u00ad\ufdfa\u00a8x") | st.characters())
        letters.insert(draw(st.integers(0, len(letters))), extra)
    return "".join(letters)


@settings(max_examples=500)
@given(respelt() | st.text(max_size=12))
def test_a_name_folds_as_by_the_book(name: str) -> None:
    assert fold(name) == model(name)
