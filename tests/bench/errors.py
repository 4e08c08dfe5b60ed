"""Why there is no figure."""

from __future__ import annotations


class WrongAnswer(Exception):  # noqa: N818 - it says what it is
    """A contender answered, and not what it should have: how fast it was is of no interest."""


class Missing(Exception):  # noqa: N818
    """A program can't be had on this machine. The message says why, and what would help."""


class NotStarted(Exception):  # noqa: N818
    """A program is there and did not come up."""
