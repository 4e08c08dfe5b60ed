"""What a refused client is told."""

from __future__ import annotations

import pytest

from sidecar.denials import Denial, InsufficientScope, InvalidApiKey, InvalidRequest, InvalidToken
from sidecar.policy.discovery import challenge


@pytest.mark.parametrize(
    ("denial", "expected"),
    [
        (InvalidToken("credential_missing"), "Bearer"),
        (InvalidToken("token_expired"), 'Bearer error="invalid_token"'),
        (
            InsufficientScope("no", required="mcp:full", granted=("mcp:read",)),
            'Bearer error="insufficient_scope", scope="mcp:full mcp:read"',
        ),
        (
            InsufficientScope("no", required="keys:manage", granted=("mcp:read",)),
            'Bearer error="insufficient_scope", scope="mcp:read keys:manage"',
        ),
        (InvalidRequest("credential_repeated"), None),
    ],
)
def test_a_route_for_tokens_sends_bearer_alone(denial: Denial, expected: str | None) -> None:
    """RFC 6750 section 3 and 3.1."""
    assert challenge(denial, ("jwt",)) == expected
    assert challenge(denial, ("jwt", "api_key")) == expected


def test_a_route_for_keys_starts_no_login() -> None:
    assert challenge(InvalidApiKey("credential_missing"), ("api_key",)) == 'ApiKey realm="mcp"'
    assert challenge(InsufficientScope("no", required="mcp:full", granted=()), ("api_key",)) is None
