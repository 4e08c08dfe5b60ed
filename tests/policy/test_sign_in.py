"""Where a person signs in, as the issuer's metadata says it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy import sign_in
from sidecar.policy.keysets import KeySetError

ISSUER = "https://idp.example"
GOOD: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://idp.example/authorize?tenant=1",
    "token_endpoint": "https://tokens.example:8443/token",
    "revocation_endpoint": "https://idp.example/revoke",
    "end_session_endpoint": "https://idp.example/logout",
    "authorization_response_iss_parameter_supported": True,
    "code_challenge_methods_supported": ["plain", "S256"],
}


def read(issuer: str = ISSUER, **changes: Any) -> sign_in.Endpoints:
    document = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    return sign_in.endpoints(orjson.dumps(document), issuer)


def test_endpoints_are_the_metadatas() -> None:
    found = read()
    assert found.authorization == "https://idp.example/authorize?tenant=1"
    assert found.token == "https://tokens.example:8443/token"
    assert (found.revocation, found.end_session) == ("https://idp.example/revoke", "https://idp.example/logout")
    assert found.names_itself
    assert found.asked_by_pages == ("https://tokens.example:8443", "https://idp.example")


def test_what_need_not_be_there_need_not_be_there() -> None:
    found = read(
        revocation_endpoint=None,
        end_session_endpoint=None,
        authorization_response_iss_parameter_supported=None,
        code_challenge_methods_supported=None,
    )
    assert (found.revocation, found.end_session, found.names_itself) == (None, None, False)
    assert found.asked_by_pages == ("https://tokens.example:8443",)


def test_an_origin_is_asked_for_once() -> None:
    assert read(token_endpoint="https://IDP.example/token").asked_by_pages == ("https://idp.example",)


@pytest.mark.parametrize("announced", ["yes", 1, False, None])
def test_an_issuer_names_itself_only_if_it_says_exactly_so(announced: Any) -> None:
    assert not read(authorization_response_iss_parameter_supported=announced).names_itself


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://other.example"},
        {"authorization_endpoint": None},
        {"token_endpoint": None},
        {"token_endpoint": 17},
        {"token_endpoint": "http://idp.example/token"},
        {"token_endpoint": "https://user@idp.example/token"},
        {"token_endpoint": "https://idp.example;script-src/token"},
        {"token_endpoint": "https://idp.example 'unsafe-inline'/token"},
        {"token_endpoint": "https://idp.example,x/token"},
        {"token_endpoint": "https://*/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "data:text/html,x"},
        {"authorization_endpoint": "https://idp.example/a#b"},
        {"code_challenge_methods_supported": ["plain"]},
        {"code_challenge_methods_supported": "S256"},
    ],
)
def test_an_issuer_where_nobody_can_sign_in_safely_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(KeySetError):
        read(**changes)


def test_an_optional_endpoint_that_can_not_be_trusted_is_left_out() -> None:
    found = read(revocation_endpoint="http://idp.example/revoke", end_session_endpoint="javascript:alert(1)")
    assert (found.revocation, found.end_session) == (None, None)


@given(st.text(max_size=60))
def test_no_address_writes_a_policy_of_its_own(address: str) -> None:
    origin = sign_in.origin(address)
    assert not set(origin) & set(" ;,'\"*\t\n")


@given(st.binary(max_size=200))
def test_no_document_is_more_than_refused(document: bytes) -> None:
    with pytest.raises(KeySetError):
        sign_in.endpoints(document, ISSUER)


@pytest.mark.parametrize(
    ("audiences", "resource"),
    [
        (("https://mcp.example/mcp",), "https://mcp.example/mcp"),
        (("https://other.example", "https://mcp.example/mcp"), "https://mcp.example/mcp"),
        (("my-api", "https://other.example/x"), "https://other.example/x"),
        (("my-api", "api://0f0f"), None),
        (("https://a.example/#x",), None),
    ],
)
def test_tokens_are_asked_for_under_the_url_by_which_the_issuer_knows_us(
    audiences: tuple[str, ...], resource: str | None
) -> None:
    own = ["https://mcp.example/mcp", "https://mcp.example/both"]
    assert sign_in.resource(own, audiences) == resource
