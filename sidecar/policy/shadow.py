"""What is noted of a request that a rule in shadow mode would have refused?"""

from __future__ import annotations

from sidecar.denials import Denial, Rule, ShadowRefusal


def noted(before: tuple[ShadowRefusal, ...], rule: Rule, denial: Denial) -> tuple[ShadowRefusal, ...]:
    """Return the notes with one more; the first reason of each rule is the one that would have been the answer."""
    if any(note.rule == rule for note in before):
        return before
    return (*before, ShadowRefusal(rule, denial.error_type.lower(), denial.reason, denial.detail))


def members(notes: tuple[ShadowRefusal, ...]) -> dict[str, str]:
    """Return what the log says of them, one after another: ``outcome/reason`` of each, and all details."""
    told = {"shadow": " ".join(f"{note.outcome}/{note.reason}" for note in notes)}
    details = "; ".join(note.detail for note in notes if note.detail is not None)
    return told | ({"shadow_detail": details} if details else {})
