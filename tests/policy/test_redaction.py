"""What looks like a credential is found wherever it stands, in time that grows with the text and no faster."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.redaction import REDACTED, redacted

KEY = "mcp_" + "a" * 46
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"


@pytest.fixture
def _bounded() -> Iterator[None]:
    """End the run when it hangs: within a search nothing else can."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.usefixtures("_bounded")
@pytest.mark.parametrize(
    "piece", ["eyJ", "eyJ.", ".eyJ", "eyJa.", "eyJa.eyJ", "eyeyJ", "mcp_", "mcp_" + "a" * 45, "mcp_a.eyJ", "-", "a."]
)
def test_no_text_makes_the_search_take_longer_than_in_proportion_to_its_length(piece: str) -> None:
    # In the square of the length these would take hours.
    assert redacted(piece * 1_000_000) is not None
    assert redacted("." + piece * 1_000_000 + "\n.eyJmcp_")


@pytest.mark.parametrize("credential", [KEY, TOKEN, "eyJa.eyJb.", "eyJeyJ.eyJeyJ.eyJ"])
def test_a_credential_is_found_in_any_text_however_often(credential: str) -> None:
    assert redacted(credential) == REDACTED
    assert redacted(f"use {credential}, or ({credential})") == f"use {REDACTED}, or ({REDACTED})"


@given(st.text("eyJmcp_a.- ", max_size=40), st.sampled_from([KEY, TOKEN]), st.text("eyJmcp_a.- ", max_size=40))
def test_whatever_it_is_glued_to_none_of_it_is_left(before: str, credential: str, after: str) -> None:
    assert credential not in redacted(before + credential + after)


@pytest.mark.parametrize("text", ["", "search", "mcp_" + "a" * 45, "a.eyJb.c", "eyJ.eyJb.c", "eyJa.eyJ.c", "eyJa.eyJb"])
def test_what_is_none_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text
