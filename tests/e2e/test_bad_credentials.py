"""No, doubled, malformed, expired, revoked and foreign credentials: refused alike, nothing forwarded or logged."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import AUDIENCE, JWT_ROUTE, KEY_ROUTE, KEYS, Bed, assert_refused, request, with_other_secret
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream

UNKNOWN_KEY = with_other_secret("mcp_" + "a" * 12, 1)
PING = request("ping", id="p")
SHARED_SECRET = "a-shared-secret-of-more-than-32-bytes"


@pytest.fixture(autouse=True)
def nothing_forwarded(stub: StubUpstream) -> Iterator[None]:
    """None of these requests may ever reach the upstream."""
    yield
    assert stub.received == []


async def post(bed: Bed, path: str, *lines: tuple[str, str]) -> Any:
    return await bed.post(PING, path=path, headers=lines)


async def test_what_is_no_token_is_401(start: Start) -> None:
    bed = await start()
    body = json.dumps(PING).encode()
    for value in (
        *("", "Bearer", "Bearer ", "bearer x", "Basic YTpi", "Bearer a.b", "Bearer a.b.c", "Bearer a.b.c.d.e"),
        *("Bearer ..", "Bearer a b", "Token abc", "DPoP a.b.c", f"Bearer {UNKNOWN_KEY}", UNKNOWN_KEY),
        *("Bearer " + "a" * 8000, "Bearer \u00ff.\u00ff.\u00ff", 'Bearer realm="x"', "Bearer\ta.b.c"),
    ):
        head = f"POST /mcp HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nAuthorization: {value}\r\n"
        answer = await bed.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)
        assert_refused(answer, 401, "INVALID_TOKEN", id="p", text="Invalid or expired authentication token")


async def test_a_token_in_the_query_is_400(start: Start) -> None:
    bed = await start()
    token = bed.token()
    for path in (JWT_ROUTE, KEY_ROUTE):
        for query in (f"access_token={token}", f"a=1&access_token={token}", "access_token=", "access%5Ftoken=x"):
            answer = await bed.post(PING, path=f"{path}?{query}", token=token)
            assert answer.status_code in (400, 401)
        answer = await bed.post(PING, path=f"{path}?access_token=x")
        assert_refused(answer, 400, "INVALID_REQUEST", id="p")


async def test_a_token_that_is_not_for_here_or_not_for_now_is_401(start: Start) -> None:
    bed = await start()
    good: dict[str, Any] = {"sub": "alice", "aud": AUDIENCE, "scope": "mcp:full"}
    wrong: tuple[dict[str, Any], ...] = (
        *({"expires_in_s": -60}, {"expires_in_s": -31}, {"nbf": time.time() + 3600}, {"iat": time.time() + 3600}),
        *({"exp": "tomorrow"}, {"exp": None}, {"exp": True}, {"nbf": "0"}, {"iat": "0"}, {"jti": 7}),
        *({"aud": "https://elsewhere.example/mcp"}, {"aud": []}, {"aud": [7]}, {"aud": AUDIENCE + "/inspector"}),
        *({"sub": None}, {"iss": "https://elsewhere.example"}, {"iss": None}),
        *({"scope": 7}, {"scope": {"mcp:full": True}}, {"scope": ["mcp:full", 7]}),
    )
    for claims in wrong:
        token = bed.secret(bed.issuer.mint(**{**good, **claims}))
        answer = await bed.post(PING, token=token)
        assert answer.status_code == 401, claims
        assert_refused(answer, 401, "INVALID_TOKEN", id="p")


async def test_a_token_signed_by_another_with_the_same_names_is_401(start: Start, issuer: DevIssuer) -> None:
    bed = await start()
    impostor = DevIssuer(algorithm="ES256")
    impostor.url = issuer.url
    impostor.keys[-1].kid = issuer.keys[-1].kid
    token = bed.secret(impostor.mint(sub="alice", aud=AUDIENCE, scope="mcp:full"))
    assert_refused(await bed.post(PING, token=token), 401, "INVALID_TOKEN", id="p")


async def test_a_token_without_a_signature_or_with_a_weak_one_is_401(start: Start, issuer: DevIssuer) -> None:
    bed = await start()
    header, payload, signature = bed.token().split(".")
    kid = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
    unsigned = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": kid}).encode()).rstrip(b"=").decode()
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    symmetric = jwt.encode(claims, SHARED_SECRET, algorithm="HS256", headers={"kid": kid})
    other_payload = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "bob"}).encode()).rstrip(b"=").decode()
    for token in (
        *(f"{unsigned}.{payload}.", f"{header}.{payload}.", f"{header}.{payload}.{signature}=", symmetric),
        *(f"{header}.{other_payload}.{signature}", f"{header}.{payload}.{signature[:-4]}"),
    ):
        bed.secret(token)
        assert_refused(await bed.post(PING, token=token), 401, "INVALID_TOKEN", id="p")


async def test_two_credentials_are_400_whatever_they_are(start: Start) -> None:
    bed = await start()
    key, token = await bed.key(), bed.token()
    bearer, api_key = ("Authorization", f"Bearer {token}"), ("X-API-Key", key)
    junk = ("Authorization", "x")
    for path in (JWT_ROUTE, KEY_ROUTE):
        for lines in ((bearer, api_key), (bearer, bearer), (api_key, api_key), (bearer, junk), (api_key, junk)):
            assert_refused(await post(bed, path, *lines), 400, "INVALID_REQUEST", id="p")
        empty = ("X-API-Key", "")
        assert_refused(await post(bed, path, bearer, empty), 400, "INVALID_REQUEST", id="p")


async def test_the_wrong_kind_of_credential_is_the_routes_own_401(start: Start) -> None:
    bed = await start()
    key, token = await bed.key("mcp:full"), bed.token()
    for line in (("X-API-Key", key), ("Authorization", f"Bearer {key}")):
        assert_refused(await post(bed, JWT_ROUTE, line), 401, "INVALID_TOKEN", id="p")
        listing = await bed.client.get(KEYS, headers=[line])
        assert listing.status_code == 401
        assert listing.json()["errorType"] == "INVALID_TOKEN"
    for line in (("Authorization", f"Bearer {token}"), ("X-API-Key", token)):
        assert_refused(await post(bed, KEY_ROUTE, line), 401, "INVALID_API_KEY", id="p")


async def test_every_key_that_does_not_work_is_refused_alike(start: Start) -> None:
    bed = await start()
    good, revoked, expired = await bed.key(), await bed.key(), await bed.key()
    await bed.sidecar.keyring.revoke("alice", f"key_{revoked[4:16]}")
    token = bed.token()
    rotated = await bed.rest("POST", f"{KEYS}/key_{expired[4:16]}/rotate", token, {"graceSeconds": 0})
    assert rotated.status_code == 201
    bed.secret(rotated.json()["key"])
    wrong_secret, wrong_check = with_other_secret(good, 7), good[:-1] + ("0" if good[-1] != "0" else "1")
    texts = (
        *("", "mcp_", "mcp_short", good.lower(), good[:-1], good + "0", good.replace("mcp_", "key_")),
        *(wrong_check, wrong_secret, UNKNOWN_KEY, revoked, expired, "mcp_" + "\u00e4" * 46, good + "\u00a0"),
    )
    answers = []
    for text in texts:
        if len(text) > 16:
            bed.secret(text)
        raw = [(b"X-API-Key", text.encode("latin-1"))]
        answers.append(await bed.client.post(KEY_ROUTE, json=PING, headers=raw))
    for answer in answers:
        assert_refused(answer, 401, "INVALID_API_KEY", id="p", text="API key not found or has been revoked")
    assert len({(answer.content, answer.headers.get("WWW-Authenticate")) for answer in answers}) == 1


async def test_rest_refuses_as_problem_json(start: Start) -> None:
    bed = await start()
    answer = await bed.client.get(KEYS)
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 401
    assert problem["errorType"] == "INVALID_TOKEN"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_retired_signing_key_stops_working(start: Start) -> None:
    bed = await start()
    old = bed.token()
    bed.issuer.rotate()
    bed.issuer.retire()
    new = bed.token()
    answer = await bed.post(request("tools/call", {"name": 7}), token=new)
    assert answer.status_code == 400, "the new key is fetched on sight, so the token is good and the body is judged"
    assert_refused(await bed.post(PING, token=old), 401, "INVALID_TOKEN", id="p")
