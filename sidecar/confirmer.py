"""Between permit and forward: a call that a person has to confirm waits here for their word, or goes no further."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, Protocol

import orjson

from sidecar.denials import (
    InvalidApiKey,
    InvalidParams,
    InvalidToken,
    MissingCapability,
    NotConfirmed,
    RateLimited,
    SessionNotFound,
)
from sidecar.model import Action, Permit, Principal, Progress, RequestFacts
from sidecar.policy import confirmation as policy
from sidecar.policy import outbound, retries, sessions, shadow
from sidecar.policy.identity import Signer
from sidecar.policy.quotas import StreamLimit
from sidecar.policy.retries import State, StateSealer
from sidecar.questions import Call, Caller, Questions
from sidecar.records import Confirmation
from sidecar.stores import ConfirmationStore, HandleStore, TooManyWait
from sidecar.tool_classes import ToolClasses


class Store(ConfirmationStore, HandleStore, Protocol):
    """What is asked of the store."""


@dataclass(slots=True)  # frozen it would take several times as long to make, for every request
class Settled:
    """A call that may be forwarded, and who confirmed it, if anybody had to."""

    permit: Permit
    by: str | None = None


class Confirmer:
    """Lets a call pass that needs no confirmation or has one; each confirmation lets one call pass.

    With `shadowed` it takes note of what it would have asked, and lets everything pass.
    """

    def __init__(
        self,
        *,
        rules: policy.Rules,
        tools: ToolClasses,
        store: Store,
        signer: Signer,
        sealer: StateSealer,
        approver: Literal["caller", "other"],
        hold_s: float,
        ttl_s: float,
        public_url: str,
        shadowed: bool,
        stream_limit: StreamLimit,
        limits_are_shadowed: bool,
        recheck: Callable[[Principal], Awaitable[Principal]],
        clock: Callable[[], float],
        nonce: Callable[[], str],
        entropy: Callable[[int], bytes],
        report: Callable[[str], None],
        announce: Callable[[Confirmation], None],
    ) -> None:
        self._rules = rules
        self._tools = tools
        self._store = store
        self._signer = signer
        self._sealer = sealer
        self._approver = approver
        self._questions = Questions(store, hold_s=hold_s, clock=clock, entropy=entropy, report=report)
        self._ttl_s = ttl_s
        self._public_url = public_url
        self._shadowed = shadowed
        self._stream_limit = stream_limit
        self._limits_are_shadowed = limits_are_shadowed
        self._recheck = recheck
        self._clock = clock
        self._nonce = nonce
        self._entropy = entropy
        self._report = report
        self._announce = announce

    async def settle(
        self, route: str, facts: RequestFacts, progress: Progress, permit: Permit, caller: Caller
    ) -> Settled | None:
        """Return what may be forwarded; None for a message that was for us.

        Raises:
            NotConfirmed, MissingCapability: nobody has confirmed the call, and what there is to do about it.
            InvalidParams: the client came back with a state that is not of this call.
            RateLimited: the credential has as many streams open, and calls held, as it may have.
            StoreUnavailable, Overloaded: it could not be found out, kept or recorded.
            ConnectionError: the client has left.
        """
        principal, action = permit.plan.principal, progress.action
        if action is None or not self._rules.may_apply:
            return Settled(permit)
        if action.kind != "request":
            may_be_ours = not self._shadowed and facts.era == "legacy"
            is_ours = may_be_ours and await self._questions.take(principal, facts, action, permit.body)
            return None if is_ours else Settled(permit)
        if action.tool is None or permit.body is None:
            return Settled(permit)
        if not self._rules.needs(principal, route, self._tools.of(action.tool)):
            return Settled(permit)
        if self._shadowed:
            needed = NotConfirmed("confirmation_needed", "A person would have to confirm this call")
            progress.shadows = shadow.noted(progress.shadows, "confirmation", needed)
            return Settled(permit)
        self._require_judgeable(facts, action, permit.body)
        caller.require_room()
        binding = policy.call_binding(principal, action, permit.body)
        return await self._confirmed(Call(principal, facts, action, permit, binding), caller, progress)

    def _require_judgeable(self, facts: RequestFacts, action: Action, body: bytes) -> None:
        if policy.is_too_large(facts, action, body):
            self._report("too_large")
            raise NotConfirmed(
                "too_large",
                "The tool was not run: a person has to confirm this call, and nobody can judge one of over "
                f"{policy.JUDGED_BYTES} bytes. Call it with smaller arguments; or its operator sets confirmation to "
                "never for this route.",
            )

    async def _confirmed(self, call: Call, caller: Caller, progress: Progress) -> Settled:
        given = call.action.params.get("requestState") if call.facts.era == "modern" else None
        state = self._sealer.open(given, call.binding, self._clock())
        if state is not None and state.stage == "confirmed":
            await self._use(call, state)
            return Settled(self._renewed(call, self._without_ours(call, state.upstream)))
        elicits = await self._elicits(call)
        channel = policy.channel(call.facts, call.action, approver=self._approver, elicits=elicits)
        if channel == "retry":
            return await self._retried(call, state)
        if channel == "stream":
            with self._place(call, progress):
                by = await self._questions.ask(call, caller, self._require_standing)
        else:
            by = await self._find_approval(call)
        self._report("confirmed")
        return Settled(self._renewed(call, call.permit.body), by)

    async def _require_standing(self, call: Call) -> None:
        """Refuse a call whose credential, session or tool has come to its end while a person was asked."""
        principal = await self._recheck(call.principal)
        if principal.expires_at <= self._clock():
            raise InvalidApiKey("key_expired") if principal.kind == "api_key" else InvalidToken("token_expired")
        if not await self._owns_session(call):
            raise SessionNotFound("session_ended")
        self._tools.called(str(call.action.tool))

    @contextmanager
    def _place(self, call: Call, progress: Progress) -> Iterator[None]:
        """Hold a place among the streams of the call's credential, as a held call keeps a connection and its body."""
        try:
            self._stream_limit.take(call.principal, self._clock())
        except RateLimited as denial:
            if not self._limits_are_shadowed:
                raise
            progress.shadows = shadow.noted(progress.shadows, "limits", denial)
            self._stream_limit.hold(call.principal)
        try:
            yield
        finally:
            self._stream_limit.release(call.principal)

    async def _elicits(self, call: Call) -> bool:
        session_id, owner = sessions.session_of(call.facts, call.action), sessions.owner(call.principal)
        if session_id is None or self._approver != "caller":
            return False
        return await self._store.elicits(call.principal.account, owner, session_id)

    async def _owns_session(self, call: Call) -> bool:
        session_id, owner = sessions.session_of(call.facts, call.action), sessions.owner(call.principal)
        if session_id is None:
            return False
        return bool(await self._store.owned(call.principal.account, owner, "session", [session_id]))

    async def _find_approval(self, call: Call) -> str:
        """Spend the approval that there is for this call, and return who gave it; else keep the call for approval."""
        approval = await self._approval(call)
        while approval.state == "approved":
            if await self._store.move(approval.account, approval.id, "spend", self._clock()):
                return approval.decided_by or "?"
            approval = await self._approval(call)  # another call like this one was quicker
        if approval.state == "declined":
            raise self._questions.refusal(approval)
        self._report("approval_needed")
        text = policy.approval_text(approval, self._public_url)
        if call.facts.era == "modern" and self._approver == "caller":
            required: dict[str, Any] = {"requiredCapabilities": {"elicitation": {}}}
            raise MissingCapability("approval_needed", text, data=required)
        raise NotConfirmed("approval_needed", text)

    async def _approval(self, call: Call) -> Confirmation:
        now = self._clock()
        asked = call.to_confirm("approval", self._entropy(16), now, self._ttl_s, call.binding)
        try:
            approval = await self._store.keep(asked, now)
        except TooManyWait:
            self._report("too_many")
            raise NotConfirmed("too_many", policy.too_many_text()) from None
        if approval.id == asked.id:
            self._announce(approval)
        return approval

    async def _retried(self, call: Call, state: State | None) -> Settled:
        """Let the client come back with the answer: nothing of this is kept here but that it was used."""
        params = call.action.params
        answers = params.get("inputResponses")
        answer = answers.get(policy.ANSWER_KEY) if isinstance(answers, dict) else None
        if state is None or answer is None:
            theirs = params.get("requestState") if state is None else state.upstream
            self._ask_to_retry(call, theirs if isinstance(theirs, str) else None)
        await self._use(call, state)
        word = policy.word(answer)
        if word != "accept":
            reason = "declined" if word == "decline" else "cancelled"
            self._report(reason)
            raise NotConfirmed(reason, f"The tool was not run: the question was {reason}.")
        self._report("confirmed")
        return Settled(self._renewed(call, self._without_ours(call, state.upstream)), "client")

    def _ask_to_retry(self, call: Call, upstream: str | None) -> NoReturn:
        params = policy.elicitation(policy.message(call.action, call.principal.account), mode=True)
        state = self._sealer.seal(
            "asked", call.binding, upstream, now=self._clock(), entropy=self._entropy(retries.ENTROPY_BYTES)
        )
        asked = {policy.ANSWER_KEY: {"method": "elicitation/create", "params": params}}
        result = {"resultType": "input_required", "inputRequests": asked, "requestState": state}
        self._report("asked")
        raise NotConfirmed("asked", "A person is asked", result=result)

    async def _use(self, call: Call, state: State) -> None:
        if not await self._store.use_once(call.principal.account, state.id, state.expires_at, self._clock()):
            self._report("replayed")
            raise NotConfirmed("replayed", "The tool was not run: this answer was used before. Call again without it.")

    def _without_ours(self, call: Call, upstream: str | None) -> bytes:
        try:
            return retries.without_ours(call.permit.body or b"", upstream)
        except ValueError as error:
            raise InvalidParams("arguments_unreadable", "The arguments hold a number that is too long") from error

    def _renewed(self, call: Call, body: bytes | None) -> Permit:
        """Sign again: what was signed when the call came may be too old by now, or was of another body."""
        permit = outbound.renewed(self._signer, call.permit, body, now=self._clock(), nonce=self._nonce())
        if call.facts.era == "legacy":
            return permit
        return replace(permit, plan=replace(permit.plan, confirmed=call.binding))


class Envelopes:
    """Puts the state of an upstream that asks for more after a confirmation into one of ours, which says so."""

    def __init__(self, sealer: StateSealer, clock: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        self._sealer = sealer
        self._clock = clock
        self._entropy = entropy

    def put(self, binding: str, message: bytes) -> bytes:
        """Return the answer as the client gets it; the very same one when it asks for nothing."""
        try:
            document = orjson.loads(message)
        except orjson.JSONDecodeError:
            return message
        if not retries.asks_for_input(document):
            return message
        theirs = document["result"].get("requestState")
        state = self._sealer.seal(
            "confirmed",
            binding,
            theirs if isinstance(theirs, str) else None,
            now=self._clock(),
            entropy=self._entropy(retries.ENTROPY_BYTES),
        )
        return retries.with_state(message, state)
