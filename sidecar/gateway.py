"""The hot path: one request walks through policy and ports to a permit, or leaves it by a denial."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeVar

from sidecar.authenticators import ApiKeyAuthenticator, FailedAttempts
from sidecar.denials import (
    Denial,
    HttpsRequired,
    InvalidApiKey,
    InvalidToken,
    RateLimited,
    Rule,
    StoreUnavailable,
)
from sidecar.guard import MANAGEMENT_PATH, ManagementPermit, ReadBody
from sidecar.model import (
    Action,
    Admission,
    Credential,
    CredentialKind,
    Handle,
    Headers,
    Limit,
    Permit,
    Principal,
    Progress,
    RequestFacts,
    Route,
    ToolClass,
    Verdict,
)
from sidecar.policy import access, credentials, headers, jsonrpc, outbound, quotas, sessions, shadow
from sidecar.policy.identity import Signer, identity_headers
from sidecar.policy.plans import Plans
from sidecar.policy.quotas import Limits, StreamLimit
from sidecar.ports import Authenticator
from sidecar.stores import AdmissionStore
from sidecar.tool_classes import ToolClasses

_PARSE_IN_THREAD_BYTES: Final = 65_536
_LARGE_BODIES: Final = 2
_ATTEMPTS: Final = 3

A = TypeVar("A")


class Gateway:
    """Decides about one request after another; holds no state of its own. Rules in `shadowed` refuse nothing."""

    def __init__(
        self,
        *,
        authenticators: Mapping[type, Authenticator[Any]],
        keys: ApiKeyAuthenticator,
        failures: FailedAttempts,
        tools: ToolClasses,
        limits: Limits,
        stream_limit: StreamLimit,
        admissions: AdmissionStore,
        signer: Signer,
        upstream_path: str,
        upstream_query: str,
        pass_headers: frozenset[str],
        plans: Plans,
        session_idle_s: float,
        shadowed: frozenset[Rule] = frozenset(),
        clock: Callable[[], float],
        nonce: Callable[[], str],
    ) -> None:
        self._authenticators = authenticators
        self._keys = keys
        self._failures = failures
        self._tools = tools
        self._limits = limits
        self._stream_limit = stream_limit
        self._admissions = admissions
        self._signer = signer
        self._upstream_path = upstream_path
        self._upstream_query = upstream_query
        self._pass_headers = pass_headers
        self._plans = plans
        self._session_idle_s = session_idle_s
        self._shadowed = shadowed
        self._how: Literal["spend", "shadow"] = "shadow" if "limits" in shadowed else "spend"
        self._clock = clock
        self._nonce = nonce
        self._large_bodies = asyncio.Semaphore(_LARGE_BODIES)

    async def check(self, route: Route, facts: RequestFacts, read_body: ReadBody, progress: Progress) -> Permit:
        """Return the permit for a proxied request (see `guard.Guard.check`)."""
        credential, principal = await self._identify(route.credentials, facts, progress)
        try:
            body = await read_body()
            action = await self._action(facts, body, progress)
            progress.holds_stream = self._reserve(principal, action, progress)
            tool_class = None if action.tool is None else self._tools.called(action.tool)
            path, query = headers.target(self._upstream_path, self._upstream_query, facts.query)
            lines = headers.to_upstream(facts, self._pass_headers, session=sessions.session_of(facts, action))
            belongs_to = sessions.handles(principal, facts, action, self._session_idle_s)
            principal, verdict = await self._admit(
                principal, facts, action, tool_class, route.path, progress, belongs_to
            )
        except Denial as denial:
            await self._note(denial, credential, principal, facts)
            raise
        return Permit(
            facts.method,
            outbound.target(path, query),
            self._signed(facts, principal, path, query, lines, body),
            body,
            quotas.answer_headers(verdict.quotas, verdict.now),
            self._plans.make(principal, facts, action, belongs_to),
        )

    async def check_management(
        self,
        facts: RequestFacts,
        read_body: ReadBody,
        understand: Callable[[Principal, bytes], A],
        progress: Progress,
    ) -> ManagementPermit[A]:
        """Return what a caller of the key management may do (see `guard.Guard.check_management`)."""
        credential, principal = await self._identify(("jwt",), facts, progress)
        progress.action = action = Action("manage", facts.method)
        try:
            act = understand(principal, await read_body() or b"")
            asked_at = self._clock()
            principal, verdict = await self._admit(principal, facts, action, None, MANAGEMENT_PATH, progress)
        except Denial as denial:
            await self._note(denial, credential, principal, facts)
            raise
        return ManagementPermit(act, asked_at, quotas.answer_headers(verdict.quotas, verdict.now))

    async def recheck(self, principal: Principal) -> Principal:
        """Return the principal of a running stream as the store knows it now.

        Raises:
            InvalidToken, InvalidApiKey: it is good for nothing any more.
            StoreUnavailable: that could not be found out.
        """
        look, unread = Action("stream"), Progress()
        principal, _ = await self._vouch(principal, look, None, unread, limits=(), write=False, counts_as_use=False)
        return principal

    async def _identify(
        self, accepts: tuple[CredentialKind, ...], facts: RequestFacts, progress: Progress
    ) -> tuple[Credential, Principal]:
        credential = credentials.extract(facts, accepts)
        if not facts.is_secure:
            raise HttpsRequired("plain_http")
        try:
            principal = await self._authenticators[type(credential)].authenticate(credential, facts)
        except (InvalidToken, InvalidApiKey):
            await self._failures.count(facts.client)
            raise
        progress.principal = principal
        return credential, principal

    async def _action(self, facts: RequestFacts, body: bytes | None, progress: Progress) -> Action:
        if body is None:
            action = Action("stream" if facts.method == "GET" else "end_session")
        else:
            progress.body_bytes = size = len(body)
            document = jsonrpc.parse(body) if size <= _PARSE_IN_THREAD_BYTES else await self._parse_large(body)
            progress.message_id, progress.message_kind = jsonrpc.id_of(document), jsonrpc.kind_of(document)
            action = jsonrpc.action(document, facts.era)
            jsonrpc.require_agreement(facts, action)
        progress.action = action
        return action

    async def _parse_large(self, body: bytes) -> dict[str, Any]:
        """Read a large message off the event loop, and few at a time, for the memory that it takes."""
        async with self._large_bodies:
            return await asyncio.to_thread(jsonrpc.parse, body)

    async def _admit(
        self,
        principal: Principal,
        facts: RequestFacts,
        action: Action,
        tool_class: ToolClass | None,
        route: str,
        progress: Progress,
        belongs_to: tuple[Handle, ...] = (),
    ) -> tuple[Principal, Verdict]:
        """Spend what the action costs, if the principal may take it."""
        write = access.is_write(action, tool_class)
        free = action.kind == "response"
        limits = () if free else self._limits.applicable(route=route, tool=action.tool, write=write)
        principal, verdict = await self._vouch(
            principal, action, tool_class, progress, limits=limits, write=write, belongs_to=belongs_to
        )
        progress.principal = principal
        if verdict.unknown is not None:
            raise sessions.unknown(verdict.unknown, facts, action)
        progress.quotas = verdict.quotas
        if not verdict.admitted:
            self._refuse("limits", quotas.refusal(verdict.quotas, verdict.now), progress)
        progress.is_write = write
        if "limits" in self._shadowed:
            return principal, Verdict("good", verdict.now)  # no client is told of a limit that does not hold
        return principal, verdict

    async def _vouch(
        self,
        principal: Principal,
        action: Action,
        tool_class: ToolClass | None,
        progress: Progress,
        *,
        limits: tuple[Limit, ...],
        write: bool,
        belongs_to: tuple[Handle, ...] = (),
        counts_as_use: bool = True,
    ) -> tuple[Principal, Verdict]:
        """Judge the principal as the store knows it now: a key that changed since it was read is judged again."""
        for _ in range(_ATTEMPTS):
            try:
                access.authorize(principal, action, tool_class)
            except Denial as denial:
                self._refuse("scopes", denial, progress)
            key = principal.key
            verdict = await self._admissions.admit(
                Admission(
                    principal.account,
                    principal.credential_id,
                    principal.issued_at,
                    limits,
                    write,
                    counts_as_use,
                    self._how,
                    None if key is None else key.id,
                    0 if key is None else key.version,
                    principal.token_id,
                    belongs_to,
                )
            )
            if verdict.standing != "key_changed":
                break
            principal = self._keys.judge(verdict.key)
        else:
            raise StoreUnavailable("key_unsettled")
        if verdict.standing == "revoked":
            raise InvalidApiKey("key_revoked") if principal.kind == "api_key" else InvalidToken("token_revoked")
        return principal, verdict

    def _reserve(self, principal: Principal, action: Action, progress: Progress) -> bool:
        try:
            return self._stream_limit.reserve(principal, action, self._clock())
        except RateLimited as denial:
            self._refuse("limits", denial, progress)
            return self._stream_limit.hold(principal)

    def _refuse(self, rule: Rule, denial: Denial, progress: Progress) -> None:
        """Refuse, or take note of it where the rule is in shadow mode."""
        if rule not in self._shadowed:
            raise denial
        progress.shadows = shadow.noted(progress.shadows, rule, denial)

    async def _note(self, denial: Denial, credential: Credential, principal: Principal, facts: RequestFacts) -> None:
        """Take note of a refusal after authentication: a credential that the store refused has failed too."""
        if isinstance(denial, InvalidToken | InvalidApiKey):
            self._authenticators[type(credential)].revoked(credential)
            await self._failures.count(facts.client)
        counted_by_the_store = isinstance(denial, RateLimited)
        if principal.key is not None and not counted_by_the_store:
            await self._admissions.count_refusal(principal.account, principal.key.id)

    def _signed(
        self,
        facts: RequestFacts,
        principal: Principal,
        path: str,
        query: str | None,
        lines: Iterable[tuple[bytes, bytes]],
        body: bytes | None,
    ) -> Headers:
        identity = identity_headers(
            account=principal.account,
            scopes=principal.scopes,
            kind=principal.kind,
            subject=principal.subject,
            request_id=facts.request_id,
        )
        return outbound.signed(
            self._signer,
            method=facts.method,
            path=path,
            query=query,
            lines=lines,
            identity=identity,
            body=body,
            now=self._clock(),
            nonce=self._nonce(),
        )
