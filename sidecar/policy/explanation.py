"""How is it told what would become of a request, and why? Decides nothing: it names what was decided."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sidecar.model import SCOPES, Action, Principal, Progress, Quota, ToolClass
from sidecar.policy import access, apikeys
from sidecar.policy.tools import ToolFinding

Decision = Literal["allowed", "refused", "unknown"]

_RULES: Final[Mapping[str, str]] = {
    "not_found": "routes",
    "method_not_allowed": "routes",
    "host_not_allowed": "allowed_hosts",
    "origin_not_allowed": "allowed_origins",
    "https_required": "require_https",
    "invalid_token": "authentication",
    "invalid_api_key": "authentication",
    "account_unusable": "authentication",
    "issuer_unavailable": "authentication",
    "insufficient_scope": "scopes",
    "notification_dropped": "scopes",
    "rate_limit_exceeded": "limits",
    "session_not_found": "sessions",
    "confirmation_required": "confirmation",
    "upstream_unavailable": "catalogue",
    "upstream_timeout": "upstream",
    "store_unavailable": "store",
    "overloaded": "capacity",
    "internal_error": "fault",
}
_NOT_REFUSED: Final = ("forwarded", "answered", "client_closed", "shutdown")
_MESSAGE: Final = "message"
"""Everything else is about how the request is written."""
_OF_APPROVERS: Final = ("approver_not_allowed", "approver_is_caller")
_BY_REASON: Final[Mapping[str, str]] = {"unknown_method": "scopes"}


@dataclass(frozen=True, slots=True)
class Walk:
    """How far a request got, and what came of it."""

    method: str
    path: str
    client: str
    decision: Decision
    told: Mapping[str, Any]
    """The members of its line in the log."""
    answer: bytes
    """The body of the answer; empty where there is none."""
    progress: Progress
    finding: ToolFinding | None = None
    """What the tool is; None where there is none, or it is not known."""
    knows_spent: bool = True
    """Whether the limits of an account were asked where they are counted."""
    knows_credential: bool = True
    """Whether those of the credential were, too."""
    confirmation: Literal["needed", "shadow"] | None = None
    """*needed*: it goes on once a person has confirmed it; *shadow*: a person would be asked, but for shadow mode."""
    notes: tuple[str, ...] = ()


def rule_of(outcome: str, reason: str | None, *, manages_keys: bool = False) -> str:
    """Name the rule that decides so, by outcome and reason of the log: a section of the settings where there is one."""
    if reason in _OF_APPROVERS:
        return "confirmation.approver_clients"
    if manages_keys and outcome == "insufficient_scope":
        return "api_keys.management"
    return _BY_REASON.get(reason or "", _RULES.get(outcome, _MESSAGE))


def document(walk: Walk) -> dict[str, Any]:
    """Return all that there is to tell, as one JSON document. It holds no secret."""
    action, principal = walk.progress.action, walk.progress.principal
    return {
        "decision": walk.decision,
        "request": {
            "method": walk.method,
            "path": walk.path,
            "route": walk.told.get("route"),
            "era": walk.told.get("era"),
            "client": walk.client,
        },
        "credential": None if principal is None else _credential(principal, walk.knows_credential),
        "action": None if action is None else _action(action, walk),
        "tool": None if action is None or action.tool is None else _tool(action.tool, walk.finding),
        "limits": _limits(walk, principal),
        "refusal": None if walk.decision == "allowed" else _refusal(walk),
        "confirmation": walk.confirmation,
        "shadow": walk.told.get("shadow"),
        "notes": list(walk.notes),
    }


def can_be_judged_again(line: Mapping[str, Any], routes: Collection[str]) -> bool:
    """Tell whether a line of the log says enough of a request: whose it was, and which message on one of these routes.

    Of a call of the key management it does not say for which key, and of a body that was not understood nothing.
    """
    return (
        line.get("principal") is not None and line.get("route") in routes and line.get("method") not in ("POST", None)
    )


def line_document(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a line of the log tells by itself, in the same shape; its own words are under `log`."""
    outcome, reason = str(line["outcome"]), line.get("reason")
    is_refused = outcome not in _NOT_REFUSED
    refusal = {"rule": rule_of(outcome, reason), "status": line.get("status"), "errorType": outcome.upper()}
    told = {name: line.get(name) for name in ("outcome", "reason", "status", "detail", "shadow", "request_id")}
    note = "the line does not say enough of the request to judge it again: this is what was decided then"
    return {
        "decision": "refused" if is_refused else "allowed",
        "request": None,
        "credential": None,
        "action": None,
        "tool": None,
        "limits": None,
        "refusal": {**refusal, "reason": reason, "message": None, "detail": line.get("detail")} if is_refused else None,
        "confirmation": None,
        "shadow": line.get("shadow"),
        "notes": [note],
        "log": told,
    }


def _credential(principal: Principal, is_known: bool) -> dict[str, Any]:
    ends = None if math.isinf(principal.expires_at) else apikeys.rfc3339(principal.expires_at)
    return {
        "kind": principal.kind,
        "account": principal.account,
        "subject": principal.subject,
        "clientId": principal.client_id,
        "scopes": list(principal.scopes),
        "expiresAt": ends,
        "id": principal.credential_id if is_known else None,
    }


def _action(action: Action, walk: Walk) -> dict[str, Any]:
    depends = action.tool is not None and walk.finding is None
    tool_class: ToolClass | None = None if walk.finding is None else walk.finding.tool_class
    needs = access.required(action, tool_class)
    return {
        "kind": action.kind,
        "method": action.method or None,
        "needs": None if depends else [scope for scope in SCOPES if scope in needs],
        "write": None if depends else access.is_write(action, tool_class),
    }


def _tool(name: str, finding: ToolFinding | None) -> dict[str, Any]:
    if finding is None:
        return {"name": name, "class": None, "because": "unknown", "entry": None}
    return {"name": name, "class": finding.tool_class, "because": finding.because, "entry": finding.entry}


def _limits(walk: Walk, principal: Principal | None) -> list[dict[str, Any]] | None:
    """Return the limits that were asked; None where the request never got as far as that."""
    reached = walk.decision == "allowed" or walk.progress.quotas
    if principal is None or not reached:
        return None
    return [_limit(quota, principal, walk) for quota in walk.progress.quotas]


def _limit(quota: Quota, principal: Principal, walk: Walk) -> dict[str, Any]:
    limit = quota.limit
    of_credential = limit.per == "credential"
    holder = principal.credential_id if of_credential else principal.account
    is_known = walk.knows_spent and (walk.knows_credential or not of_credential)
    return {
        "name": limit.name,
        "requests": limit.requests,
        "windowSeconds": limit.window_s,
        "per": limit.per,
        "countedFor": None if of_credential and not walk.knows_credential else holder,
        "remaining": quota.remaining if is_known else None,
        "retryAfter": math.ceil(quota.retry_s) if is_known else None,
    }


def _refusal(walk: Walk) -> dict[str, Any]:
    outcome, reason, action = str(walk.told.get("outcome", "")), walk.told.get("reason"), walk.progress.action
    return {
        "rule": rule_of(outcome, reason, manages_keys=action is not None and action.kind == "manage"),
        "status": walk.told.get("status"),
        "errorType": outcome.upper(),
        "reason": reason,
        "message": _message(walk.answer),
        "detail": walk.told.get("detail"),
    }


def _message(answer: bytes) -> str | None:
    """Return what an answer of ours tells its reader, in either form of a refusal."""
    try:
        body = json.loads(answer)
    except ValueError:
        return None
    told: str | None = body["error"]["data"]["message"] if "error" in body else body.get("detail")
    return told
