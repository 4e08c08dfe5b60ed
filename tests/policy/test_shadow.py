"""What is noted of a refusal that was none."""

from __future__ import annotations

from sidecar.denials import InsufficientScope, RateLimited, UnknownMethod
from sidecar.policy import shadow

SCOPE = InsufficientScope("no", required="mcp:full", granted=("mcp:read",))
LIMIT = RateLimited("rate_limited", detail="burst")


def test_the_first_reason_of_each_rule_is_noted() -> None:
    notes = shadow.noted((), "scopes", SCOPE)
    notes = shadow.noted(notes, "scopes", UnknownMethod("unknown_method"))
    notes = shadow.noted(notes, "limits", LIMIT)
    assert [(note.rule, note.reason) for note in notes] == [
        ("scopes", "insufficient_scope"),
        ("limits", "rate_limited"),
    ]


def test_the_log_says_what_would_have_been_its_outcome_and_reason() -> None:
    assert shadow.members(shadow.noted((), "scopes", UnknownMethod("unknown_method"))) == {
        "shadow": "not_found/unknown_method"
    }
    both = shadow.noted(shadow.noted((), "scopes", SCOPE), "limits", LIMIT)
    assert shadow.members(both) == {
        "shadow": "insufficient_scope/insufficient_scope rate_limit_exceeded/rate_limited",
        "shadow_detail": "needs mcp:full, has mcp:read; burst",
    }
