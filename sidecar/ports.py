"""What the inside needs from the outside, named by role.

Edges implement these; fakes stand under the same contract suites.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sidecar.model import (
    Headers,
    Principal,
    Quota,
    RequestFacts,
    ToolClass,
    VerificationKey,
)

C = TypeVar("C", contravariant=True)


class Authenticator(Protocol[C]):
    """Turns one kind of credential into a principal."""

    async def authenticate(self, credential: C, facts: RequestFacts) -> Principal:
        """Return who this is.

        Raises:
            Denial: 401 for a credential that proves nothing, 503 when that could not be found out, 429 for
                a client address with too many failures behind it. Failure is final: no other check follows.
        """
        ...

    def revoked(self, credential: C) -> None:
        """Hear that the store refused what was authenticated; nothing remembered of it holds any more."""
        ...


class SecretHasher(Protocol):
    """A slow hash for secrets at rest, off the event loop and bounded."""

    async def hash(self, secret: str) -> str:
        """Hash a secret; never twice to the same text."""
        ...

    async def verify(self, secret: str, secret_hash: str) -> bool:
        """Tell whether the secret made this hash.

        Raises:
            Overloaded: when too many are waiting.
        """
        ...


class VerificationKeys(Protocol):
    """The key sets of the configured issuers, fetched off the hot path."""

    def generation(self, issuer: str) -> int:
        """Return a number that changes whenever the issuer's key set does."""
        ...

    async def find(self, issuer: str, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key with this id that may be used for this algorithm, or None.

        Without a `kid`: the only key that fits the algorithm, or None when there are several. An unknown `kid`
        fetches the set again, at most once per 10 s however many ask.

        Raises:
            IssuerUnavailable: when no key set was ever loaded, or the key is unknown and the set can't be fetched.
        """
        ...


class ToolCatalogue(Protocol):
    """What the upstream itself says of its tools."""

    def annotated(self, tool: str) -> ToolClass | None:
        """Return the class that the upstream's annotations give this tool, or None when they give none.

        Raises:
            UpstreamNotReady: when no fetch has succeeded yet.
        """
        ...


class ToolPins(Protocol):
    """Which tools are what somebody approved."""

    def require_approved(self, tool: str) -> None:
        """Return when this tool may be called as it is defined now.

        Raises:
            ToolUnapproved: it is new or changed, or the upstream does not list it.
            UpstreamNotReady: when no fetch has succeeded yet.
            StoreUnavailable: when it is not known what was approved.
        """
        ...

    def shown(self, tools: Iterable[str]) -> frozenset[str]:
        """Return those of them that `require_approved` lets pass; raises the latter two as well."""
        ...


class UpstreamAnswer(Protocol):
    """An answer of the upstream: its head is here, its body may still be coming."""

    status: int
    headers: Headers
    """As received, without hop-by-hop processing."""

    def complete(self) -> bytes | None:
        """Return the whole body if it is already here, else None; then iterate."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, reading no further ahead than a fixed window.

        Raises:
            BadGateway: when the upstream breaks off. What was yielded until then stands.
            GatewayTimeout: when nothing came for the idle time, where one was set.
        """
        ...

    def pieces(self, pause_s: float) -> AsyncIterator[bytes]:
        """Yield the body as iterating does, and an empty piece whenever nothing came for `pause_s`."""
        ...

    async def read(self, limit: int, hold: Callable[[int], None] | None = None) -> bytes:
        """Return the whole body. `hold` is told how much of it is here as it grows, and may raise.

        Raises:
            BadGateway: when it is longer than `limit` bytes, or breaks off.
        """
        ...

    def close(self) -> None:
        """Let go of the connection: it is reused when the answer was read to its end. May be called twice."""
        ...


class Upstream(Protocol):
    """The MCP server behind us."""

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes | None,
        *,
        account: str = "",
        idle_timeout_s: float | None = None,
    ) -> UpstreamAnswer:
        """Send one request and return when the head of its answer is here.

        `headers` are sent as given, after ``Host`` and before framing, both of which are this client's own.
        `account` is whom the request is made for, nobody's when empty; connections may be kept apart by it.
        `idle_timeout_s` bounds the silence between two pieces of the answer's body; None means no bound.

        Raises:
            BadGateway: refused, broken off, or not HTTP.
            GatewayTimeout: no connection or no head in time.
        """
        ...

    async def reachable(self) -> bool:
        """Tell whether a connection can be had."""
        ...


class Observer(Protocol):
    """Hears what happens to requests; log and metrics are made of it."""

    def request(
        self,
        members: Mapping[str, Any],
        *,
        route: str,
        outcome: str,
        era: str,
        seconds: float,
        upstream_seconds: float | None,
        quotas: Sequence[Quota],
        own_seconds: float | None = None,
        upstream_status: int | None = None,
        shadowed: Collection[str] = (),
    ) -> None:
        """Take note of a finished request. `route`, `outcome` and `era` come from closed sets.

        `seconds` is from its head to the end of its answer; `own_seconds` to its being sent upstream or refused,
        without waiting for its body; `upstream_seconds` from there to the head of the upstream's answer, or to giving
        up, which leaves `upstream_status` None. `shadowed` names the rules that would have refused it, were they not
        in shadow mode.
        """
        ...

    def event(self, name: str, *, level: str = "info", **members: Any) -> None:
        """Take note of something that is not a request."""
        ...

    def auth_failure(self, reason: str) -> None:
        """Take note of a refused credential."""
        ...

    def limit_refusal(self, policy: str) -> None:
        """Take note of a refusal by a limit that is judged by itself, and not among a request's `quotas`."""
        ...

    def stream_opened(self, route: str) -> None:
        """Take note of an answer that begins to stream."""
        ...

    def stream_closed(self, route: str) -> None:
        """Take note of its end."""
        ...


class Auditor(Protocol):
    """Keeps the record of what was refused, written and done with keys. Never waits and never fails a request."""

    def refusal(self, kind: str, members: Mapping[str, Any], *, arguments: Any, size: int, is_known: bool) -> None:
        """Record a refusal, unless there are too many of them: then it is counted. `is_known`: the caller's name is.

        `arguments` are what was asked with, as the message had them, None where there are none; `size` is that of the
        message, in bytes.
        """
        ...

    def act(self, kind: str, members: Mapping[str, Any], *, arguments: Any = None) -> None:
        """Record what was let through or done."""
        ...

    def require_room(self, size: int = 0) -> None:
        """Return if what is about to be done can be recorded.

        Raises:
            Overloaded: records can't be written, and as many wait as may.
        """
        ...


class Span(Protocol):
    """A part of a trace that has begun and not ended."""

    trace_id: str
    """In hex, as logs and trace viewers have it; empty where nothing is traced after all."""

    def carrier(self) -> Mapping[str, str]:
        """Return the headers that make whoever gets them part of the trace."""
        ...

    def end(self, attributes: Mapping[str, str | int], error: str | None) -> None:
        """End now. `error` says what went wrong, None that nothing did."""
        ...


class Tracer(Protocol):
    """Keeps traces. It never waits and never fails a request."""

    def request(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        *,
        parent: Mapping[str, str],
        linked: Mapping[str, str],
        age_s: float,
    ) -> Span:
        """Begin the span of a request that came `age_s` ago, in the trace that `parent` names, or in a new one."""
        ...

    def call(self, name: str, attributes: Mapping[str, str | int], *, within: Span) -> Span:
        """Begin the span of what is asked of another within that request."""
        ...
