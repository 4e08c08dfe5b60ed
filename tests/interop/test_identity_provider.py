"""A client with no token finds its way to one by itself: the Python SDK's OAuth client and a real identity provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from tests.e2e.bed import JWT_ROUTE, Bed
from tests.interop.conftest import Start
from tests.interop.node_programs import HERE, environment
from tests.interop.shim import Shim

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("node")]

CALLBACK: Final = "http://127.0.0.1:1/callback"
"""Nothing listens there: the browser of this test stops in front of it."""
REGISTERED: Final = OAuthClientInformationFull(
    client_id="registered", redirect_uris=[AnyUrl(CALLBACK)], token_endpoint_auth_method="none"
)
"""Known to the provider from the start, with every scope. Who registers by itself may use only the scopes that it
registered with, and the SDK registers with those of the first challenge: this provider then refuses to step up."""
LIMIT_S: Final = 30


class IdentityProvider:
    """The running provider: where it is and what it was asked for."""

    def __init__(self, issuer: str, process: asyncio.subprocess.Process) -> None:
        self.issuer = issuer
        self._process = process

    async def authorization(self) -> dict[str, Any]:
        """Return the next authorisation request that it granted."""
        assert self._process.stdout is not None
        seen: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return seen

    async def rotate(self) -> None:
        """Give it a new signing key."""
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(f"{self.issuer}/rotate")).status_code == 204


@pytest.fixture
async def provider() -> AsyncIterator[IdentityProvider]:
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "clients" / "identity_provider.mjs"),
        stdout=asyncio.subprocess.PIPE,
        cwd=HERE,
        env={**environment(), "NODE_NO_WARNINGS": "1"},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            while not (line := (await process.stdout.readline()).decode().strip()).startswith("http://"):
                assert process.returncode is None, line
        yield IdentityProvider(line, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


class Browser:
    """Ada's browser, and the storage of the client that sends her to it."""

    def __init__(self, client: OAuthClientInformationFull | None) -> None:
        self._tokens: OAuthToken | None = None
        self._client = client
        self._returned = ""
        self._http = httpx.AsyncClient(trust_env=False)

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info

    async def visit(self, url: str) -> None:
        """Follow the provider's redirects, cookies and all, up to the client's own address."""
        while not url.startswith(CALLBACK):
            answer = await self._http.get(url)
            assert answer.is_redirect, answer.text
            url = str(answer.next_request.url) if answer.next_request else ""
        self._returned = url

    async def returned(self) -> AuthorizationCodeResult:
        given = {name: values[0] for name, values in parse_qs(urlsplit(self._returned).query).items()}
        return AuthorizationCodeResult(code=given["code"], state=given.get("state"), iss=given.get("iss"))

    async def aclose(self) -> None:
        await self._http.aclose()


@asynccontextmanager
async def newcomer(
    url: str, mode: Any, registered: OAuthClientInformationFull | None = None
) -> AsyncIterator[tuple[Client, Browser]]:
    """Connect a client that holds no token, and no registration unless given one."""
    browser = Browser(registered)
    about = OAuthClientMetadata(redirect_uris=[AnyUrl(CALLBACK)], client_name="interop")
    oauth = OAuthClientProvider(url, about, browser, browser.visit, browser.returned)
    try:
        async with (
            asyncio.timeout(LIMIT_S),
            create_mcp_http_client(auth=oauth) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            yield client, browser
    finally:
        await browser.aclose()


@pytest.fixture
async def bed(start: Start, front: Shim, provider: IdentityProvider) -> Bed:
    """A sidecar that knows this provider alone, under the address that it publishes."""
    issuers = [{"issuer": provider.issuer}]
    bed = await start(public_url=front.url, jwt={"advertised_scopes": ["mcp:read"], "issuers": issuers})
    front.target = bed.sidecar.public_url_bound
    return bed


def scopes(authorization: dict[str, Any]) -> set[str]:
    """Return what was asked for of ours; the SDK asks for refresh tokens too, where the provider has them."""
    return set(authorization["scope"].split()) - {"offline_access"}


async def signing_key(browser: Browser) -> str:
    """Return the id of the key that signed the client's access token."""
    tokens = await browser.get_tokens()
    assert tokens is not None
    return str(jwt.get_unverified_header(tokens.access_token)["kid"])


def refusals(bed: Bed) -> list[str]:
    return [access["reason"] for access in bed.accesses() if access["status"] == 401]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_newcomer_logs_in_by_itself_and_steps_up(
    mode: str, bed: Bed, front: Shim, provider: IdentityProvider
) -> None:
    resource = front.url + JWT_ROUTE
    async with newcomer(resource, mode, REGISTERED) as (client, _):
        assert "write_note" in {tool.name for tool in (await client.list_tools()).tools}
        first = await provider.authorization()
        assert not (await client.call_tool("test_simple_text", {})).is_error
        assert not (await client.call_tool("write_note", {"note": "x"})).is_error
        second = await provider.authorization()
    assert scopes(first) == {"mcp:read"}
    assert scopes(second) == {"mcp:read", "mcp:full"}
    for asked in (first, second):
        assert (asked["resource"], asked["code_challenge_method"]) == (resource, "S256")
    assert refusals(bed) == ["credential_missing"]
    assert [access["outcome"] for access in bed.accesses() if access["status"] == 403] == ["insufficient_scope"]


async def test_a_rotated_key_costs_nobody_a_request(bed: Bed, front: Shim, provider: IdentityProvider) -> None:
    resource = front.url + JWT_ROUTE
    async with newcomer(resource, "2026-07-28") as (early, first):
        assert not (await early.call_tool("test_simple_text", {})).is_error
        await provider.rotate()
        async with newcomer(resource, "2026-07-28") as (late, second):
            assert not (await late.call_tool("test_simple_text", {})).is_error
            assert await signing_key(first) != await signing_key(second)
        assert not (await early.call_tool("test_simple_text", {})).is_error
    assert refusals(bed) == ["credential_missing"] * 2
