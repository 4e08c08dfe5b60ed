"""What a browser gets before anybody has signed in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.issuer import DevIssuer
from sidecar.edge import key_page
from sidecar.edge.http import pages
from tests.e2e.bed import PUBLIC_URL, Bed
from tests.e2e.conftest import Start
from tests.e2e.test_settings_change import changed
from tests.issuer import OAUTH, OPENID, IssuerForPeople

PAGES = ("/keys", "/keys/callback", "/approvals/callback", "/approvals/" + "0a" * 16)
SIGN_IN = "/keys/sign-in.json"
FIRST_LOAD_BYTES = 100 * 1024


@pytest.fixture
async def issuer() -> AsyncIterator[DevIssuer]:
    issuer = IssuerForPeople()
    await issuer.start()
    yield issuer
    await issuer.stop()


async def told(bed: Bed) -> dict[str, Any]:
    answer = await bed.client.get(SIGN_IN)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    return dict(answer.json())


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_html_that_may_ask_us_and_the_issuer_alone(start: Start, path: str) -> None:
    bed = await start(key_page={"client_id": "pages"})
    answer = await bed.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert f"connect-src 'self' {bed.issuer.url}" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in answer.headers
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "<script>" not in answer.text
    assert "style=" not in answer.text


async def test_all_that_a_page_loads_is_small_and_typed_and_kept_by_its_tag(start: Start) -> None:
    bed = await start()
    size = len((await bed.client.get("/keys")).content)
    for name, content in key_page.contents().items():
        if name.endswith(".html"):
            continue
        answer = await bed.client.get(f"/keys/files/{name}")
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"] in ("text/css; charset=utf-8", "text/javascript; charset=utf-8")
        again = await bed.client.get(f"/keys/files/{name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", answer.headers["ETag"])
        size += len(content)
    assert size < FIRST_LOAD_BYTES


async def test_files_are_as_they_were_at_the_start_and_are_in_the_package() -> None:
    declared = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"edge/key_page/static/*"' in declared
    assert {"keys.html", "approval.html", "page.css", "keys.js", "approval.js"} <= set(key_page.contents())


async def test_the_page_is_told_where_to_sign_in_and_what_for(start: Start) -> None:
    bed = await start(key_page={"client_id": "pages", "scopes": ["openid", "mcp:full"]})
    assert await told(bed) == {
        "publicUrl": PUBLIC_URL,
        "issuer": bed.issuer.url,
        "clientId": "pages",
        "scopes": "openid mcp:full",
        "resource": f"{PUBLIC_URL}/mcp",
        "keyUrl": f"{PUBLIC_URL}/mcp/inspector",
        "defaultScopes": ["mcp:read"],
        "defaultExpiryDays": 90,
        "maxExpiryDays": 3650,
        "rotationGraceSeconds": 3600,
        "endpoints": {
            "authorization": f"{bed.issuer.url}/authorize",
            "token": f"{bed.issuer.url}/token",
            "revocation": None,
            "endSession": None,
            "namesItself": False,
        },
    }


async def test_a_client_that_is_configured_later_takes_effect_without_a_restart(start: Start) -> None:
    bed = await start()
    assert (await told(bed))["clientId"] is None
    await changed(bed, key_page={"client_id": "pages"})
    found = await told(bed)
    assert (found["clientId"], found["endpoints"]["token"]) == ("pages", f"{bed.issuer.url}/token")


async def test_of_several_issuers_people_sign_in_at_the_first(start: Start, issuer: IssuerForPeople) -> None:
    others = [{"issuer": "https://other.example", "account_prefix": "o:"}]
    bed = await start(
        jwt={"issuers": [{"issuer": issuer.url, "account_prefix": "i:", "audiences": ["api"]}, *others]},
        key_page={"client_id": "pages"},
    )
    found = await told(bed)
    assert (found["issuer"], found["resource"]) == (issuer.url, None)


async def test_without_a_client_the_issuer_is_not_asked_and_the_page_may_ask_us_alone(
    start: Start, issuer: IssuerForPeople
) -> None:
    choices: list[dict[str, Any]] = [{}, {"jwt": {"issuers": []}}]
    for settings in choices:
        bed = await start(**settings)
        found = await told(bed)
        assert (found["clientId"], found["endpoints"]) == (None, None)
        page = await bed.client.get("/keys")
        assert "connect-src 'self';" in page.headers["Content-Security-Policy"]


async def test_an_issuer_that_is_away_is_told_of_and_found_again(start: Start, issuer: IssuerForPeople) -> None:
    issuer.broken |= {OAUTH: "500", OPENID: "html"}
    bed = await start(
        key_page={"client_id": "pages"}, jwt={"issuers": [{"issuer": issuer.url, "jwks_url": "http://127.0.0.1:9/"}]}
    )
    assert (await told(bed))["endpoints"] is None
    asked = issuer.requests[OAUTH]
    assert (await told(bed))["endpoints"] is None
    assert issuer.requests[OAUTH] == asked
    [line] = [record for record in bed.records() if record["event"] == "sign_in_unavailable"]
    assert line["level"] == "warning"
    assert line["issuer"] == issuer.url


async def test_many_who_ask_at_once_have_the_issuer_asked_once(start: Start, issuer: IssuerForPeople) -> None:
    bed = await start(
        key_page={"client_id": "pages"}, jwt={"issuers": [{"issuer": issuer.url, "jwks_url": issuer.url}]}
    )
    found = await asyncio.gather(*[told(bed) for _ in range(20)])
    assert all(each["endpoints"] for each in found)
    assert issuer.requests[OAUTH] == 1


async def test_who_asks_too_often_is_refused_and_api_and_neighbours_are_not(start: Start) -> None:
    bed = await start(trusted_proxies=["127.0.0.1"])
    for _ in range(pages.LIMIT.requests):
        assert (await bed.client.get(SIGN_IN)).status_code == 200
    refused = await bed.client.get("/keys")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    neighbour = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
    assert (await bed.client.get("/keys", headers=neighbour)).status_code == 200
    assert (await bed.rest("GET", "/api/api-keys", bed.token())).status_code == 200


async def test_by_plain_http_from_elsewhere_there_is_no_page_to_type_a_token_into(start: Start) -> None:
    bed = await start(trusted_proxies=["127.0.0.1"])
    from_afar = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
    for path in ("/keys", SIGN_IN, "/keys/files/keys.js"):
        assert (await bed.client.get(path, headers=from_afar)).status_code == 403


async def test_a_foreign_name_or_page_gets_nothing(start: Start) -> None:
    bed = await start()
    assert (await bed.client.get("/keys", headers={"Host": "evil.example"})).status_code == 421
    assert (await bed.client.get(SIGN_IN, headers={"Origin": "https://evil.example"})).status_code == 403


async def test_the_code_of_a_sign_in_is_in_no_log(start: Start) -> None:
    bed = await start(key_page={"client_id": "pages"})
    answer = await bed.client.get("/keys/callback?code=the-secret-code&state=s")
    assert answer.status_code == 200
    assert b"the-secret-code" not in bed.log.getvalue()
    [line] = [record for record in bed.accesses() if record["route"] == "/keys"]
    assert (line["status"], line["outcome"]) == (200, "answered")


NAVIGATION = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/keys/", 404),
        ("GET", "/approvals", 404),
        ("GET", "/approvals/" + "0" * 31, 404),
        ("GET", "/keys/<script>alert(1)</script>", 404),
        ("POST", "/keys", 405),
    ],
)
async def test_a_browser_that_is_refused_a_page_gets_one_to_read(
    start: Start, method: str, path: str, status: int
) -> None:
    bed = await start(key_page={"client_id": "pages"})
    answer = await bed.client.request(method, path, headers=NAVIGATION)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert f"<h1>{'Not Found' if status == 404 else 'Method Not Allowed'}</h1>" in answer.text
    assert "script" not in answer.text
    program = await bed.client.request(method, path, headers={"Accept": "*/*"})
    assert (program.status_code, program.headers["Content-Type"]) == (status, "application/json")
    elsewhere = await bed.client.request(method, "/elsewhere", headers=NAVIGATION)
    assert elsewhere.headers["Content-Type"] == "application/json"


async def test_a_browser_that_asks_too_often_reads_when_to_come_back(start: Start) -> None:
    bed = await start()
    for _ in range(pages.LIMIT.requests):
        assert (await bed.client.get(SIGN_IN)).status_code == 200
    refused = await bed.client.get("/keys", headers=NAVIGATION)
    assert refused.status_code == 429
    assert f"Try again in {refused.headers['Retry-After']} seconds." in refused.text
