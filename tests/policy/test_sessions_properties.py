"""A session or task is bound to a credential, and the one that is judged is the one that is passed on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import Denial, InvalidParams
from sidecar.model import SCOPES, Action, Principal
from sidecar.policy import headers, sessions
from sidecar.policy.claims import credential_id
from tests.policy.facts import facts

names = st.text(max_size=4) | st.text("ab: |,1", max_size=4)
kinds = st.sampled_from(["jwt", "api_key"])
principals = st.builds(
    Principal,
    account=names,
    subject=names,
    kind=kinds,
    credential_id=names | st.sampled_from(["jwt 1", "api_key", "jwt"]),
    scopes=st.lists(st.sampled_from(SCOPES), unique=True).map(tuple),
    issued_at=st.floats(0, 1e9),
    expires_at=st.floats(0, 1e9),
)
ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=5)
methods = st.sampled_from(["initialize", "ping", "tools/call", "tasks/get", "tasks/new", "subscriptions/listen"])
actions = st.builds(Action, st.just("request"), methods, st.just(1)) | st.sampled_from(
    [Action("notification", "notifications/initialized"), Action("stream"), Action("end_session"), Action("response")]
)
versions = st.sampled_from([None, "2025-03-26", "2025-11-25", "2026-07-28", "2027-01-01", "nonsense"])


@given(principals, principals)
def test_two_principals_own_the_same_things_only_with_the_same_credential_of_the_same_kind(
    one: Principal, other: Principal
) -> None:
    same = (one.kind, one.credential_id) == (other.kind, other.credential_id)

    assert (sessions.owner(one) == sessions.owner(other)) == same


@given(principals, principals)
def test_a_refreshed_token_owns_what_the_old_one_did(one: Principal, later: Principal) -> None:
    refreshed = replace(later, kind=one.kind, credential_id=one.credential_id)

    assert sessions.owner(refreshed) == sessions.owner(one)


@given(st.tuples(names, names, st.none() | names), st.tuples(names, names, st.none() | names))
def test_no_two_of_issuer_subject_and_client_make_one_credential(
    one: tuple[str, str, str | None], other: tuple[str, str, str | None]
) -> None:
    assert (credential_id(*one) == credential_id(*other)) == (one == other)


@given(principals, ids, actions, versions)
def test_the_session_that_is_judged_is_the_one_that_is_passed_on(
    principal: Principal, session_id: str, action: Action, version: str | None
) -> None:
    asked = facts(
        ("Mcp-Session-Id", session_id), *((("MCP-Protocol-Version", version),) if version is not None else ())
    )
    counted = sessions.session_of(asked, action)
    passed = headers.to_upstream(asked, frozenset(), session=counted)
    try:
        judged = sessions.handles(principal, asked, action, 60.0)
    except InvalidParams:  # a task method that names no task
        return

    assert [handle.id for handle in judged if handle.kind == "session"] == [
        value.decode() for name, value in passed if name.lower() == b"mcp-session-id"
    ]
    assert all(handle.owner == sessions.owner(principal) for handle in judged)
    assert (counted is None) == (asked.era == "modern" or action.method == "initialize")


task_ids: Any = st.lists(st.text(max_size=3) | st.none() | st.integers() | st.just("x" * 1025), max_size=4)


@given(principals, task_ids, st.booleans())
def test_every_task_that_is_asked_about_is_judged_or_the_request_refused(
    principal: Principal, wanted: list[Any], in_session: bool
) -> None:
    asked = facts(*((("Mcp-Session-Id", "s"),) if in_session else ()))
    listen = Action("request", "subscriptions/listen", 1, params={"notifications": {"taskIds": wanted}})
    try:
        judged = sessions.handles(principal, asked, listen, 60.0)
    except Denial:
        assert not all(isinstance(each, str) and 1 <= len(each) <= 1024 for each in wanted)
        return

    assert [handle.id for handle in judged if handle.kind == "task"] == wanted
    assert [handle.id for handle in judged if handle.kind == "session"] == (["s"] if in_session else [])


@given(principals, ids, methods, versions)
def test_the_refusal_of_a_session_says_nothing_of_whose_it_is(
    principal: Principal, session_id: str, method: str, version: str | None
) -> None:
    asked = facts(*((("MCP-Protocol-Version", version),) if version is not None else ()))
    action = Action("request", method, 1)
    refusals = [
        sessions.unknown(replace(handle, owner=owner), asked, action)
        for handle in sessions.handles(principal, facts(("Mcp-Session-Id", session_id)), Action("stream"), 60.0)
        for owner in ("somebody", "nobody")
    ]

    assert len({(type(each), each.message, each.detail, str(each.data)) for each in refusals}) == 1
