"""What a client without the right credential is told: by metadata, and by the challenge of a refusal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import (
    AccountUnusable,
    ClientNotAllowed,
    Denial,
    HostNotAllowed,
    InsufficientScope,
    InvalidApiKey,
    InvalidRequest,
    InvalidToken,
    OriginNotAllowed,
)
from sidecar.model import SCOPES, CredentialKind, Route
from sidecar.policy.discovery import Discovery

ROUTES = (Route("/mcp", ("jwt",)), Route("/mcp/inspector", ("api_key",)), Route("/team/both", ("api_key", "jwt")))
METADATA = "https://mcp.example/.well-known/oauth-protected-resource"
BAD_TOKEN = "Invalid or expired authentication token"
AUTH_PARAM = r'(?:error|error_description|resource_metadata|scope)="[ !#-\[\]-~]+"'
"""RFC 6750 section 3, where every value is a quoted-string without escapes."""


def discovery(*scopes: str, issuers: tuple[str, ...] = ("https://idp.example", "https://b.example/t")) -> Discovery:
    return Discovery(public_url="https://mcp.example", routes=ROUTES, issuers=issuers, advertised_scopes=scopes)


def insufficient(required: str, *granted: str) -> InsufficientScope:
    return InsufficientScope("no", required=required, granted=granted)


def test_each_route_that_takes_tokens_has_metadata_at_its_own_well_known_path_and_nothing_else_has() -> None:
    """RFC 9728 sections 2 and 3.1."""
    documents = discovery("mcp:read", "mcp:tools:list").documents
    assert {path: dict(document) for path, document in documents.items()} == {
        f"/.well-known/oauth-protected-resource{path}": {
            "resource": f"https://mcp.example{path}",
            "authorization_servers": ["https://idp.example", "https://b.example/t"],
            "scopes_supported": ["mcp:read", "mcp:tools:list"],
            "bearer_methods_supported": ["header"],
        }
        for path in ("/mcp", "/team/both")
    }


def test_no_advertised_scopes_means_no_scope_in_metadata_and_first_challenges() -> None:
    silent = discovery()
    assert all("scopes_supported" not in document for document in silent.documents.values())
    assert silent.challenge(InvalidToken("credential_missing"), ("jwt",), "/mcp") == (
        f'Bearer resource_metadata="{METADATA}/mcp"'
    )
    assert silent.challenge(InvalidToken("token_expired"), ("jwt",), "/mcp") == (
        f'Bearer error="invalid_token", error_description="{BAD_TOKEN}", resource_metadata="{METADATA}/mcp"'
    )
    assert silent.challenge(insufficient("mcp:full", "mcp:read"), ("jwt",), "/mcp") == (
        'Bearer error="insufficient_scope", scope="mcp:full mcp:read", '
        f'resource_metadata="{METADATA}/mcp", error_description="no"'
    )


@pytest.mark.parametrize("accepts", [("jwt",), ("jwt", "api_key"), ("api_key", "jwt")])
@pytest.mark.parametrize(
    ("denial", "expected"),
    [
        (InvalidToken("credential_missing"), 'Bearer resource_metadata="{}", scope="mcp:read"'),
        (InvalidToken("credential_scheme"), 'Bearer resource_metadata="{}", scope="mcp:read"'),
        *(
            (
                InvalidToken(reason),
                f'Bearer error="invalid_token", error_description="{BAD_TOKEN}", resource_metadata="{{}}", '
                'scope="mcp:read"',
            )
            for reason in ("token_expired", "credential_kind", "audience")
        ),
        (
            InvalidApiKey("key_unknown"),
            'Bearer error="invalid_token", error_description="API key not found or has been revoked", '
            'resource_metadata="{}", scope="mcp:read"',
        ),
        (
            insufficient("mcp:full", "mcp:tools:call", "mcp:resources:read"),
            'Bearer error="insufficient_scope", scope="mcp:full mcp:tools:call mcp:resources:read", '
            'resource_metadata="{}", error_description="no"',
        ),
        (
            insufficient("mcp:resources:read mcp:tools:list"),
            'Bearer error="insufficient_scope", scope="mcp:tools:list mcp:resources:read", '
            'resource_metadata="{}", error_description="no"',
        ),
    ],
)
def test_a_route_for_tokens_sends_bearer_alone_and_leads_to_its_own_metadata(
    denial: Denial, expected: str, accepts: tuple[CredentialKind, ...]
) -> None:
    """RFC 6750 sections 3 and 3.1, RFC 9728 section 5.1, MCP 2025-11-25, authorization."""
    found = discovery("mcp:read").challenge(denial, accepts, "/team/both")
    assert found == expected.format(f"{METADATA}/team/both")


@pytest.mark.parametrize(
    "denial",
    [
        InvalidRequest("credential_repeated"),
        AccountUnusable("account"),
        ClientNotAllowed("client"),
        OriginNotAllowed("origin_not_allowed"),
        HostNotAllowed("host_not_allowed"),
    ],
)
def test_where_no_other_token_would_help_there_is_no_challenge(denial: Denial) -> None:
    assert discovery().challenge(denial, ("jwt",), "/mcp") is None
    assert discovery().challenge(denial, ("api_key",), "/mcp/inspector") is None


def test_a_route_for_keys_starts_no_login() -> None:
    for reason in ("credential_missing", "key_unknown", "credential_kind"):
        found = discovery("mcp:read").challenge(InvalidApiKey(reason), ("api_key",), "/mcp/inspector")
        assert found == 'ApiKey realm="mcp"'
    assert discovery().challenge(insufficient("mcp:full"), ("api_key",), "/mcp/inspector") is None


@pytest.mark.parametrize(
    ("denial", "expected"),
    [
        (InvalidToken("credential_missing"), "Bearer"),
        (InvalidToken("token_expired"), f'Bearer error="invalid_token", error_description="{BAD_TOKEN}"'),
        (
            insufficient("keys:manage", "mcp:read"),
            'Bearer error="insufficient_scope", scope="mcp:read keys:manage", error_description="no"',
        ),
    ],
)
def test_the_rest_interface_and_routes_without_an_issuer_lead_nowhere(denial: Denial, expected: str) -> None:
    assert discovery("mcp:read").challenge(denial, ("jwt",), None) == expected
    nobody = discovery(issuers=())
    assert nobody.documents == {}
    assert nobody.challenge(denial, ("jwt",), "/mcp") == expected


@given(
    message=st.text(),
    required=st.lists(st.sampled_from((*SCOPES, "keys:manage")), min_size=1).map(" ".join),
    granted=st.lists(st.sampled_from(SCOPES)).map(tuple),
    path=st.sampled_from(("/mcp", "/team/both", "/mcp/inspector", "", None)),
)
def test_any_challenge_is_well_formed_and_names_all_that_is_granted_and_required(
    message: str, required: str, granted: tuple[str, ...], path: str | None
) -> None:
    denial = InsufficientScope(message, required=required, granted=granted)
    found = discovery("mcp:read").challenge(denial, ("jwt",), path)
    assert found is not None
    assert re.fullmatch(rf"Bearer {AUTH_PARAM}(, {AUTH_PARAM})*", found)
    (scope,) = re.findall(r'scope="([^"]*)"', found)
    assert sorted(scope.split()) == sorted({*granted, *required.split()})
    assert ("resource_metadata" in found) == (path in ("/mcp", "/team/both"))
