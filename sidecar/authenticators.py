"""Who is this? One authenticator for each kind of credential; each is a port plus the pure check."""

from __future__ import annotations

import contextlib
import hashlib
from asyncio import Future, ensure_future, shield
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from sidecar.bounded import BoundedCache, BoundedDict, Lookups
from sidecar.denials import InvalidApiKey, InvalidToken, StoreUnavailable
from sidecar.model import BearerToken, Limit, PresentedKey, Principal, RequestFacts
from sidecar.policy import apikeys, claims, quotas, tokens
from sidecar.policy.tokens import IssuerPolicy
from sidecar.ports import SecretHasher, VerificationKeys
from sidecar.records import ApiKey, KeyRecord
from sidecar.stores import FailureCounter, RevocationStore, Store

_REMEMBERED: Final = 10_000
_REMEMBER_SECRET_S: Final = 600
_MEET_AGAIN_S: Final = 60.0


class _Verified(NamedTuple):
    principal: Principal
    policy: IssuerPolicy
    generation: int
    meet_again_at: float


class FailedAttempts:
    """Limits failed authentication per client address; it refuses only what failed, or what would cost bcrypt.

    `limit` may be replaced while it is in use.
    """

    def __init__(
        self,
        counter: FailureCounter,
        limit: Limit,
        clock: Callable[[], float],
        *,
        report: Callable[[StoreUnavailable], None],
    ) -> None:
        self.limit = limit
        self._counter = counter
        self._clock = clock
        self._report = report
        self._checking: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def room(self, client: str) -> AsyncIterator[None]:
        """Hold room for one failure while a costly check runs; raise RateLimited when there is none left.

        Checks under way count as failures: else all that start before the first one fails would get through.
        """
        quota = await self._counter.peek(client, self.limit)
        if quota.retry_s > 0 or self._checking[client] >= quota.remaining:
            refused = quota if quota.retry_s > 0 else replace(quota, remaining=0, retry_s=1.0)
            raise quotas.refusal((refused,), self._clock())
        self._checking[client] += 1
        try:
            yield
        finally:
            self._checking[client] -= 1
            if not self._checking[client]:
                del self._checking[client]

    async def count(self, client: str) -> None:
        """Count one failure; raise RateLimited when there was no room. While the store is away none is counted."""
        try:
            quota = await self._counter.record(client, self.limit)
        except StoreUnavailable as problem:
            self._report(problem)
            return
        if quota.retry_s > 0:
            raise quotas.refusal((quota,), self._clock())


def _digest(credential: BearerToken) -> bytes:
    return hashlib.sha256(credential.token.encode("latin-1", "replace")).digest()


class JwtAuthenticator:
    """Bearer tokens of the configured issuers.

    Verified tokens are remembered under a digest of the whole token until they expire or the issuer's key set
    changes; at most 10 000 of them, one more and any is forgotten; and as many that were revoked. The store is told of
    each again after a minute, in case it has lost what it knew.
    """

    def __init__(
        self,
        issuers: Mapping[str, IssuerPolicy],
        keys: VerificationKeys,
        revocations: RevocationStore,
        clock: Callable[[], float],
        *,
        require_store: bool,
        lookups: Lookups | None = None,
    ) -> None:
        self._issuers = issuers
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self._require_store = require_store
        self._lookups = lookups or Lookups()
        self._remembered: BoundedCache[bytes, _Verified] = BoundedCache(_REMEMBERED)
        self._revoked: BoundedDict[bytes, None] = BoundedDict(_REMEMBERED)

    async def authenticate(self, credential: BearerToken, facts: RequestFacts) -> Principal:
        """Return the token's principal.

        Raises:
            InvalidToken, AccountUnusable: the token proves nothing, or nobody we could name.
            IssuerUnavailable: its issuer's keys were never loaded.
        """
        digest = _digest(credential)
        if digest in self._revoked:
            raise InvalidToken("token_revoked")
        known = self._remembered.get(digest)
        if known is not None and known.generation == self._keys.generation(known.policy.issuer):
            now = self._clock()
            if now >= known.principal.expires_at:
                raise InvalidToken("token_expired")
            if now < known.meet_again_at:
                self._lookups.hits += 1
                return known.principal
        self._lookups.misses += 1
        return await self._verify(credential, digest)

    def revoked(self, credential: BearerToken) -> None:
        """Remember that the store refused this token: it is not looked at again."""
        digest = _digest(credential)
        self._remembered.pop(digest, None)
        self._revoked[digest] = None

    async def _verify(self, credential: BearerToken, digest: bytes) -> Principal:
        unverified = tokens.peek(credential.token)
        policy = self._issuers.get(unverified.issuer)
        if policy is None:
            raise InvalidToken("token_issuer", detail=claims.mismatch("iss", unverified.issuer, self._issuers))
        if unverified.algorithm not in policy.algorithms:
            raise InvalidToken("token_algorithm", detail=f"{policy.issuer} may not sign so")
        key = await self._keys.find(policy.issuer, unverified.kid, unverified.algorithm)
        if key is None:
            raise InvalidToken("token_key", detail="no such key in the issuer's key set")
        generation = self._keys.generation(policy.issuer)
        now = self._clock()
        principal = tokens.verify(unverified, policy, key, now)
        if await self._is_met(principal):
            self._remembered[digest] = _Verified(principal, policy, generation, now + _MEET_AGAIN_S)
        return principal

    async def _is_met(self, principal: Principal) -> bool:
        """Tell the store of a token seen for the first time, so that its revocation reaches us; refuse a revoked one.

        The signature has proved the token. While the store is away its revocation can't be asked about: then it
        passes, this once, unless `limits.on_store_failure` is `deny`.
        """
        if principal.token_id is None:
            return True
        try:
            good = await self._revocations.meet(principal.token_id, principal.account, principal.expires_at)
        except StoreUnavailable:
            if self._require_store:
                raise
            return False
        if not good:
            raise InvalidToken("token_revoked")
        return True


class ApiKeyAuthenticator:
    """API keys: the secret is proved by bcrypt once in a while, the record is judged on every request.

    What is remembered, under a digest keyed by a secret of this process: "this secret matched this hash", for 10
    minutes, or until the store is back when it is away then; 10 000 of them at most. Records are remembered too, 10 000
    at most: the gateway's trip to the store tells when one is out of date.
    """

    def __init__(
        self,
        store: Store,
        hasher: SecretHasher,
        failures: FailedAttempts,
        *,
        clock: Callable[[], float],
        process_secret: bytes,
        lookups: Lookups | None = None,
        ended: Callable[[KeyRecord], None] = lambda _: None,
    ) -> None:
        """Put it together; `ended` hears of keys that have come to their end and whose secret is presented."""
        self._store = store
        self._hasher = hasher
        self._failures = failures
        self._clock = clock
        self._process_secret = process_secret
        self._ended = ended
        self._lookups = lookups or Lookups()
        self._records: BoundedCache[str, KeyRecord] = BoundedCache(_REMEMBERED)
        self._matched: BoundedCache[bytes, float] = BoundedCache(_REMEMBERED)
        self._matching: dict[bytes, Future[bool]] = {}

    async def authenticate(self, credential: PresentedKey, facts: RequestFacts) -> Principal:
        """Return the key's principal.

        Raises:
            InvalidApiKey: unknown, malformed, wrong, revoked and expired alike.
            RateLimited: this would need bcrypt, and the client's address has failed too often.
            StoreUnavailable, Overloaded: it could not be found out.
        """
        key = apikeys.parse(credential.text)
        record = self._records.get(key.id)
        if record is None:
            async with self._failures.room(facts.client):
                record = await self._load(key.id)
        digest = self._digest(key, record)
        if self._matched.get(digest, 0.0) <= self._clock():
            self._lookups.misses += 1
            await self._prove(key, record, digest, facts.client)
        else:
            self._lookups.hits += 1
        try:
            return self.judge(record)
        except InvalidApiKey:
            self._ended(record)
            raise

    def revoked(self, credential: PresentedKey) -> None:
        """Forget the record: the store knows a newer one."""
        self._records.pop(apikeys.parse(credential.text).id, None)

    def judge(self, record: KeyRecord | None) -> Principal:
        """Return the principal of a record as it is now, or raise InvalidApiKey."""
        if record is None:
            raise InvalidApiKey("key_unknown")
        self._records[record.id] = record  # also one that is refused below, so that it is refused before a body is read
        apikeys.judge(record, self._clock())
        return apikeys.principal(record)

    async def _load(self, key_id: str) -> KeyRecord:
        account = await self._store.account_of(key_id)
        stored = await self._store.get(account, key_id) if account is not None else None
        if stored is None:
            raise InvalidApiKey("key_unknown")
        return stored.record

    def _digest(self, key: ApiKey, record: KeyRecord) -> bytes:
        # The lookup id and the hash have fixed lengths, so no two triples give the same text.
        text = f"{key.id}\n{record.secret_hash}\n{key.secret}".encode()
        return hashlib.blake2b(text, digest_size=32, key=self._process_secret).digest()

    async def _prove(self, key: ApiKey, record: KeyRecord, digest: bytes, client: str) -> None:
        """Ask bcrypt where there is room for a failure. While the store can't say, a secret that matched before does.

        It always will match that hash; how long its key passes without the store is `offline`'s to decide.
        """
        try:
            async with self._failures.room(client):
                if not await self._matches(key, record, digest):
                    raise InvalidApiKey("key_secret")
        except StoreUnavailable:
            if digest not in self._matched:
                raise

    async def _matches(self, key: ApiKey, record: KeyRecord, digest: bytes) -> bool:
        """Ask bcrypt, once for all that present the same secret at the same time."""
        matching = self._matching.get(digest)
        if matching is None:
            matching = ensure_future(self._hasher.verify(key.secret, record.secret_hash))
            self._matching[digest] = matching
            matching.add_done_callback(lambda done: self._forget(digest, done))
        matches = await shield(matching)
        if matches:
            self._matched[digest] = self._clock() + _REMEMBER_SECRET_S
        return matches

    def _forget(self, digest: bytes, done: Future[bool]) -> None:
        del self._matching[digest]
        if not done.cancelled():
            done.exception()  # retrieved here too, for when every caller has left
