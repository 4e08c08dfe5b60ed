"""What the inside needs from the outside, named by role.

Edges implement these; fakes stand under the same contract suites.

Every method of a store may raise `denials.StoreUnavailable`; nothing else of a driver's may come out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from sidecar.model import (
    Admission,
    Headers,
    KeyRecord,
    Limit,
    Principal,
    Quota,
    RequestFacts,
    StoredKey,
    ToolClass,
    Usage,
    Verdict,
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


class AdmissionStore(Protocol):
    """The one trip of the hot path: standing, limits and usage counts, all or nothing."""

    async def admit(self, admission: Admission) -> Verdict:
        """Judge all limits together and spend one unit of each, or spend nothing at all.

        In this order: a key whose version differs from `key_version` (or is gone) answers *key_changed*; a token
        that was revoked, or anything with `issued_at` before the account's revocation moment, answers *revoked*;
        a limit without a unit left answers *good* with that quota's `retry_s` above 0. In these cases nothing is
        spent; only a refusal by limit is added to the key's usage as *refused*. Otherwise one unit of each limit is
        spent, and for a key its last use is set and its usage (*requests*, and *writes* when `write`) counted.
        """
        ...

    async def count_refusal(self, account: str, key_id: str) -> None:
        """Add one refused request to a key's usage, for refusals that never got as far as `admit`."""
        ...


class FailureCounter(Protocol):
    """Counts failed authentication per client address, in one sliding window."""

    async def peek(self, address: str, limit: Limit) -> Quota:
        """Tell whether another failure would still be within the limit, spending nothing."""
        ...

    async def record(self, address: str, limit: Limit) -> Quota:
        """Spend one unit if one is left; else spend nothing and say when one returns."""
        ...


class KeyStore(Protocol):
    """API-key records, each reachable only through its account. What a change means is decided in `keyring`."""

    async def account_of(self, key_id: str) -> str | None:
        """Name the account that a key belongs to. It never changes, so callers may remember it."""
        ...

    async def get(self, account: str, key_id: str) -> StoredKey | None:
        """Read one key of this account; another account's key is not there."""
        ...

    async def add(self, record: KeyRecord, *, max_active: int | None, now: float) -> bool:
        """Add a new key; False, and nothing done, when `max_active` keys are neither revoked nor expired at `now`."""
        ...

    async def replace(self, record: KeyRecord, *, successor: KeyRecord | None = None) -> bool:
        """Write a changed record, and add its successor with it, atomically.

        `record.version` must be the stored version plus one; False, and nothing done, when it is not.
        """
        ...

    async def page(self, account: str, *, limit: int, after: str | None) -> list[StoredKey]:
        """Return up to `limit` keys, newest first (by `created_at`, then id), following the key with id `after`.

        An `after` that is not a key of this account returns nothing.
        """
        ...

    def accounts(self) -> AsyncIterator[str]:
        """Walk all accounts that have keys, each once, in no order. For operators, not for the hot path."""
        ...

    async def usage(self, account: str, key_id: str, now: float) -> Usage:
        """Count by hour and by day (UTC), the ones that contain `now` last."""
        ...


class RevocationStore(Protocol):
    """Ends tokens before they expire. `admit` honours both kinds."""

    async def meet(self, token_id: str, account: str, expires_at: float) -> bool:
        """Note, at the first sight of a token, which account it is for; False when it was revoked before.

        After this returned True, a later `revoke_token` is seen by `admit` under the account.
        """
        ...

    async def revoke_token(self, token_id: str) -> None:
        """End this token, seen before or not, everywhere."""
        ...

    async def revoke_account(self, account: str, before: float) -> None:
        """End whatever was issued to the account before this moment. Never moves an earlier decision back."""
        ...

    async def revoked_before(self, account: str) -> float:
        """Return that moment; 0 when there is none."""
        ...


class Store(AdmissionStore, FailureCounter, KeyStore, RevocationStore, Protocol):
    """One environment's store: all of the above in one place."""

    async def ping(self) -> None:
        """Return when the store answers.

        Raises:
            StoreUnavailable: when it does not.
        """
        ...

    async def warnings(self) -> tuple[str, ...]:
        """Tell what of the store's own set-up endangers what is kept in it; one sentence each."""
        ...

    async def aclose(self) -> None:
        """Write what is buffered and let go of every connection, file and thread."""
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

    async def read(self, limit: int) -> bytes:
        """Return the whole body.

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
        self, method: str, target: str, headers: Headers, body: bytes | None, *, idle_timeout_s: float | None = None
    ) -> UpstreamAnswer:
        """Send one request and return when the head of its answer is here.

        `headers` are sent as given, after ``Host`` and before framing, both of which are this client's own.
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
        quotas: Iterable[Quota],
    ) -> None:
        """Take note of a finished request. `route`, `outcome` and `era` come from closed sets."""
        ...

    def event(self, name: str, *, level: str = "info", **members: Any) -> None:
        """Take note of something that is not a request."""
        ...

    def auth_failure(self, reason: str) -> None:
        """Take note of a refused credential."""
        ...

    def stream_opened(self, route: str) -> None:
        """Take note of an answer that begins to stream."""
        ...

    def stream_closed(self, route: str) -> None:
        """Take note of its end."""
        ...
