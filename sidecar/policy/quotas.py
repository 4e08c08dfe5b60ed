"""Which limits does an action spend from, and what does the store's answer mean to the client?"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import Final

from sidecar.bounded import BoundedCache
from sidecar.denials import RateLimited
from sidecar.model import Action, Limit, Principal, Quota
from sidecar.policy.tools import names_or_globs

AnswerHeaders = tuple[tuple[str, str], ...]
_LIMITS: Final = 1024
"""So many are described without writing the text again."""
_REMEMBERED: Final = 4096


class Limits:
    """The configured limits, and which of them apply to what.

    The answer is remembered for 4096 questions (names of tools come from clients), and is the same object for all that
    have the same one: the limits never change.
    """

    def __init__(self, limits: tuple[Limit, ...]) -> None:
        self._limits = limits
        self._tools = {limit.name: names_or_globs(limit.tools) for limit in limits if limit.tools}
        self._remembered: BoundedCache[tuple[str, str | None, bool], tuple[Limit, ...]] = BoundedCache(_REMEMBERED)
        self._selections: BoundedCache[tuple[Limit, ...], tuple[Limit, ...]] = BoundedCache(_REMEMBERED)

    def applicable(self, *, route: str, tool: str | None, write: bool) -> tuple[Limit, ...]:
        """Return the limits that this action spends one unit of each from, in configured order."""
        asked = (route, tool if self._tools else None, write)
        applicable = self._remembered.get(asked)
        if applicable is None:
            selected = self._select(route, tool, write)
            applicable = self._selections.get(selected)
            if applicable is None:
                applicable = self._selections[selected] = selected
            self._remembered[asked] = applicable
        return applicable

    def _select(self, route: str, tool: str | None, write: bool) -> tuple[Limit, ...]:
        return tuple(
            limit
            for limit in self._limits
            if (write or limit.effect == "any")
            and (not limit.routes or route in limit.routes)
            and (not limit.tools or (tool is not None and self._tools[limit.name].fullmatch(tool)))
        )


class StreamLimit:
    """How many streams that go on for ever a credential may have open in this process.

    `per_credential` may be changed while it is in use: what is open stays open.
    """

    def __init__(self, per_credential: int) -> None:
        self.per_credential = per_credential
        self._held: Counter[str] = Counter()

    def reserve(self, principal: Principal, action: Action, now: float) -> bool:
        """Hold a place for the stream that the action would open; False when it opens none that goes on for ever.

        Raises:
            RateLimited: there is no place left.
        """
        return is_endless(action) and self.take(principal, now)

    def take(self, principal: Principal, now: float) -> bool:
        """Hold a place.

        Raises:
            RateLimited: there is no place left.
        """
        if self._held[principal.credential_id] >= self.per_credential:
            limit = Limit("streams", self.per_credential, 1, per="credential")
            raise refusal((Quota(limit, 0, 1.0, 1.0),), now)
        return self.hold(principal)

    def hold(self, principal: Principal) -> bool:
        """Hold a place, whether or not there is one left."""
        self._held[principal.credential_id] += 1
        return True

    def release(self, principal: Principal) -> None:
        """Give a place back."""
        self._held[principal.credential_id] -= 1
        if not self._held[principal.credential_id]:
            del self._held[principal.credential_id]


def is_endless(action: Action) -> bool:
    """Tell whether the answer may go on for ever: GET, and `subscriptions/listen` since 2026-07-28."""
    return action.kind == "stream" or (action.kind == "request" and action.method == "subscriptions/listen")


def answer_headers(quotas: tuple[Quota, ...], now: float) -> AnswerHeaders:
    """Return the rate headers of an admitted request; none where no limit applied.

    `X-RateLimit-*` and `RateLimit` speak of the tightest limit, `RateLimit-Policy` names all that applied
    (draft-ietf-httpapi-ratelimit-headers).
    """
    if not quotas:
        return ()
    tightest = _tightest(quotas)
    return _headers(quotas, tightest, math.ceil(now + tightest.reset_s), math.ceil(tightest.reset_s))


def refusal(quotas: tuple[Quota, ...], now: float) -> RateLimited:
    """Return the 429 for an answer that did not admit.

    The wait is rounded up over all limits that refused, so that a retry succeeds if nothing else was spent.
    """
    retry_after_s = max(1, math.ceil(max(quota.retry_s for quota in quotas)))
    tightest = _tightest(tuple(quota for quota in quotas if quota.retry_s > 0))
    return RateLimited(
        "rate_limited",
        f'Rate limit "{tightest.limit.name}" exceeded: {tightest.limit.requests} requests in '
        f"{tightest.limit.window_s} s; retry after {retry_after_s} s",
        detail=tightest.limit.name,
        retry_after_s=retry_after_s,
        headers=_headers(quotas, tightest, math.ceil(now + retry_after_s), retry_after_s),
    )


def scaled(limits: tuple[Limit, ...], share: float) -> tuple[Limit, ...]:
    """Return the limits as one replica applies them by itself: `share` of each, one request at least."""
    return tuple(
        Limit(limit.name, max(1, math.floor(limit.requests * share)), limit.window_s, limit.per) for limit in limits
    )


def _tightest(quotas: tuple[Quota, ...]) -> Quota:
    tightest, *others = quotas
    share = tightest.remaining / tightest.limit.requests
    for quota in others:
        its_share = quota.remaining / quota.limit.requests
        if its_share < share or (its_share == share and quota.limit.window_s > tightest.limit.window_s):
            tightest, share = quota, its_share
    return tightest


def _headers(quotas: tuple[Quota, ...], tightest: Quota, reset_at: int, reset_s: int) -> AnswerHeaders:
    limit = tightest.limit
    policies = ", ".join([_policy(each.limit.name, each.limit.requests, each.limit.window_s) for each in quotas])
    return (
        ("X-RateLimit-Limit", str(limit.requests)),
        ("X-RateLimit-Remaining", str(tightest.remaining)),
        ("X-RateLimit-Reset", str(reset_at)),
        ("RateLimit-Policy", policies),
        ("RateLimit", f'"{limit.name}";r={tightest.remaining};t={reset_s}'),
    )


@lru_cache(maxsize=_LIMITS)
def _policy(name: str, requests: int, window_s: int) -> str:
    return f'"{name}";q={requests};w={window_s}'
