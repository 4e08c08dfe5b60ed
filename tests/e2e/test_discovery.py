"""A client without a token finds its way to one: refusal, challenge, metadata, issuer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from mcp.shared.auth import ProtectedResourceMetadata

from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, PUBLIC_URL, Bed, request, tool_call
from tests.e2e.conftest import Start

WELL_KNOWN = "/.well-known/oauth-protected-resource"
BOTH_ROUTE = "/both"
ROUTES = [
    {"path": JWT_ROUTE, "credentials": ["jwt"]},
    {"path": KEY_ROUTE, "credentials": ["api_key"]},
    {"path": BOTH_ROUTE, "credentials": ["api_key", "jwt"]},
]
PING = json.dumps(request("ping")).encode()


def parameters(challenge: str) -> dict[str, str]:
    """Take a Bearer challenge apart (RFC 6750 section 3)."""
    assert challenge.startswith("Bearer ")
    pairs = [pair.partition("=") for pair in challenge.removeprefix("Bearer ").split('", ')]
    found = {name: value.strip('"') for name, _, value in pairs}
    assert len(found) == len(pairs)
    return found


def challenge(answer: httpx.Response) -> dict[str, str]:
    (value,) = answer.headers.get_list("WWW-Authenticate")
    return parameters(value)


async def metadata(bed: Bed, path: str) -> dict[str, Any]:
    answer = await bed.client.get(WELL_KNOWN + path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].partition(";")[0] == "application/json"
    assert ProtectedResourceMetadata.model_validate_json(answer.content).authorization_servers
    return dict(answer.json())


async def test_each_route_for_tokens_has_metadata_built_from_the_public_url(start: Start) -> None:
    """RFC 9728 section 3.3: `resource` is identical to the URL that the client calls."""
    bed = await start(public_url="https://mcp.example", allowed_hosts=["127.0.0.1"], routes=ROUTES)
    for path in (JWT_ROUTE, BOTH_ROUTE):
        assert await metadata(bed, path) == {
            "resource": f"https://mcp.example{path}",
            "authorization_servers": [bed.issuer.url],
            "bearer_methods_supported": ["header"],
        }


async def test_what_the_client_says_of_itself_is_nowhere_in_metadata_and_challenges(start: Start) -> None:
    bed = await start()
    lies = "Host: evil.example\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example;proto=https"
    answer = await bed.raw(f"GET {WELL_KNOWN}/mcp?x=evil.example HTTP/1.1\r\n{lies}\r\n\r\n".encode())
    assert answer.status == 200
    assert json.loads(answer.body)["resource"] == f"{PUBLIC_URL}/mcp"
    head = f"POST /mcp HTTP/1.1\r\n{lies.replace('evil', 'public', 1)}\r\nContent-Length: {len(PING)}\r\n\r\n"
    refused = await bed.raw(head.encode() + PING)
    assert refused.status == 401
    (value,) = refused.values("WWW-Authenticate")
    assert parameters(value) == {"resource_metadata": f"{PUBLIC_URL}{WELL_KNOWN}/mcp"}


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/mcp/", "/mcp/inspector", "/MCP", "/api/api-keys", "/other", "/%6dcp", "mcp"),
        *("/../oauth-authorization-server", "/mcp/.well-known"),
    ],
)
async def test_nothing_is_published_for_anything_else(start: Start, path: str) -> None:
    bed = await start(routes=ROUTES)
    answer = await bed.raw(f"GET {WELL_KNOWN}{path} HTTP/1.1\r\nHost: sidecar\r\n\r\n".encode())
    assert answer.status == 404
    assert b"NOT_FOUND" in answer.body


@pytest.mark.parametrize("name", ["oauth-authorization-server", "openid-configuration"])
async def test_the_sidecar_is_no_authorization_server(start: Start, name: str) -> None:
    bed = await start()
    for path in ("", "/mcp"):
        assert (await bed.client.get(f"/.well-known/{name}{path}")).status_code == 404


async def test_without_an_issuer_nothing_is_published_and_challenges_lead_nowhere(start: Start) -> None:
    bed = await start(jwt={"issuers": []})
    assert (await bed.client.get(f"{WELL_KNOWN}/mcp")).status_code == 404
    assert (await bed.post(request("ping"))).headers["WWW-Authenticate"] == "Bearer"


async def test_advertised_scopes_are_in_metadata_and_first_challenges(start: Start) -> None:
    bed = await start(jwt={"advertised_scopes": ["mcp:tools:list", "mcp:read"]})
    assert (await metadata(bed, JWT_ROUTE))["scopes_supported"] == ["mcp:read", "mcp:tools:list"]
    assert challenge(await bed.post(request("ping")))["scope"] == "mcp:read mcp:tools:list"
    bad = challenge(await bed.post(request("ping"), token="no.such.token"))
    assert (bad["error"], bad["scope"]) == ("invalid_token", "mcp:read mcp:tools:list")


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_request_without_a_credential_is_told_where_to_ask_and_of_no_error(start: Start, method: str) -> None:
    """RFC 6750 section 3.1."""
    bed = await start()
    for headers in ({}, {"Authorization": "Basic dTpw"}):
        answer = await bed.client.request(method, JWT_ROUTE, headers=headers)
        assert answer.status_code == 401
        assert challenge(answer) == {"resource_metadata": f"{PUBLIC_URL}{WELL_KNOWN}/mcp"}


async def test_a_bad_token_is_called_invalid(start: Start) -> None:
    bed = await start()
    tokens = [bed.token(exp=1), bed.token(aud="https://other.example/mcp"), "x", await bed.key()]
    for token in tokens:
        found = challenge(await bed.post(request("ping"), token=token, path=JWT_ROUTE))
        assert found["error"] == "invalid_token"
        assert found["error_description"]
        assert found["resource_metadata"] == f"{PUBLIC_URL}{WELL_KNOWN}/mcp"
        assert found.keys() == {"error", "error_description", "resource_metadata"}


async def test_a_missing_scope_is_named_with_those_there_are(start: Start) -> None:
    """MCP 2025-11-25, authorization, "Runtime Insufficient Scope Errors"."""
    bed = await start()
    answer = await bed.post(tool_call("put"), token=bed.token("mcp:tools:call openid mcp:tools:list"))
    assert answer.status_code == 403
    found = challenge(answer)
    assert found.pop("error_description")
    assert found == {
        "error": "insufficient_scope",
        "scope": "mcp:full mcp:tools:call mcp:tools:list",
        "resource_metadata": f"{PUBLIC_URL}{WELL_KNOWN}/mcp",
    }
    stepped_up = bed.token(found["scope"])
    assert (await bed.post(tool_call("put"), token=stepped_up)).status_code == 200


async def test_a_route_for_both_leads_to_its_own_metadata(start: Start) -> None:
    bed = await start(routes=ROUTES)
    for headers in ({}, {"X-API-Key": "wrong"}):
        answer = await bed.client.post(BOTH_ROUTE, headers=headers)
        assert answer.status_code == 401
        assert challenge(answer)["resource_metadata"] == f"{PUBLIC_URL}{WELL_KNOWN}{BOTH_ROUTE}"


async def test_a_route_for_keys_and_the_rest_interface_lead_nowhere(start: Start) -> None:
    bed = await start(jwt={"advertised_scopes": ["mcp:read"]})
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": f"Bearer {bed.token()}"}):
        answer = await bed.client.post(KEY_ROUTE, headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'ApiKey realm="mcp"')
    assert (await bed.rest("GET", KEYS, None)).headers["WWW-Authenticate"] == "Bearer"
    bad = challenge(await bed.rest("GET", KEYS, "x"))
    assert bad.keys() == {"error", "error_description"}


async def test_a_401_is_never_in_band_and_keeps_its_challenge(start: Start) -> None:
    bed = await start(routes=[{"path": JWT_ROUTE, "credentials": ["jwt"], "denials": "in_band"}])
    answer = await bed.post(request("ping"))
    assert answer.status_code == 401
    assert challenge(answer)["resource_metadata"] == f"{PUBLIC_URL}{WELL_KNOWN}/mcp"
    missing = await bed.post(tool_call("put"), token=bed.token("mcp:read"))
    assert (missing.status_code, missing.headers.get("WWW-Authenticate")) == (200, None)


@pytest.mark.parametrize("path", [f"{WELL_KNOWN}/mcp", "/.well-known/sidecar-keys.json"])
async def test_published_documents_are_read_by_any_page_and_only_read(start: Start, path: str) -> None:
    bed = await start()
    page = {"Origin": "https://any.example"}
    answer = await bed.client.get(path, headers={**page, "MCP-Protocol-Version": "2025-11-25"})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    asked: Mapping[str, str] = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "mcp-protocol-version",
    }
    for headers in ({**page, **asked}, page, {}):
        preflight = await bed.client.options(path, headers=headers)
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["Access-Control-Allow-Origin"] == "*"
        assert preflight.headers["Access-Control-Allow-Methods"] == "GET, OPTIONS"
        assert "mcp-protocol-version" in preflight.headers["Access-Control-Allow-Headers"].lower()
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        refused = await bed.client.request(method, path, headers=page)
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, OPTIONS")
        assert refused.headers["Access-Control-Allow-Origin"] == "*"
    with_body = await bed.client.request("GET", path, content=b"{}")
    assert with_body.status_code == 400


async def test_looking_for_the_way_costs_nothing(start: Start) -> None:
    policy = {"name": "account", "requests": 1, "window_s": 3600}
    bed = await start(limits={"policies": [policy], "failed_auth": {"requests": 1, "window_s": 60}})
    for _ in range(5):
        answer = await bed.client.get(f"{WELL_KNOWN}/mcp", headers={"Authorization": "Bearer x", "X-API-Key": "y"})
        assert answer.status_code == 200
        assert not any("ratelimit" in name for name in answer.headers)
    assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
    assert (await bed.post(request("ping"))).status_code == 401
