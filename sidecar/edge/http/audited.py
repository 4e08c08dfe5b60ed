"""What the audit hears of a request: that it was refused, that it is a write, or what it did with keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sidecar.denials import Denial, NotConfirmed
from sidecar.edge.http.exchange import Exchange
from sidecar.guard import ManagementPermit
from sidecar.management import Act, RestAnswer
from sidecar.policy import apikeys, approvals, audit
from sidecar.ports import Auditor
from sidecar.records import KeyAct

_NOT_DECIDED_YET: Final = ("asked", "approval_needed")
_ASKED_NOTHING: Final = (408, 503)
"""Statuses of connections that are ended while their request has not come."""


class Audited:
    """Tells an auditor of requests; without one, nobody."""

    def __init__(self, auditor: Auditor | None = None) -> None:
        self._auditor = auditor

    def refused(self, exchange: Exchange, label: str, status: int | None) -> None:
        """Record the refusal of a request, if it was refused, or would have been by a rule in shadow mode."""
        denial, progress = exchange.denial, exchange.progress
        if self._auditor is None or (denial is None and not progress.shadows):
            return
        if denial is not None:
            outcome, reason = denial.error_type.lower(), denial.reason
            kind = audit.CONFIRMATION if _is_about_confirming(denial) else audit.REFUSAL
        else:
            kind, outcome, reason = audit.SHADOW, progress.shadows[0].outcome, progress.shadows[0].reason
        decided = "allowed" if denial is None else "asked" if reason in _NOT_DECIDED_YET else "refused"
        decision = {"decision": decided, "outcome": outcome, "reason": reason}
        self._auditor.refusal(
            kind,
            {**_who_and_what(exchange, label), **decision, "status": status},
            arguments=audit.arguments_of(progress.action),
            size=progress.body_bytes,
            is_known=progress.principal is not None,
        )

    def bad_head(self, status: int) -> None:
        """Record the refusal of what could not be read as a request; who sends nothing has asked for nothing."""
        if self._auditor is not None and status not in _ASKED_NOTHING:
            members = {"decision": "refused", "outcome": "bad_head", "reason": "bad_head", "status": status}
            self._auditor.refusal(audit.REFUSAL, members, arguments=None, size=0, is_known=False)

    def writes(self, exchange: Exchange, label: str) -> None:
        """Record a write that is about to be forwarded, if it is one.

        Raises:
            Overloaded: it can't be recorded, so it must not be.
        """
        progress = exchange.progress
        if self._auditor is None or not progress.is_write:
            return
        self._auditor.require_room(progress.body_bytes)
        members = {**_who_and_what(exchange, label), "decision": "allowed"}
        self._auditor.act(audit.WRITE, members, arguments=audit.arguments_of(progress.action))

    def require_room(self, exchange: Exchange) -> None:
        """Find out whether there is room for what is to be recorded of a request.

        Raises:
            Overloaded: there is none.
        """
        if self._auditor is not None:
            self._auditor.require_room(exchange.progress.body_bytes)

    def definitions(self, members: Mapping[str, Any]) -> None:
        """Record what became of the definitions of tools."""
        if self._auditor is not None:
            self._auditor.act(audit.CATALOGUE, members)

    def unusual(self, members: Mapping[str, Any]) -> None:
        """Record what was unusual about the use of keys."""
        if self._auditor is not None:
            self._auditor.act(audit.ACTIVITY, members)

    def confirmed(self, exchange: Exchange, label: str, by: str) -> None:
        """Record that a call was confirmed, and by whom. What is asked on a call's own answer leaves this alone.

        Raises:
            Overloaded: it can't be recorded, so the call must not be forwarded.
        """
        if self._auditor is None:
            return
        size = exchange.progress.body_bytes
        self._auditor.require_room(size)
        members = {**_who_and_what(exchange, label), "decision": "confirmed", "confirmed_by": by}
        self._auditor.act(audit.CONFIRMATION, members, arguments=audit.arguments_of(exchange.progress.action))

    async def act(self, exchange: Exchange, label: str, permit: ManagementPermit[Act]) -> RestAnswer:
        """Do what a REST call asked for, and record what it changed.

        Raises:
            Overloaded: it could not be recorded, so it is not done; but a key can always be revoked.
            Denial: what the act raises.
        """
        if self._auditor is None:
            return await permit.act(permit.asked_at)
        if exchange.progress.is_write and exchange.facts.method != "DELETE":
            self._auditor.require_room()
        answer = await permit.act(permit.asked_at)
        if answer.done is not None:
            done = answer.done
            told = apikeys.audited(done) if isinstance(done, KeyAct) else approvals.audited(done)
            members = {**_who_and_what(exchange, label), "decision": "done", **told}
            self._auditor.act(audit.MANAGEMENT, members)
        return answer


def _is_about_confirming(denial: Denial) -> bool:
    return isinstance(denial, NotConfirmed) or denial.reason in _NOT_DECIDED_YET


def _who_and_what(exchange: Exchange, label: str) -> dict[str, Any]:
    facts, principal = exchange.facts, exchange.progress.principal
    return {
        "request_id": facts.request_id,
        "account": None if principal is None else principal.account,
        "principal": None if principal is None else principal.subject,
        "credential": None if principal is None else principal.kind,
        "client_id": None if principal is None else principal.client_id,
        "client": facts.client,
        "route": label,
        **exchange.asked_for(),
    }
