"""What is told of a request: each part named, nothing made up, and no secret."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from sidecar.denials import Denial
from sidecar.model import Action, Limit, Principal, Progress, Quota
from sidecar.policy.explanation import Walk, can_be_judged_again, document, line_document, rule_of
from sidecar.policy.tools import ToolFinding

KEY = Principal("acme", "key_1", "api_key", "key_1", ("mcp:read",), 0.0, 1_800_000_000.0)
CALL = Action("request", "tools/call", 1, tool="put")
REFUSED = {
    "outcome": "insufficient_scope",
    "reason": "insufficient_scope",
    "status": 403,
    "route": "/mcp",
    "era": "legacy",
}
ALLOWED = {"outcome": "forwarded", "reason": None, "status": None, "route": "/mcp", "era": "legacy"}
WALK = Walk("POST", "/mcp", "192.0.2.1", "allowed", ALLOWED, b"", Progress(principal=KEY, action=CALL))
BY_LIST = ToolFinding("write", "list", "pu*")


def test_every_refusal_there_is_has_a_rule() -> None:
    def kinds(denial: type[Denial]) -> list[type[Denial]]:
        return [denial, *(below for kind in denial.__subclasses__() for below in kinds(kind))]

    found = {kind.error_type: rule_of(kind.error_type.lower(), None) for kind in kinds(Denial)[1:]}
    by_message = {name for name, rule in found.items() if rule == "message"}
    assert by_message == {
        *("INVALID_REQUEST", "REQUEST_TIMEOUT", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE", "HEADERS_TOO_LARGE"),
        "CONFLICT",
    }


@pytest.mark.parametrize(
    ("outcome", "reason", "manages", "rule"),
    [
        ("not_found", "path_unknown", False, "routes"),
        ("not_found", "unknown_method", False, "scopes"),
        ("insufficient_scope", "insufficient_scope", False, "scopes"),
        ("insufficient_scope", "client_not_allowed", True, "api_keys.management"),
        ("insufficient_scope", "approver_not_allowed", True, "confirmation.approver_clients"),
        ("bad_head", "bad_head", False, "message"),
    ],
)
def test_a_rule_is_named_by_outcome_and_reason(outcome: str, reason: str, manages: bool, rule: str) -> None:
    assert rule_of(outcome, reason, manages_keys=manages) == rule


def test_a_refusal_tells_who_what_why_and_what_the_client_reads() -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"data": {"message": "no"}}}).encode()
    told = document(
        replace(WALK, decision="refused", told={**REFUSED, "detail": "needs x"}, answer=body, finding=BY_LIST)
    )
    assert told["request"] == {
        "method": "POST",
        "path": "/mcp",
        "route": "/mcp",
        "era": "legacy",
        "client": "192.0.2.1",
    }
    assert told["credential"] == {
        "kind": "api_key",
        "account": "acme",
        "subject": "key_1",
        "clientId": None,
        "scopes": ["mcp:read"],
        "expiresAt": "2027-01-15T08:00:00Z",
        "id": "key_1",
    }
    assert told["action"] == {"kind": "request", "method": "tools/call", "needs": ["mcp:full"], "write": True}
    assert told["tool"] == {"name": "put", "class": "write", "because": "list", "entry": "pu*"}
    assert told["limits"] is None
    assert (told["refusal"]["rule"], told["refusal"]["message"], told["refusal"]["detail"]) == (
        "scopes",
        "no",
        "needs x",
    )


@pytest.mark.parametrize(
    ("answer", "message"), [(b"", None), (b'{"detail":"no"}', "no"), (b"{}", None), (b"<html>", None)]
)
def test_a_refusal_over_rest_or_without_a_body_is_told_too(answer: bytes, message: str | None) -> None:
    managing = Progress(principal=KEY, action=Action("manage", "POST"))
    told = document(replace(WALK, decision="refused", told=REFUSED, answer=answer, progress=managing))
    assert (told["refusal"]["rule"], told["refusal"]["message"]) == ("api_keys.management", message)
    assert told["tool"] is None


def test_what_is_not_known_is_not_told() -> None:
    anybody = replace(KEY, expires_at=math.inf)
    told = document(replace(WALK, progress=Progress(principal=anybody, action=CALL), knows_credential=False))
    assert told["tool"] == {"name": "put", "class": None, "because": "unknown", "entry": None}
    assert (told["action"]["needs"], told["action"]["write"]) == (None, None)
    assert (told["credential"]["expiresAt"], told["credential"]["id"]) == (None, None)
    nobody = document(replace(WALK, decision="refused", told=REFUSED, progress=Progress()))
    assert (nobody["credential"], nobody["action"], nobody["tool"], nobody["limits"]) == (None, None, None, None)


def told_limits(**changes: Any) -> list[tuple[Any, ...]]:
    quotas = (
        Quota(Limit("account", 9, 60), 3, 1.0, 0.0),
        Quota(Limit("burst", 2, 1, per="credential"), 0, 0.5, 0.5),
    )
    told = document(replace(WALK, progress=Progress(principal=KEY, action=CALL, quotas=quotas), **changes))
    return [(limit["name"], limit["countedFor"], limit["remaining"], limit["retryAfter"]) for limit in told["limits"]]


def test_limits_are_told_with_whom_they_are_counted_for_and_what_is_left_where_that_is_known() -> None:
    assert told_limits() == [("account", "acme", 3, 0), ("burst", "key_1", 0, 1)]
    assert told_limits(knows_credential=False) == [("account", "acme", 3, 0), ("burst", None, None, None)]
    assert told_limits(knows_spent=False) == [("account", "acme", None, None), ("burst", "key_1", None, None)]


def test_a_line_of_the_log_speaks_for_itself() -> None:
    line = {**REFUSED, "detail": "d", "request_id": "r", "other": "x"}
    told = line_document(line)
    assert (told["decision"], told["refusal"]["rule"], told["refusal"]["status"]) == ("refused", "scopes", 403)
    assert told["log"] == {
        "outcome": "insufficient_scope",
        "reason": "insufficient_scope",
        "status": 403,
        "detail": "d",
        "shadow": None,
        "request_id": "r",
    }
    assert set(told) - {"log"} == set(document(WALK))
    passed = line_document(ALLOWED)
    assert (passed["decision"], passed["refusal"]) == ("allowed", None)


@pytest.mark.parametrize(
    ("change", "enough"),
    [
        ({}, True),
        ({"method": "GET"}, True),
        ({"principal": None}, False),
        ({"route": "/api/api-keys"}, False),
        ({"method": "POST"}, False),
        ({"method": None}, False),
    ],
)
def test_a_line_is_judged_again_only_where_it_says_enough(change: dict[str, Any], enough: bool) -> None:
    line = {"principal": "key_1", "route": "/mcp", "method": "tools/call"}
    assert can_be_judged_again(line | change, ["/mcp"]) is enough
