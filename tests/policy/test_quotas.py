"""Which limits apply, and what the client is told of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.denials import RateLimited
from sidecar.model import Action, Limit, Principal, Quota
from sidecar.policy import quotas
from sidecar.policy.quotas import Limits, StreamLimit

ACCOUNT = Limit("account", 600, 60)
BURST = Limit("burst", 60, 1, per="credential")
WRITES = Limit("writes", 60, 60, effect="write")


def names(limits: tuple[Limit, ...]) -> list[str]:
    return [limit.name for limit in limits]


def test_a_read_spends_from_no_write_limit() -> None:
    limits = Limits((ACCOUNT, BURST, WRITES))

    assert names(limits.applicable(route="/mcp", tool="t", write=False)) == ["account", "burst"]
    assert names(limits.applicable(route="/mcp", tool="t", write=True)) == ["account", "burst", "writes"]
    assert names(limits.applicable(route="/mcp", tool="t", write=True)) == ["account", "burst", "writes"]


def test_a_limit_on_routes_applies_there_alone() -> None:
    limits = Limits((Limit("inspector", 1, 1, routes=("/mcp/inspector",)),))

    assert names(limits.applicable(route="/mcp/inspector", tool=None, write=False)) == ["inspector"]
    assert limits.applicable(route="/mcp", tool=None, write=False) == ()


def test_a_limit_on_tools_matches_their_names_by_glob_and_case() -> None:
    limits = Limits((ACCOUNT, Limit("searches", 1, 1, tools=("search_*", "find"))))

    assert names(limits.applicable(route="/mcp", tool="search_all", write=False)) == ["account", "searches"]
    assert names(limits.applicable(route="/mcp", tool="find", write=False)) == ["account", "searches"]
    assert names(limits.applicable(route="/mcp", tool="Find", write=False)) == ["account"]
    assert names(limits.applicable(route="/mcp", tool=None, write=False)) == ["account"]


def test_an_admitted_answer_speaks_of_the_tightest_limit_and_names_all() -> None:
    """The example of the IETF draft's fields, with our first policy."""
    headers = dict(quotas.answer_headers((Quota(ACCOUNT, 599, 12.0, 0.0), Quota(BURST, 60, 0.0, 0.0)), 1000.0))

    assert headers == {
        "X-RateLimit-Limit": "600",
        "X-RateLimit-Remaining": "599",
        "X-RateLimit-Reset": "1012",
        "RateLimit-Policy": '"account";q=600;w=60, "burst";q=60;w=1',
        "RateLimit": '"account";r=599;t=12',
    }


def test_of_equally_tight_limits_the_longer_window_speaks() -> None:
    headers = dict(quotas.answer_headers((Quota(BURST, 6, 0.5, 0.0), Quota(ACCOUNT, 60, 30.2, 0.0)), 1000.5))

    assert headers["RateLimit"] == '"account";r=60;t=31'
    assert headers["X-RateLimit-Reset"] == "1031"


def test_without_limits_there_are_no_headers() -> None:
    assert quotas.answer_headers((), 1000.0) == ()


def test_a_refusal_waits_for_all_that_refused_and_rounds_up() -> None:
    refused = (Quota(ACCOUNT, 0, 0.1, 41.2), Quota(BURST, 0, 0.1, 0.3), Quota(WRITES, 0, 9.0, 0.0))

    denial = quotas.refusal(refused, 1000.9)

    assert denial.retry_after_s == 42
    assert dict(denial.headers)["X-RateLimit-Limit"] == "600"
    assert dict(denial.headers)["X-RateLimit-Remaining"] == "0"
    assert dict(denial.headers)["X-RateLimit-Reset"] == "1043"
    assert dict(denial.headers)["RateLimit"] == '"account";r=0;t=42'
    assert dict(denial.headers)["RateLimit-Policy"].count("q=") == 3


def test_a_refusal_never_says_to_retry_at_once() -> None:
    assert quotas.refusal((Quota(BURST, 0, 0.0, 0.0001),), 1000.0).retry_after_s == 1


def test_a_share_of_a_limit_is_rounded_down_and_never_nothing() -> None:
    scaled = quotas.scaled((ACCOUNT, Limit("one", 1, 60, per="credential")), 0.333)

    assert [(limit.name, limit.requests, limit.per) for limit in scaled] == [
        ("account", 199, "account"),
        ("one", 1, "credential"),
    ]


@pytest.mark.parametrize(
    ("action", "endless"),
    [
        (Action("stream"), True),
        (Action("request", "subscriptions/listen", 1), True),
        (Action("request", "tools/call", 1, "t"), False),
        (Action("notification", "subscriptions/listen"), False),
        (Action("end_session"), False),
    ],
)
def test_a_credential_may_have_so_many_streams_that_go_on_for_ever(action: Action, endless: bool) -> None:
    limit = StreamLimit(2)
    who = Principal("acme", "alice", "jwt", "jwt:1", (), 0, 0)
    assert [limit.reserve(who, action, 1000.0) for _ in range(2)] == [endless] * 2

    if endless:
        with pytest.raises(RateLimited) as refused:
            limit.reserve(who, action, 1000.0)
        assert refused.value.retry_after_s == 1
        assert dict(refused.value.headers)["X-RateLimit-Limit"] == "2"
        limit.release(who)
        limit.release(who)
    assert limit.reserve(who, action, 1000.0) is endless
    assert limit.reserve(replace(who, credential_id="jwt:2"), action, 1000.0) is endless


def test_what_is_no_stream_may_take_the_place_of_one() -> None:
    limit = StreamLimit(1)
    who = Principal("acme", "alice", "jwt", "jwt:1", (), 0, 0)

    assert limit.take(who, 1000.0)

    with pytest.raises(RateLimited):
        limit.reserve(who, Action("stream"), 1000.0)
