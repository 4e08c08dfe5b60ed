"""Between permit and forward: a call that a person has to confirm waits here for their word, or goes no further."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, Protocol

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
from sidecar.records import Confirmation, Confirmed
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
        if action is None:
            return Settled(permit)
        if action.kind != "request":
            is_ours = await self._take(principal, facts, action, permit.body)
            return None if is_ours else Settled(permit)
        if action.tool is None or permit.body is None:
            return Settled(permit)
        needs = self._rules.may_apply and self._rules.needs(principal, route, self._tools.of(action.tool))
        if needs and self._shadowed:
            needed = NotConfirmed("confirmation_needed", "A person would have to confirm this call")
            progress.shadows = shadow.noted(progress.shadows, "confirmation", needed)
        is_due = needs and not self._shadowed
        if not is_due and not self._carries_ours(facts, action):
            return Settled(permit)
        try:
            self._require_judgeable(facts, action, permit.body)
            caller.require_room()
            asked = policy.asked_about(facts, action, permit)
            call = Call(principal, facts, action, permit, asked, policy.call_binding(principal, asked))
            return await self._settled(call, caller, progress, is_due=is_due)
        except NotConfirmed as refusal:
            refusal.of_task = facts.era == "legacy" and isinstance(action.params.get("task"), dict)
            raise

    def _require_judgeable(self, facts: RequestFacts, action: Action, body: bytes) -> None:
        if policy.is_too_large(facts, action, body):
            self._report("too_large")
            raise NotConfirmed(
                "too_large",
                "The tool was not run: a person has to confirm this call, and nobody can judge one of over "
                f"{policy.JUDGED_BYTES} bytes. Call it with smaller arguments; or its operator sets confirmation to "
                "never for this route.",
            )

    async def _take(self, principal: Principal, facts: RequestFacts, action: Action, body: bytes | None) -> bool:
        """Take what is for us. What was asked before the rules were relaxed is answered all the same."""
        if facts.era != "legacy":
            return False
        asks_now = self._rules.may_apply and not self._shadowed
        if not asks_now and not policy.answers_a_question(action):
            return False
        return await self._questions.take(principal, facts, action, body)

    def _carries_ours(self, facts: RequestFacts, action: Action) -> bool:
        return "requestState" in action.params and facts.era == "modern" and self._sealer.is_ours(_state_of(action))

    async def _settled(self, call: Call, caller: Caller, progress: Progress, *, is_due: bool) -> Settled:
        """Take the client's word first, whatever the rule is by now; then see what the rule asks for."""
        given = _state_of(call.action) if call.facts.era == "modern" else None
        state = self._sealer.open(given, call.binding, self._clock())
        if state is None:
            return await self._asked(call, caller, progress, None, call.permit.body) if is_due else Settled(call.permit)
        body = self._without_ours(call, state)
        by: Literal["client", "other"] = "other" if state.stage == "approved" else "client"
        counts = by == "other" or self._approver == "caller"
        if state.stage != "asked" and counts:
            await self._use(call, state)
            return Settled(self._renewed(call, body, by))
        word = _word(call.action) if state.stage == "asked" else None
        if word is not None and (counts or word != "accept"):
            await self._use(call, state)
            self._require_yes(word)
            return Settled(self._renewed(call, body, by), "client")
        if is_due:
            return await self._asked(call, caller, progress, state, body)
        return Settled(self._renewed(call, body, None))

    def _require_yes(self, word: policy.Word) -> None:
        if word != "accept":
            reason = "declined" if word == "decline" else "cancelled"
            self._report(reason)
            raise NotConfirmed(reason, f"The tool was not run: the question was {reason}.")
        self._report("confirmed")

    async def _asked(
        self, call: Call, caller: Caller, progress: Progress, state: State | None, body: bytes | None
    ) -> Settled:
        """Ask, or find what was approved."""
        elicits = await self._elicits(call)
        channel = policy.channel(call.facts, call.action, approver=self._approver, elicits=elicits)
        if channel == "retry":
            theirs = _state_of(call.action) if state is None else state.upstream
            self._ask_to_retry(call, theirs if isinstance(theirs, str) else None)
        if channel == "stream":
            with self._place(call, progress):
                by = await self._questions.ask(call, caller, self._require_standing)
        else:
            by = await self._find_approval(call)
        self._report("confirmed")
        return Settled(self._renewed(call, body, "client" if channel == "stream" else "other"), by)

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

    def _ask_to_retry(self, call: Call, upstream: str | None) -> NoReturn:
        params = policy.elicitation(policy.message(call.asked, call.principal.account), mode=True)
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

    def _without_ours(self, call: Call, state: State) -> bytes:
        try:
            return retries.without_ours(call.permit.body or b"", state)
        except ValueError as error:
            raise InvalidParams("arguments_unreadable", "The arguments hold a number that is too long") from error

    def _renewed(self, call: Call, body: bytes | None, by: Literal["client", "other"] | None) -> Permit:
        """Sign again: what was signed when the call came may be too old by now, or was of another body."""
        permit = outbound.renewed(self._signer, call.permit, body, now=self._clock(), nonce=self._nonce())
        if call.facts.era == "legacy" or by is None:
            return permit
        return replace(permit, plan=replace(permit.plan, confirmed=Confirmed(call.binding, by)))


def _state_of(action: Action) -> object:
    return action.params.get("requestState")


def _word(action: Action) -> policy.Word | None:
    """Return what the client came back with; None where it has no answer to our question."""
    answers = action.params.get("inputResponses")
    answer = answers.get(policy.ANSWER_KEY) if isinstance(answers, dict) else None
    return None if answer is None else policy.word(answer)
