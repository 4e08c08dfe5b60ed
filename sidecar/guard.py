"""What the public port asks about each request; `gateway.Gateway` is the one that decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from sidecar.denials import AnswerHeaders
from sidecar.model import Permit, Principal, Progress, RequestFacts, Route

MANAGEMENT_PATH: Final = "/api/api-keys"

A = TypeVar("A")
ReadBody = Callable[[], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class ManagementPermit(Generic[A]):
    """Yes to a call of the key management: what to do, as of when, and the rate headers of the answer."""

    act: A
    asked_at: float
    """Unix seconds, before the store vouched for the caller: what is made then ends with a later revocation."""
    answer_headers: AnswerHeaders


class Guard(Protocol):
    """Decides about one request after another."""

    async def check(self, route: Route, facts: RequestFacts, read_body: ReadBody, progress: Progress) -> Permit:
        """Return the permit for a proxied request.

        `read_body` is called once the caller is known; it returns None where the method has no body.

        Raises:
            Denial: the first reason against it.
        """
        ...

    async def check_management(
        self,
        facts: RequestFacts,
        read_body: ReadBody,
        understand: Callable[[Principal, bytes], A],
        progress: Progress,
    ) -> ManagementPermit[A]:
        """Return what a caller of the key management may do, as `understand` makes it of the body; API keys can't.

        The body is read before the store is asked: what is then done was asked for by a token that was good after it.

        Raises:
            Denial: the first reason against it.
        """
        ...
