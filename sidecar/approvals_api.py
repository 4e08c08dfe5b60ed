"""Approvals over REST, for the page: which call a path and method mean, and how its answer is written."""

from __future__ import annotations

import re
from typing import Final

from sidecar.approvals import Approvals
from sidecar.denials import InvalidRequest, MethodNotAllowed, NotFound
from sidecar.management import Act, RestAnswer
from sidecar.model import Principal, RequestFacts
from sidecar.policy import approvals as policy
from sidecar.policy import strictjson
from sidecar.policy.approvals import Decision
from sidecar.records import ApprovalAct

COLLECTION: Final = "/api/approvals"
_ITEM: Final = re.compile(re.escape(COLLECTION) + r"/(?P<approval_id>[0-9a-f]{32})(?:/(?P<decision>approve|decline))?")
_DECISIONS: Final[dict[str, Decision]] = {"approve": "approve", "decline": "decline"}
_MAX_DEPTH: Final = 8


class ApprovalsApi:
    """`/api/approvals/{id}` and below, for the account of the token that comes with the call.

    Only tokens of these `clients` see or decide anything, and none of them a call that it made itself.
    """

    def __init__(self, approvals: Approvals, clients: frozenset[str]) -> None:
        self._approvals = approvals
        self._clients = clients

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Name the methods that exist at this raw path, or None when nothing is there."""
        item = _ITEM.fullmatch(path)
        if item is None:
            return None
        return ("GET",) if item["decision"] is None else ("POST",)

    def read(self, principal: Principal, facts: RequestFacts, body: bytes) -> Act:
        """Understand one call, and whether this caller may make it, before anything is counted or done.

        Raises:
            Denial: 400 naming what is wrong, 403, 404 and 405. The act itself may raise 403, 404, 409 and 503.
        """
        item, methods = _ITEM.fullmatch(facts.path), self.methods(facts.path)
        if item is None or methods is None:
            raise NotFound("path_unknown")
        if facts.method not in methods:
            raise MethodNotAllowed("method_unknown", headers=(("Allow", ", ".join(methods)),))
        policy.require_approver(principal, self._clients)
        if facts.query:
            raise InvalidRequest("query", "This call takes no query")
        if body and strictjson.loads(body, max_depth=_MAX_DEPTH) != {}:
            raise InvalidRequest("unknown_member", "This call takes an empty body, or {}")
        return self._act(principal, item["approval_id"], _DECISIONS.get(item["decision"] or ""))

    def _act(self, principal: Principal, approval_id: str, decision: Decision | None) -> Act:
        async def act(_: float) -> RestAnswer:
            approval = await self._approvals.find(approval_id, principal.account)
            policy.require_another(principal, approval)
            if decision is None:
                return RestAnswer(200, policy.describe(approval, self._approvals.now))
            decided = await self._approvals.decide(approval, decision, policy.signed_in(principal.subject))
            return RestAnswer(200, policy.describe(decided, self._approvals.now), ApprovalAct(decision, decided))

        return act
