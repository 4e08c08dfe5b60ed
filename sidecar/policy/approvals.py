"""How is a call that waits for an approval told, and who may decide about it?"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final, Literal

from sidecar.denials import ClientNotAllowed
from sidecar.model import Principal
from sidecar.policy import readable
from sidecar.policy.apikeys import rfc3339
from sidecar.policy.pins import inert
from sidecar.records import ApprovalAct, Confirmation

Decision = Literal["approve", "decline"]

OPERATOR: Final = "operator"
"""Who decides by the command. Who signed in is called otherwise, see `signed_in`, whatever the subject."""
OUTCOME: Final = {"approve": "approved", "decline": "declined"}
_ID: Final = re.compile(r"[0-9a-f]{32}")


def signed_in(subject: str) -> str:
    """Return how somebody with a token is called as who decided: never like the operator, nor like a client."""
    return f"subject:{subject}"


def is_id(text: str) -> bool:
    """Tell whether this can be the id of an approval."""
    return _ID.fullmatch(text) is not None


def state(approval: Confirmation, now: float) -> str:
    """Return its state; what is neither decided nor used in time has *expired*."""
    is_over = approval.expires_at <= now and approval.state in ("waiting", "approved")
    return "expired" if is_over else approval.state


def describe(approval: Confirmation, now: float) -> dict[str, Any]:
    """Return what is told of it. Callers choose tool, arguments and names: whoever shows them makes them inert.

    `arguments` is as the caller wrote them, `argumentsShown` the same for people to read, with nothing out of sight.
    """
    return {
        "id": approval.id,
        "state": state(approval, now),
        "tool": approval.tool,
        "arguments": approval.arguments,
        "argumentsShown": None
        if approval.arguments is None
        else readable.laid_out(approval.arguments, is_cut=approval.is_cut),
        "argumentsCut": approval.is_cut,
        "besides": approval.besides,
        "caller": {
            "credential": approval.credential,
            "subject": approval.subject,
            "clientId": approval.client_id,
        },
        "account": approval.account,
        "createdAt": rfc3339(approval.created_at),
        "expiresAt": rfc3339(approval.expires_at),
        "decidedBy": approval.decided_by,
    }


def require_approver(principal: Principal, clients: Collection[str]) -> None:
    """Let only these clients see and decide.

    Raises:
        ClientNotAllowed: the token is another client's, or names none.
    """
    if principal.client_id is None or principal.client_id not in clients:
        text = "This client may not approve calls; those in confirmation.approver_clients may, but none its own calls"
        raise ClientNotAllowed("approver_not_allowed", text)


def require_another(principal: Principal, approval: Confirmation) -> None:
    """Let no client approve a call of its own.

    Raises:
        ClientNotAllowed: it is the one that made the call.
    """
    if principal.client_id == approval.client_id:
        raise ClientNotAllowed("approver_is_caller", "The client that made a call may not decide about it")


def audited(act: ApprovalAct) -> dict[str, Any]:
    """Return what the audit keeps of a decision: whose call it was, and which."""
    return {"act": f"{act.decision}_call", "approval": act.approval.id, "tool": inert(act.approval.tool)}
