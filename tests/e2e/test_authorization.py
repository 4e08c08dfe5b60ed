"""What the conformance suite's proposed scenarios ask of a server that takes tokens, in both eras.

No build of the suite tests a server's authorization yet; each docstring names the checks by their ids. Left out is
what they ask of the authorization server, which the sidecar is not: `auth-dcr-*`, `auth-cimd-flow`,
`auth-as-*-supported` and `auth-as-metadata-fields`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from aiohttp import web

from sidecar.demo.issuer import DevIssuer, Documents
from tests.e2e.bed import AUDIENCE, PUBLIC_URL, Bed, Era, HeaderLines, assert_refused, notification, request, tool_call
from tests.e2e.conftest import Start
from tests.e2e.sessions import HELLO, within
from tests.e2e.test_discovery import WELL_KNOWN, challenge, metadata
from tests.issuer import KEY_SET, OAUTH, OPENID, FailingIssuer

VERSION = "2025-11-25"
IN_2023: Mapping[str, Any] = {"iat": 1_700_000_000, "exp": 1_700_003_600}
LOW = "mcp:tools:list"
PRIVILEGED = {
    "a tool that reads": (tool_call("get_balance"), {"mcp:tools:call"}),
    "a tool that writes": (tool_call("add_transaction", description="x", amount_cents=1), {"mcp:full"}),
    "a resource": (request("resources/read", {"uri": "finance://categories"}), {"mcp:resources:read"}),
    "a prompt": (request("prompts/get", {"name": "monthly_review", "arguments": {"month": "May"}}), {"mcp:read"}),
}
"""What a token of the low scope is not good for, and the scopes that it lacks."""

each_era = pytest.mark.parametrize("era", ["legacy", "modern"])
each_privilege = pytest.mark.parametrize(("message", "lacking"), PRIVILEGED.values(), ids=PRIVILEGED)


class TokenIssuer(FailingIssuer):
    """Signs with RSA, is found by RFC 8414 alone, and gives anybody a token for the resource and scope asked for."""

    def __init__(self) -> None:
        super().__init__(algorithm="RS256")
        self.broken[OPENID] = "500"

    def documents(self) -> Documents:
        documents = super().documents()
        about = {**documents[OAUTH], "token_endpoint": f"{self.url}/token"}
        return {**documents, OAUTH: about | {"grant_types_supported": ["client_credentials"]}}

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/token":
            return await super().respond(request)
        asked = {name: str(value) for name, value in (await request.post()).items()}
        token = self.mint(sub="alice", aud=asked["resource"], scope=asked["scope"])
        return web.json_response({"access_token": token, "token_type": "Bearer"})


@pytest.fixture
async def issuer() -> AsyncIterator[TokenIssuer]:
    issuer = TokenIssuer()
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture
def settings(finance_url: str) -> dict[str, Any]:
    """In front of the finance server, whose tools the operator's lists name; first challenges name the low scope."""
    tools = {"read": ["get_balance"], "write": ["add_transaction"], "destructive": []}
    return {"upstream": {"url": finance_url}, "access": {"tools": tools}, "jwt": {"advertised_scopes": [LOW]}}


@pytest.fixture
async def bed(start: Start, settings: dict[str, Any]) -> Bed:
    return await start(**settings)


async def probe(bed: Bed, era: Era, token: str | None = None) -> httpx.Response:
    """Ask what any server answers to anybody that it lets in, as the scenarios do."""
    message = request("initialize", HELLO) if era == "legacy" else request("server/discover")
    return await bed.post(message, era=era, token=token)


def result(answer: httpx.Response) -> dict[str, Any]:
    """Return the result that the upstream gave, as JSON or as the one event of a stream."""
    assert answer.status_code == 200, answer.text
    message = json.loads(answer.text.rpartition("data: ")[2])
    assert "error" not in message
    return dict(message["result"])


async def connect(bed: Bed, era: Era, token: str) -> HeaderLines:
    """Begin as a client of this era; return the header lines that keep its requests together, if any."""
    begun = await probe(bed, era, token)
    assert result(begun)
    if era == "modern":
        return ()
    lines = within(begun.headers["Mcp-Session-Id"])
    initialized = notification("notifications/initialized")
    assert (await bed.post(initialized, token=token, headers=lines)).status_code == 202
    return lines


async def described(issuer_url: str) -> dict[str, Any]:
    """Return an authorization server's metadata (RFC 8414 section 3.1, an issuer without a path)."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return dict((await client.get(issuer_url + OAUTH)).raise_for_status().json())


async def obtained(bed: Bed, resource: Mapping[str, Any], scope: str) -> str:
    """Get a token as a client does that knows nothing but a resource's metadata and a challenge's scope."""
    (server,) = resource["authorization_servers"]
    asked = {"grant_type": "client_credentials", "resource": resource["resource"], "scope": scope}
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post((await described(server))["token_endpoint"], data=asked)
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "Bearer"
    return bed.secret(answer.json()["access_token"])


@each_era
async def test_a_request_without_a_token_is_refused_and_told_where_to_ask(bed: Bed, era: Era) -> None:
    """auth-unauthenticated-request-rejected, auth-401-response, auth-www-authenticate-header,
    auth-resource-metadata-param, auth-www-authenticate-scope.
    """
    refused = await probe(bed, era)
    assert_refused(refused, 401, "INVALID_TOKEN")
    assert challenge(refused) == {"resource_metadata": f"{PUBLIC_URL}{WELL_KNOWN}/mcp", "scope": LOW}


@each_era
async def test_a_token_for_exactly_this_url_is_accepted_though_it_has_no_scope(
    bed: Bed, era: Era, issuer: TokenIssuer
) -> None:
    """auth-valid-audience-token-accepted."""
    assert result(await probe(bed, era, bed.token(None, aud=AUDIENCE)))
    assert (issuer.requests[OAUTH], issuer.requests[KEY_SET]) == (1, 1)


@each_era
@pytest.mark.parametrize(
    "claims",
    [{"aud": "https://another-resource.example.com/mcp"}, {"aud": None}, IN_2023],
    ids=["wrong audience", "missing audience", "expired"],
)
async def test_a_token_that_is_not_for_here_and_now_is_refused(bed: Bed, era: Era, claims: dict[str, Any]) -> None:
    """auth-wrong-audience-token-rejected, auth-missing-audience-token-rejected, auth-expired-token-rejected."""
    assert result(await probe(bed, era, bed.token(None)))
    refused = await probe(bed, era, bed.token(None, **claims))
    assert_refused(refused, 401, "INVALID_TOKEN")
    assert challenge(refused)["error"] == "invalid_token"


@each_era
@pytest.mark.parametrize("key_id", ["the issuer's", "its own"])
async def test_a_token_whose_key_the_issuer_never_published_is_refused(
    bed: Bed, era: Era, issuer: TokenIssuer, key_id: str
) -> None:
    """auth-untrusted-token-rejected."""
    impostor = DevIssuer(algorithm="RS256")
    impostor.url = issuer.url
    if key_id == "the issuer's":
        impostor.keys[-1].kid = issuer.keys[-1].kid
    assert result(await probe(bed, era, bed.token(None)))
    refused = await probe(bed, era, bed.secret(impostor.mint(sub="alice", aud=AUDIENCE)))
    assert_refused(refused, 401, "INVALID_TOKEN")
    assert challenge(refused)["error"] == "invalid_token"


@each_era
async def test_what_is_no_token_is_refused_as_one(bed: Bed, era: Era) -> None:
    """auth-invalid-token-rejected."""
    refused = await probe(bed, era, "invalid")
    assert_refused(refused, 401, "INVALID_TOKEN")
    assert challenge(refused)["error"] == "invalid_token"


@each_era
async def test_an_issuer_that_comes_up_after_the_sidecar_is_asked_for_its_keys_by_the_first_token(
    start: Start, settings: dict[str, Any], era: Era, issuer: TokenIssuer
) -> None:
    """What auth-token-audience-validation has to rely on: its issuer runs only while the scenario does."""
    issuer.broken[OAUTH] = "500"
    bed = await start(**settings)
    async with asyncio.timeout(10):
        while not any(record["event"] == "keys_unavailable" for record in bed.records()):
            assert_refused(await probe(bed, era), 401, "INVALID_TOKEN")
    del issuer.broken[OAUTH]
    assert result(await probe(bed, era, bed.token(None)))


@pytest.mark.parametrize(
    ("default_scopes", "statuses"), [([], [403, 403]), (["mcp:read"], [200, 403]), (["mcp:full"], [200, 200])]
)
async def test_a_token_without_a_scope_may_do_what_its_issuers_default_scopes_say(
    start: Start, settings: dict[str, Any], issuer: TokenIssuer, default_scopes: list[str], statuses: list[int]
) -> None:
    issuers = [{"issuer": issuer.url, "default_scopes": default_scopes}]
    bed = await start(**{**settings, "jwt": {"issuers": issuers}})
    messages = (request("tools/list"), PRIVILEGED["a tool that writes"][0])
    answers = [await bed.post(message, era="modern", token=bed.token(None)) for message in messages]
    assert [answer.status_code for answer in answers] == statuses


@each_era
async def test_the_challenge_leads_to_metadata_of_this_very_resource(bed: Bed, era: Era) -> None:
    """auth-prm-discovery, auth-prm-resource, auth-prm-authorization-servers."""
    url = challenge(await probe(bed, era))["resource_metadata"]
    found = await metadata(bed, url.removeprefix(PUBLIC_URL + WELL_KNOWN))
    assert (found["resource"], found["authorization_servers"]) == (AUDIENCE, [bed.issuer.url])


async def test_the_authorization_server_in_the_metadata_publishes_the_key_that_signs_its_tokens(bed: Bed) -> None:
    """auth-as-metadata-discovery; RFC 8414 section 3.3: `issuer` is identical to what led there."""
    (server,) = (await metadata(bed, "/mcp"))["authorization_servers"]
    about = await described(server)
    assert about["issuer"] == server
    async with httpx.AsyncClient(trust_env=False) as client:
        published = (await client.get(about["jwks_uri"])).json()["keys"]
    assert [key["kid"] for key in published] == [bed.issuer.keys[-1].kid]


@each_era
async def test_a_newcomer_gets_in_by_what_the_answers_say_alone(bed: Bed, era: Era) -> None:
    """auth-token-request, auth-token-response, auth-authenticated-request, auth-flow-completion."""
    told = challenge(await probe(bed, era))
    resource = await metadata(bed, told["resource_metadata"].removeprefix(PUBLIC_URL + WELL_KNOWN))
    token = await obtained(bed, resource, told["scope"])
    lines = await connect(bed, era, token)
    listed = result(await bed.post(request("tools/list"), era=era, token=token, headers=lines))
    assert {"get_balance", "add_transaction"} <= {tool["name"] for tool in listed["tools"]}


@each_era
@each_privilege
async def test_what_a_token_lacks_is_named_in_one_challenge_with_what_it_has(
    bed: Bed, era: Era, message: dict[str, Any], lacking: set[str]
) -> None:
    """step-up-403-response, step-up-scope-in-header, step-up-resource-metadata; for resources and prompts also
    server-scope-challenge-http-403, server-scope-challenge-www-authenticate, sep-2350-server-single-challenge.
    """
    token = bed.token(LOW)
    lines = await connect(bed, era, token)
    refused = await bed.post(message, era=era, token=token, headers=lines)
    assert_refused(refused, 403, "INSUFFICIENT_SCOPE")
    found = challenge(refused)
    assert (found["error"], set(found["scope"].split())) == ("insufficient_scope", {LOW, *lacking})
    assert found["resource_metadata"] == f"{PUBLIC_URL}{WELL_KNOWN}/mcp"


@each_era
@each_privilege
async def test_a_token_of_the_scope_that_was_asked_for_goes_on_where_the_other_one_stopped(
    bed: Bed, era: Era, message: dict[str, Any], lacking: set[str]
) -> None:
    """step-up-re-auth, step-up-success-after-escalation; server-scope-challenge-upgraded-retry."""
    resource = await metadata(bed, "/mcp")
    token = await obtained(bed, resource, LOW)
    lines = await connect(bed, era, token)
    asked = challenge(await bed.post(message, era=era, token=token, headers=lines))["scope"]
    stepped_up = await obtained(bed, resource, asked)
    assert not result(await bed.post(message, era=era, token=stepped_up, headers=lines)).get("isError")


@pytest.mark.parametrize("connected", [False, True], ids=["before initialize", "after initialize"])
@pytest.mark.parametrize(
    ("version", "outcome"),
    [("invalid-protocol-version", "forwarded"), ("2000-01-01", "forwarded"), ("2099-01-01", "invalid_request")],
)
async def test_a_protocol_version_that_nobody_speaks_is_400(
    bed: Bed, version: str, outcome: str, connected: bool
) -> None:
    """server-protocol-version-header-malformed, -unsupported-past, -unsupported-future, and each of them -post-init.

    Which revisions there are is the upstream's to know. The sidecar knows that from the modern era on, whatever the
    revision, a request names its method in a header, which these do not.
    """
    token, message = bed.token(), request("tools/list")
    lines = await connect(bed, "legacy", token) if connected else ()
    if connected:
        assert result(await bed.post(message, token=token, headers=(*lines, ("MCP-Protocol-Version", VERSION))))
    refused = await bed.post(message, token=token, headers=(*lines, ("MCP-Protocol-Version", version)))
    assert (refused.status_code, refused.json()["id"]) == (400, 1)
    assert bed.accesses()[-1]["outcome"] == outcome


async def test_a_future_version_in_all_its_headers_is_refused_by_the_upstream_with_those_it_speaks(bed: Bed) -> None:
    """server-protocol-version-header-unsupported-future, as MCP 2026-07-28 has it ("Protocol Version Header")."""
    future = {"io.modelcontextprotocol/protocolVersion": "2099-01-01", "io.modelcontextprotocol/clientCapabilities": {}}
    headers = (("MCP-Protocol-Version", "2099-01-01"), ("Mcp-Method", "tools/list"))
    refused = await bed.post(request("tools/list", {"_meta": future}), token=bed.token(), headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32022)
    assert refused.json()["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}
    assert bed.accesses()[-1]["outcome"] == "forwarded"
