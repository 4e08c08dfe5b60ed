"""Read, write or destructive?"""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.policy.tools import ToolLists, class_of_annotations


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"readOnlyHint": True}, "read"),
        ({"readOnlyHint": True, "destructiveHint": False}, "read"),
        ({"destructiveHint": True}, "destructive"),
        ({"readOnlyHint": False, "destructiveHint": True}, "destructive"),
        ({"readOnlyHint": True, "destructiveHint": True}, "destructive"),
        ({"readOnlyHint": 1}, None),
        ({"readOnlyHint": "true"}, None),
        ({"destructiveHint": 1}, None),
        ({"readOnlyHint": False}, None),
        ({"readonlyhint": True}, None),
        ({}, None),
        (None, None),
        ([True], None),
        ("read", None),
    ],
)
def test_only_the_literal_true_of_an_annotation_counts(annotations: Any, expected: str | None) -> None:
    assert class_of_annotations(annotations) == expected


@pytest.fixture
def lists() -> ToolLists:
    return ToolLists(
        {
            "read": ["get_*", "List", "both", "a[12]", "purge*"],
            "write": ["set_*", "both"],
            "destructive": ["*_forever", "purge[all]"],
        }
    )


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("get_balance", "read"),
        ("List", "read"),
        ("list", None),
        ("LIST", None),
        ("Get_balance", None),
        ("get", None),
        ("a1", "read"),
        ("a3", None),
        ("a[12]", "read"),
        ("purge[all]", "destructive"),
        ("purgea", "destructive"),
        ("purge", "read"),
        ("set_x", "write"),
        ("both", "write"),
        ("get_rid_forever", "destructive"),
        ("xget_balance", None),
        ("List\n", None),
        ("get_\nx", "read"),
        ("", None),
    ],
)
def test_the_operators_lists_match_whole_names_by_case_and_the_most_dangerous_counts(
    lists: ToolLists, tool: str, expected: str | None
) -> None:
    assert lists.declared(tool) == expected


def test_without_lists_nothing_is_declared() -> None:
    assert ToolLists({}).declared("anything") is None
    assert ToolLists({"read": []}).declared("anything") is None


def test_a_tool_is_the_same_whenever_and_among_however_many_it_is_asked_for() -> None:
    lists = ToolLists({"read": ["get_*"], "destructive": ["get_rid"]})
    for _ in range(2):
        assert lists.declared("get_rid") == "destructive"
        for number in range(5000):
            assert lists.declared(f"get_{number}") == "read"
            assert lists.declared(f"put_{number}") is None


@pytest.mark.parametrize(
    ("tool", "entry"),
    [("get_balance", "get_*"), ("both", "both"), ("a[12]", "a[12]"), ("purgea", "purge[all]"), ("purge", "purge*")],
)
def test_the_entry_that_decides_is_the_one_of_the_list_that_counts(lists: ToolLists, tool: str, entry: str) -> None:
    assert lists.entry(tool) == entry
    assert lists.entry("nobody") is None
