"""What arrives proves who is calling: to our own verifier, and to an independent library for RFC 9421."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms

from sidecar.demo.issuer import DevIssuer
from sidecar.verify import Identity, InvalidSignature, verify
from tests.e2e.bed import AUDIENCE, JWT_ROUTE, KEY_ROUTE, Bed, credentials, request
from tests.e2e.conftest import Start
from tests.e2e.sessions import begin, within
from tests.mcp_server import Received, StubUpstream

JWKS = "/.well-known/sidecar-keys.json"
SECRET = b"identity-signing-secret-of-tests"
COMPONENTS = (
    '"@method" "@authority" "@path" "@query" "content-digest" "x-account-id" "x-account-scopes" "x-auth-method" '
    '"x-auth-subject" "x-request-id" "mcp-session-id"'
)


@dataclass
class Message:
    """A request in the shape that the independent library reads."""

    method: str
    url: str
    headers: dict[str, str]


class Resolver(HTTPSignatureKeyResolver):
    """Finds the key by its id; any other id has none."""

    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._keys = keys

    def resolve_public_key(self, key_id: str) -> Any:
        return self._keys[key_id]


def public_keys(jwks: Mapping[str, Any]) -> dict[str, Ed25519PublicKey]:
    return {
        jwk["kid"]: Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(jwk["x"] + "=")) for jwk in jwks["keys"]
    }


def verified(received: Received, keys: Mapping[str, Any], now: float | None = None) -> Identity:
    seen: dict[str, float] = {}
    instant = time.time() if now is None else now
    return verify(received.method, received.target, list(received.headers), received.body, keys, instant, seen)


def verified_by_library(received: Received, keys: Mapping[str, Any], algorithm: Any, origin: str) -> None:
    verifier = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=Resolver(keys))
    message = Message(received.method, origin + received.target, dict(received.headers))
    required = ("@method", "@authority", "@path", "@query", "x-account-id", "x-auth-subject", "x-request-id")
    (result,) = verifier.verify(
        message, expect_tag="mcp-sidecar", require_components=required, body=received.body or None
    )
    assert result.label == "sidecar"


async def jwks_of(bed: Bed) -> dict[str, Any]:
    answer = await bed.client.get(JWKS)
    assert answer.status_code == 200
    return dict(answer.json())


async def various_requests(bed: Bed, stub: StubUpstream) -> None:
    """Send one request of each kind that a signature must cover."""
    token, key = bed.token("mcp:tools:list mcp:read"), await bed.key("mcp:full", account="team:7|a@b.example")
    await bed.post(request("ping", {"text": "é"}), token=token)
    await bed.post(request("ping"), key=key, path=f"{KEY_ROUTE}?a=%20b&c")
    await begin(bed, stub, "s-1", token=bed.token(None))
    await bed.post(request("ping"), token=bed.token(None), headers=within("s-1"))
    await bed.client.get(JWT_ROUTE, headers=credentials(token=token))
    await begin(bed, stub, "s-2", key=key)
    await bed.client.delete(KEY_ROUTE, headers=[*within("s-2"), *credentials(key=key)])


async def test_what_arrives_verifies_with_the_published_keys(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    await various_requests(bed, stub)
    jwks = await jwks_of(bed)
    origin = stub.url.removesuffix("/mcp")
    assert len(stub.received) == 5
    for received in stub.received:
        identity = verified(received, jwks)
        assert identity.account == received.value("X-Account-Id")
        verified_by_library(received, public_keys(jwks), algorithms.ED25519, origin)
    by_token, by_key, scopeless, *_ = (verified(received, jwks) for received in stub.received)
    assert by_token == Identity(
        "alice", ("mcp:read", "mcp:tools:list"), "jwt", "alice", stub.received[0].value("X-Request-Id")
    )
    assert by_key.account == "team:7|a@b.example"
    assert by_key.auth_method == "api_key"
    assert by_key.subject.startswith("key_")
    assert scopeless.scopes == ()


async def test_what_arrives_verifies_with_a_shared_secret(start: Start, stub: StubUpstream, tmp_path: Any) -> None:
    secret_file = tmp_path / "hmac"
    secret_file.write_text(base64.b64encode(SECRET).decode() + "\n")
    keys = [{"id": "k1", "secret_file": str(secret_file)}]
    bed = await start(identity={"algorithm": "hmac-sha256", "keys": keys})
    await various_requests(bed, stub)
    for received in stub.received:
        assert verified(received, {"k1": SECRET}).account == received.value("X-Account-Id")
        verified_by_library(received, {"k1": SECRET}, algorithms.HMAC_SHA256, stub.url.removesuffix("/mcp"))
        with pytest.raises(InvalidSignature):
            verified(received, {"k1": b"another-secret-of-the-same-length"})
    assert await jwks_of(bed) == {"keys": []}


async def test_the_signature_covers_these_components_with_these_parameters(start: Start, stub: StubUpstream) -> None:
    bed = await start(identity={"ttl_s": 30})
    await begin(bed, stub, "s", token=bed.token())
    await bed.post(request("ping"), token=bed.token(), headers=within("s"))
    await bed.client.get(JWT_ROUTE, headers=credentials(token=bed.token(None)))
    whole, bare = (received.value("Signature-Input") for received in stub.received)
    components, _, parameters = whole.removeprefix("sidecar=(").partition(")")
    assert components == COMPONENTS
    names = [parameter.partition("=")[0] for parameter in parameters.strip(";").split(";")]
    assert names == ["created", "expires", "nonce", "keyid", "alg", "tag"]
    values = dict(parameter.split("=", 1) for parameter in parameters.strip(";").split(";"))
    assert int(values["expires"]) - int(values["created"]) == 30
    assert (values["alg"], values["tag"]) == ('"ed25519"', '"mcp-sidecar"')
    absent = ("content-digest", "x-account-scopes", "mcp-session-id")
    assert bare.removeprefix("sidecar=(").partition(")")[0].split() == [
        part for part in COMPONENTS.split() if part.strip('"') not in absent
    ]


async def test_an_altered_or_late_or_repeated_request_does_not_verify(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    await bed.post(request("ping"), token=bed.token("mcp:read"))
    jwks, received = await jwks_of(bed), stub.only
    seen: dict[str, float] = {}
    whole = (received.method, received.target, list(received.headers), received.body, jwks, time.time(), seen)
    verify(*whole)
    with pytest.raises(InvalidSignature):
        verify(*whole)
    with pytest.raises(InvalidSignature):
        verified(received, jwks, time.time() + 120)
    for name, value in (("X-Account-Id", "bob"), ("X-Account-Scopes", "mcp:full"), ("X-Auth-Method", "api_key")):
        lines = tuple((line, value if line == name else old) for line, old in received.headers)
        with pytest.raises(InvalidSignature):
            verified(Received(received.method, received.target, lines, received.body), jwks)
    with pytest.raises(InvalidSignature):
        verified(Received(received.method, received.target, received.headers, received.body + b" "), jwks)
    with pytest.raises(InvalidSignature):
        verified(Received(received.method, received.target + "?x", received.headers, received.body), jwks)


async def test_every_nonce_is_new(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    token = bed.token()
    for _ in range(20):
        await bed.post(request("ping"), token=token)
    nonces = {received.value("Signature-Input").split('nonce="')[1].split('"')[0] for received in stub.received}
    assert len(nonces) == 20


async def test_the_generated_key_survives_a_restart(start: Start, stub: StubUpstream) -> None:
    first = await start()
    published = await jwks_of(first)
    assert len(published["keys"]) == 1
    await first.sidecar.stop()
    second = await start()
    assert await jwks_of(second) == published
    await second.post(request("ping"), token=second.token())
    assert verified(stub.only, published).account == "alice"


async def test_several_keys_are_published_and_the_first_signs(start: Start, stub: StubUpstream, tmp_path: Any) -> None:
    keys = []
    for name in ("new", "old"):
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / name).write_bytes(pem)
        keys.append({"id": name, "private_key_file": str(tmp_path / name)})
    bed = await start(identity={"keys": keys})
    jwks = await jwks_of(bed)
    assert [jwk["kid"] for jwk in jwks["keys"]] == ["new", "old"]
    assert not [jwk for jwk in jwks["keys"] if "d" in jwk]
    assert "PRIVATE" not in json.dumps(jwks)
    await bed.post(request("ping"), token=bed.token())
    assert 'keyid="new"' in stub.only.value("Signature-Input")
    assert verified(stub.only, jwks).account == "alice"


async def test_issuers_cannot_speak_for_each_others_accounts(start: Start, stub: StubUpstream) -> None:
    other = DevIssuer(algorithm="EdDSA")
    await other.start()
    try:
        bed = await start()
        first = {"issuer": bed.issuer.url, "account_prefix": "a:"}
        second = {"issuer": other.url, "account_prefix": "b|", "account_claim": "tenant", "scope_claim": "permissions"}
        bed = await start(jwt={"issuers": [first, second]})
        claims: dict[str, Any] = {"tenant": "acme", "permissions": ["mcp:read", "other"]}
        theirs = bed.secret(other.mint(sub="alice", aud=AUDIENCE, **claims))
        for token in (bed.token("mcp:full"), theirs):
            assert (await bed.post(request("ping"), token=token)).status_code == 200
        forged = bed.secret(other.mint(sub="alice", aud=AUDIENCE, iss=bed.issuer.url, **claims))
        assert (await bed.post(request("ping"), token=forged)).status_code == 401
    finally:
        await other.stop()
    received = [
        tuple(line.value(name) for name in ("X-Account-Id", "X-Account-Scopes", "X-Auth-Subject"))
        for line in stub.received
    ]
    assert received == [("a:alice", "mcp:full", "alice"), ("b|acme", "mcp:read", "alice")]


async def test_default_scopes_apply_only_when_the_token_names_none(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    bed = await start(jwt={"issuers": [{"issuer": bed.issuer.url, "default_scopes": ["mcp:tools:list", "mcp:read"]}]})
    for scope in (None, "openid profile", "mcp:tools:list openid", "mcp:unheard-of"):
        assert (await bed.post(request("ping"), token=bed.token(scope))).status_code == 200
    scopes = [received.values("X-Account-Scopes") for received in stub.received]
    assert scopes == [["mcp:read mcp:tools:list"], ["mcp:read mcp:tools:list"], ["mcp:tools:list"], []]
