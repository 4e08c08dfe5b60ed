"""What is to be known of any proxy: where it is, what it must send on, and what it has counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.bench.calls import Call
from tests.bench.processes import Process
from tests.bench.upstream import PATH, Seen, Upstream
from tests.bench.wrk import Headers


@dataclass
class Contender:
    """A running proxy as one kind of caller uses it; this class is one that adds nothing and promises nothing."""

    name: str
    port: int
    process: Process | None
    """None for the upstream itself, whose cost is nobody's."""
    upstream: Upstream
    credential: Headers = ()
    """The header lines that say who is calling."""
    path: str = PATH
    account: str = ""
    """What the upstream must be told in `X-Account-Id`; empty where it is told nothing."""
    store_pid: int | None = None
    """The process that keeps its counts, if it is another one."""
    rewrites: bool = field(default=False, kw_only=True)
    """Whether it takes answers apart and puts them together in its own way: then their meaning is compared."""

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    def url(self, call: Call) -> str:
        """Return where the call goes."""
        return f"http://127.0.0.1:{self.port}{self.path}{call.query}"

    def identity_problem(self, seen: Seen, call: Call) -> str:
        """Tell what is wrong with the identity that the upstream received; empty when nothing is."""
        received = seen.headers.get("x-account-id", "")
        if received != self.account:
            return f"the upstream was told account {received!r}, not {self.account!r}"
        if self.account and ("authorization" in seen.headers or "x-api-key" in seen.headers):
            return "the client's credential reached the upstream"
        return ""

    def answer_problem(self, body: bytes, call: Call) -> str:
        """Tell what is wrong with the body of an answer; empty when nothing is."""
        if body == call.expected:
            return ""
        if self.rewrites and _content(body) == _content(call.expected):
            return ""
        return f"the answer is not the upstream's: {body[:100]!r}"

    def counted(self) -> int | None:
        """Return how much it has counted against the caller's limit so far; None where there is no limit."""
        return None

    def forget_counts(self) -> None:
        """Let counting begin anew, where units would come back while a run is measured."""

    def require_falling(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Raise WrongAnswer when the headers of a later answer do not leave the caller less than those before."""


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)["result"]["content"]
    except (ValueError, KeyError, TypeError):
        return body
