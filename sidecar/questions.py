"""Questions that are asked of a call's own client, on the answer of the call (MCP 2025-06-18 and 2025-11-25)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import orjson

from sidecar.denials import InvalidParams, NotConfirmed, StoreUnavailable
from sidecar.model import Action, Permit, Principal, RequestFacts
from sidecar.policy import confirmation as policy
from sidecar.policy import jsonrpc, sessions
from sidecar.records import Confirmation
from sidecar.stores import ConfirmationStore

LOOK_S: Final = 0.25
"""How often it is looked whether an answer has come to another process; one that comes to this one is seen at once."""
GIVING_UP_TRIES: Final = 8
"""How often a client's giving up is brought to a store that does not answer, every `LOOK_S`."""
COMMENT_S: Final = 15.0
"""Silence after which a waiting client is told that it still has a connection."""
OVERTAKEN_S: Final = 5.0
"""A client's giving up may be here before the call, by so much; so long it is remembered, and its id not to be used."""
REMEMBERED_S: Final = 10.0
"""A question outlives its time by this, so that an answer that comes too late is not taken for the upstream's."""
_MODE_SINCE: Final = "2025-11-25"


class Caller(Protocol):
    """The client, while its call waits."""

    def require_room(self) -> None:
        """Raise Overloaded where what comes of the call could not be recorded."""

    def begin(self) -> None:
        """Begin an answer that is a stream of events."""

    async def tell(self, message: bytes | None) -> None:
        """Send an event with this message, or only a sign of life. ConnectionError when the client has left."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has to be confirmed."""

    principal: Principal
    facts: RequestFacts
    action: Action
    permit: Permit
    asked: policy.Asked
    binding: str
    """Of `asked` and the caller."""

    def to_confirm(
        self,
        kind: Literal["question", "approval"],
        entropy: bytes,
        now: float,
        lives_s: float,
        binding: str,
        session: str = "",
    ) -> Confirmation:
        """Return what is kept of it until somebody has confirmed it."""
        arguments, is_cut = policy.arguments_text(self.permit.body or b"") if kind == "approval" else (None, False)
        return Confirmation(
            id=entropy.hex(),
            kind=kind,
            account=self.principal.account,
            owner=sessions.owner(self.principal),
            binding=binding,
            session=session,
            subject=self.principal.subject,
            client_id=self.principal.client_id,
            tool=str(self.action.tool),
            message=policy.message(self.asked, self.principal.account),
            created_at=now,
            expires_at=now + lives_s,
            credential=self.principal.kind,
            arguments=arguments,
            is_cut=is_cut,
            besides=policy.besides(self.asked) if kind == "approval" else None,
        )


class Questions:
    """Asks, waits for the answer to whichever process it comes, and takes answers and cancellations.

    Who waits is the only one that can go on with the call, and withdraws the question with whatever ends the wait.
    """

    def __init__(
        self,
        store: ConfirmationStore,
        *,
        hold_s: float,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        report: Callable[[str], None],
    ) -> None:
        self._store = store
        self._hold_s = hold_s
        self._clock = clock
        self._entropy = entropy
        self._report = report
        self._answered: dict[str, asyncio.Event] = {}

    async def ask(self, call: Call, caller: Caller, require_standing: Callable[[Call], Awaitable[None]]) -> str:
        """Ask on the answer of the call itself, and return who said yes.

        `require_standing` raises where the call may not be made any more. Spending the yes is what is done last, so
        that a cancellation counts until the call is on its way.
        """
        account, version = call.principal.account, call.facts.headers.get("mcp-protocol-version", "")
        session = policy.session_digest(sessions.session_of(call.facts, call.action))
        binding = policy.request_binding(call.principal, session, call.action.id)
        question = call.to_confirm(
            "question", self._entropy(16), self._clock(), self._hold_s + REMEMBERED_S, binding, session
        )
        kept = await self._store.keep(question, self._clock())
        if kept.id != question.id:
            if _is_note(kept):
                raise self.refusal(kept)
            raise InvalidParams("request_id_in_use", "A call with this id still waits for its confirmation")
        params = policy.elicitation(question.message, mode=version >= _MODE_SINCE)
        message = {"jsonrpc": "2.0", "id": f"sc-{question.id}", "method": "elicitation/create", "params": params}
        self._answered[question.id] = asyncio.Event()
        is_spent = False
        try:
            caller.begin()
            await caller.tell(orjson.dumps(message))
            self._report("asked")
            answered = await self._answer(question, caller)
            if answered is not None and answered.state == "approved":
                await require_standing(call)
                await caller.tell(None)  # who has left by now gets nothing done
                if await self._store.move(account, question.id, "spend", self._clock()):
                    is_spent = True
                    return "client"
        finally:
            del self._answered[question.id]
            if not is_spent:
                with contextlib.suppress(StoreUnavailable):  # then it expires by itself: nobody else can spend it
                    await self._store.move(account, question.id, "withdraw", self._clock())
        raise self.refusal(answered)

    async def _answer(self, question: Confirmation, caller: Caller) -> Confirmation | None:
        """Return the question once it is answered; None when that took too long.

        A store that is away for a moment does not end what a person is thinking about: nothing passes without it.

        Raises:
            StoreUnavailable: it was still away when the time was over.
        """
        waited = asyncio.get_running_loop().time()
        told, until = waited, waited + self._hold_s
        while True:
            asked: Confirmation | None = None
            problem: StoreUnavailable | None = None
            try:
                asked = await self._store.confirmation(question.account, question.id)
            except StoreUnavailable as unavailable:
                problem = unavailable
            if asked is not None and asked.state != "waiting":
                return asked
            now = asyncio.get_running_loop().time()
            if now >= until:
                if problem is not None:
                    raise problem
                return None
            if now - told >= COMMENT_S:
                told = now
                await caller.tell(None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, until - now)):
                    await self._answered[question.id].wait()
            self._answered[question.id].clear()

    def refusal(self, asked: Confirmation | None) -> NotConfirmed:
        """Return the refusal of a call whose confirmation has come to this; None when it took too long."""
        if asked is None:
            reason = "timed_out"
            said = f"nobody confirmed it within {self._hold_s:g} seconds"
        elif asked.state == "declined" and not _is_note(asked):
            reason = "declined"
            said = "the person who was asked declined it"
        else:
            reason = "cancelled"
            said = "the question was cancelled"
        self._report(reason)
        return NotConfirmed(reason, f"The tool was not run: {said}.")

    async def take(self, principal: Principal, facts: RequestFacts, action: Action, body: bytes | None) -> bool:
        """Take an answer to a question of ours, or the cancellation of a call that waits: no upstream knows of it."""
        account = principal.account
        session = policy.session_digest(sessions.session_of(facts, action))
        if policy.answers_a_question(action):
            asked = await self._store.confirmation(account, str(action.id).removeprefix("sc-"))
            if asked is None:
                return False
            if policy.may_answer(asked, principal, session):
                is_answer = body is not None and len(body) <= policy.JUDGED_BYTES
                word = policy.word(jsonrpc.parse(body).get("result")) if body and is_answer else "cancel"
                move = {"accept": "approve", "decline": "decline", "cancel": "withdraw"}[word]
                await self._move(asked, move)
            return True
        if action.kind == "notification" and action.method == "notifications/cancelled":
            request_id = action.params.get("requestId")
            if not isinstance(request_id, str | int):
                return False
            binding = policy.request_binding(principal, session, request_id)
            return await self._give_up(self._note_of(principal, binding, session))
        return False

    async def _give_up(self, note: Confirmation) -> bool:
        """Withdraw the question of a request that was given up, if it has one. No client says so a second time."""
        for _ in range(GIVING_UP_TRIES):
            with contextlib.suppress(StoreUnavailable):
                waits = await self._store.keep(note, self._clock())
                return not _is_note(waits) and await self._move(waits, "withdraw")
            await asyncio.sleep(LOOK_S)
        return False  # without the store so long, whatever waited has ended

    def _note_of(self, principal: Principal, binding: str, session: str) -> Confirmation:
        """Return the note that a request was given up: its call may be on its way, and overtaken by this."""
        now = self._clock()
        return Confirmation(
            id=self._entropy(16).hex(),
            kind="question",
            account=principal.account,
            owner=sessions.owner(principal),
            binding=binding,
            session=session,
            subject=principal.subject,
            client_id=principal.client_id,
            tool="",
            message="",
            created_at=now,
            expires_at=now + OVERTAKEN_S,
            state="declined",  # which is open: the call that comes finds it
        )

    async def _move(self, asked: Confirmation, move: str) -> bool:
        moved = await self._store.move(asked.account, asked.id, move, self._clock(), "client")
        if asked.id in self._answered:
            self._answered[asked.id].set()
        return moved


def _is_note(kept: Confirmation) -> bool:
    """Tell whether this is only the note that a request was given up. No tool is without a name."""
    return not kept.tool
