"""Exactly one credential, of the route's kind."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.denials import InvalidApiKey, InvalidRequest, InvalidToken
from sidecar.model import BearerToken, PresentedKey
from sidecar.policy.credentials import extract
from tests.policy.facts import facts

KEY = "mcp_" + "0" * 46


def test_a_bearer_token_is_taken_whatever_the_case_of_its_scheme() -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert extract(facts(("Authorization", f"{scheme} a.b.c")), ("jwt",)) == BearerToken("a.b.c")


def test_a_key_is_taken_from_either_header() -> None:
    assert extract(facts(("X-API-Key", KEY)), ("api_key",)) == PresentedKey(KEY)
    assert extract(facts(("Authorization", f"Bearer {KEY}")), ("api_key",)) == PresentedKey(KEY)


def test_a_route_that_takes_both_kinds_takes_either() -> None:
    assert extract(facts(("X-API-Key", KEY)), ("jwt", "api_key")) == PresentedKey(KEY)
    assert extract(facts(("Authorization", "Bearer a.b.c")), ("jwt", "api_key")) == BearerToken("a.b.c")


@pytest.mark.parametrize(
    "lines",
    [
        (("Authorization", "Bearer a.b.c"), ("X-API-Key", KEY)),
        (("Authorization", ""), ("X-API-Key", "")),
        (("Authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")),
        (("X-API-Key", KEY), ("x-api-key", KEY)),
        (("X-API-Key", KEY), ("x-api-key", "")),
    ],
)
@pytest.mark.parametrize("accepts", [("jwt",), ("api_key",), ("jwt", "api_key")])
def test_two_credentials_are_refused_whatever_their_values(lines: Any, accepts: Any) -> None:
    with pytest.raises(InvalidRequest):
        extract(facts(*lines), accepts)


@pytest.mark.parametrize(
    "query",
    ["access_token=x", "a=1&access_token=", "access%5Ftoken=x", "a;access_token=x", "Access_Token=x", "access_token"],
)
def test_a_token_in_the_query_is_refused_even_beside_a_good_one(query: str) -> None:
    """MCP 2025-11-25, authorization: tokens must not be in the query."""
    with pytest.raises(InvalidRequest):
        extract(facts(("Authorization", "Bearer a.b.c"), query=query), ("jwt",))


def test_another_query_is_nobodys_business() -> None:
    assert extract(facts(("Authorization", "Bearer a.b.c"), query="my_access_token=1&b"), ("jwt",))


REFUSED: list[tuple[Any, str]] = [
    ((), "credential_missing"),
    ((("Authorization", "Basic dTpw"),), "credential_scheme"),
    ((("Authorization", "Bearer"),), "credential_scheme"),
    ((("Authorization", "Bearer  "),), "credential_scheme"),
    ((("Authorization", ""),), "credential_scheme"),
    ((("Authorization", "DPoP a.b.c"),), "credential_scheme"),
]


@pytest.mark.parametrize(("lines", "reason"), REFUSED)
def test_nothing_usable_is_the_routes_own_401(lines: Any, reason: str) -> None:
    with pytest.raises(InvalidToken) as token:
        extract(facts(*lines), ("jwt",))
    with pytest.raises(InvalidApiKey) as key:
        extract(facts(*lines), ("api_key",))
    with pytest.raises(InvalidToken):
        extract(facts(*lines), ("jwt", "api_key"))

    assert (token.value.reason, key.value.reason) == (reason, reason)


def test_the_wrong_kind_is_the_routes_own_401() -> None:
    with pytest.raises(InvalidToken):
        extract(facts(("X-API-Key", KEY)), ("jwt",))
    with pytest.raises(InvalidToken):
        extract(facts(("Authorization", f"Bearer {KEY}")), ("jwt",))
    with pytest.raises(InvalidApiKey):
        extract(facts(("Authorization", "Bearer a.b.c")), ("api_key",))


def test_a_credential_shows_in_no_repr() -> None:
    assert "secret" not in repr(BearerToken("secret")) + repr(PresentedKey("secret"))
