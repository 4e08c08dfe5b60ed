from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.model import IdentityKey
from sidecar.policy.identity import content_digest
from sidecar.verify import InvalidSignature, verify
from tests.signed import ANNE, ED, JWKS, MAC, NEWER, NOW, SECRETS, Sent, refused, sent


@pytest.mark.parametrize(("key", "keys"), [(MAC, SECRETS), (ED, JWKS), (NEWER, JWKS)], ids=["hmac", "old", "new"])
def test_what_the_sidecar_signed_is_believed_with_every_live_key(key: IdentityKey, keys: Any) -> None:
    assert sent(key).verify(keys) == ANNE


def test_parts_that_are_absent_need_no_cover() -> None:
    bare = sent(query=None, body=b"", scopes=(), session_id=None)
    assert bare.verify() == replace(ANNE, scopes=())


def test_keys_may_come_from_a_function() -> None:
    assert sent(ED).verify(lambda: JWKS) == ANNE


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("up", "UP"),
        ("up", "up:80"),
        ("up", "Up:443"),
        ("up:443", "up:443"),
        ("[::1]:80", "[::1]:80"),
        ("[::1]", "[::1]:80"),
    ],
)
def test_the_host_is_compared_as_rfc_9421_has_it(authority: str, host: str) -> None:
    """RFC 9421 section 2.2.3: lower case, without the default port."""
    assert sent(authority=authority, host=host).verify() == ANNE


ALTERATIONS: dict[str, Callable[[Sent], Sent]] = {
    "method": lambda r: replace(r, method="PUT"),
    "method in lower case": lambda r: replace(r, method="post"),
    "path": lambda r: replace(r, target="/mcp2?a=1"),
    "path encoded": lambda r: replace(r, target="/%6dcp?a=1"),
    "query": lambda r: replace(r, target="/mcp?a=2"),
    "query gone": lambda r: replace(r, target="/mcp"),
    "query longer": lambda r: replace(r, target="/mcp?a=1?"),
    "absolute target": lambda r: replace(r, target="http://up.example:3000/mcp?a=1"),
    "target of two lines": lambda r: replace(r, target="/mcp\n?a=1"),
    "host": lambda r: r.set("Host", "other:3000"),
    "host gone": lambda r: r.without("Host"),
    "host twice": lambda r: r.having(("host", "up.example:3000")),
    "body": lambda r: replace(r, body=b'{"id":2}'),
    "body gone": lambda r: replace(r, body=b""),
    "body and digest": lambda r: replace(r, body=b"x").set("Content-Digest", content_digest(b"x")),
    "body without digest": lambda r: r.without("Content-Digest"),
    "body and digest gone": lambda r: replace(r, body=b"").without("Content-Digest"),
    "digest twice": lambda r: r.having(("Content-Digest", r.header("Content-Digest"))),
    "digest of another kind": lambda r: r.set("Content-Digest", "sha-512=:AAAA:"),
    "account": lambda r: r.set("X-Account-Id", "evil"),
    "account in capitals": lambda r: r.set("X-Account-Id", "ACME"),
    "account gone": lambda r: r.without("X-Account-Id"),
    "account empty": lambda r: r.set("X-Account-Id", " "),
    "account twice": lambda r: r.having(("x-account-id", "acme")),
    "account with underscores": lambda r: r.having(("X_Account_Id", "evil")),
    "account half so": lambda r: r.having(("x-account_id", "evil")),
    "account of two lines": lambda r: r.set("X-Account-Id", "acme\nx: y"),
    "scopes": lambda r: r.set("X-Account-Scopes", "mcp:full"),
    "scopes gone": lambda r: r.without("X-Account-Scopes"),
    "auth method": lambda r: r.set("X-Auth-Method", "api_key"),
    "auth method gone": lambda r: r.without("X-Auth-Method"),
    "subject": lambda r: r.set("X-Auth-Subject", "auth0|8"),
    "subject not ASCII": lambda r: r.set("X-Auth-Subject", "auth0|é"),
    "subject a lone surrogate": lambda r: r.set("X-Auth-Subject", "\ud800"),
    "subject gone": lambda r: r.without("X-Auth-Subject"),
    "request id": lambda r: r.set("X-Request-Id", "r-2"),
    "request id gone": lambda r: r.without("X-Request-Id"),
    "session": lambda r: r.set("Mcp-Session-Id", "s-2"),
    "session gone": lambda r: r.without("Mcp-Session-Id"),
    "session twice": lambda r: r.having(("Mcp-Session-Id", "s-1")),
    "signature gone": lambda r: r.without("Signature"),
    "signature input gone": lambda r: r.without("Signature-Input"),
    "both gone": lambda r: r.without("Signature").without("Signature-Input"),
    "signature twice": lambda r: r.having(("Signature", r.header("Signature"))),
    "input twice": lambda r: r.having(("Signature-Input", r.header("Signature-Input"))),
    "input and signature twice": lambda r: r.having(*r.headers[-2:]),
    "signature with underscores": lambda r: r.having(("signature_input", "x=()")),
    "signature bit": lambda r: r.changed("Signature", lambda v: v.replace(v[12], "A" if v[12] != "A" else "B", 1)),
    "signature empty": lambda r: r.set("Signature", "sidecar=::"),
    "signature a string": lambda r: r.changed("Signature", lambda v: v.replace(":", '"')),
    "signature padded wrongly": lambda r: r.changed("Signature", lambda v: v.replace("=:", ":")),
    "another label": lambda r: r.changed("Signature-Input", lambda v: v.replace("sidecar=", "other=", 1)),
    "both another label": lambda r: r.changed("Signature-Input", lambda v: v.replace("sidecar=", "other=", 1)).changed(
        "Signature", lambda v: v.replace("sidecar=", "other=", 1)
    ),
    "label of a parameter": lambda r: r.changed("Signature-Input", lambda v: v.replace("sidecar=", "sidecar;a=", 1)),
    "created": lambda r: r.changed("Signature-Input", lambda v: v.replace("created=1700000000", "created=1700000001")),
    "expires": lambda r: r.changed("Signature-Input", lambda v: v.replace("expires=1700000060", "expires=1700000061")),
    "nonce": lambda r: r.changed("Signature-Input", lambda v: v.replace("bm9uY2U", "bm9uY2V")),
    "tag": lambda r: r.changed("Signature-Input", lambda v: v.replace("mcp-sidecar", "mcp-sidekick")),
    "alg": lambda r: r.changed("Signature-Input", lambda v: v.replace("hmac-sha256", "ed25519")),
    "alg gone": lambda r: r.changed("Signature-Input", lambda v: v.replace(';alg="hmac-sha256"', "")),
    "keyid unknown": lambda r: r.changed("Signature-Input", lambda v: v.replace('"shared"', '"nobody"')),
    "malformed member behind": lambda r: r.changed("Signature-Input", lambda v: v + ', x="'),
    "parameter added": lambda r: r.changed("Signature-Input", lambda v: v + ";x=1"),
    "parameter doubled": lambda r: r.changed("Signature-Input", lambda v: v + ';tag="mcp-sidecar"'),
    "component dropped": lambda r: r.changed("Signature-Input", lambda v: v.replace(' "@query"', "")),
    "component doubled": lambda r: r.changed("Signature-Input", lambda v: v.replace('"@query"', '"@query" "@query"')),
    "component of a parameter": lambda r: r.changed("Signature-Input", lambda v: v.replace('"@path"', '"@path";req')),
    "components swapped": lambda r: r.changed(
        "Signature-Input", lambda v: v.replace('"@path" "@query"', '"@query" "@path"')
    ),
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_whatever_was_altered_is_refused(alter: Callable[[Sent], Sent]) -> None:
    assert refused(alter(sent()))


@pytest.mark.parametrize(
    ("absent", "added"),
    [
        ({"scopes": ()}, ("X-Account-Scopes", "mcp:full")),
        ({"session_id": None}, ("Mcp-Session-Id", "s-9")),
        ({"body": b""}, ("Content-Digest", content_digest(b"x"))),
    ],
)
def test_a_header_that_was_added_after_signing_is_refused(absent: Mapping[str, Any], added: tuple[str, str]) -> None:
    sent(**absent).verify()
    assert refused(sent(**absent).having(added))


def test_a_body_that_was_added_after_signing_is_refused() -> None:
    assert refused(replace(sent(body=b""), body=b"x"))


def test_one_line_that_was_made_two_is_refused() -> None:
    """To other readers the first line alone may count."""
    request = sent(subject="7,8")
    request.verify()
    assert refused(request.set("X-Auth-Subject", "7").having(("X-Auth-Subject", "8")))


def test_signatures_of_others_are_stepped_over() -> None:
    others = [
        'cdn=("@method" "x";key="a, sidecar=()");created=1;tag="a\\"b";ok;d=1.5;t=a/b, edge=()',
        "cdn=:AAAA:, flag, sidecar2=:BBBB:",
    ]
    request = replace(sent(), headers=(("Signature-Input", others[0]), ("signature", others[1]), *sent().headers))
    assert request.verify() == ANNE


def test_a_request_passes_once() -> None:
    seen: dict[str, float] = {}
    request = sent()
    request.verify(seen=seen)
    with pytest.raises(InvalidSignature, match="seen before"):
        request.verify(now=NOW + 59, seen=seen)
    sent(nonce="other").verify(seen=seen)


def test_by_default_the_process_remembers() -> None:
    request = sent(nonce="of-this-test")
    arguments = (request.method, request.target, list(request.headers), request.body, SECRETS, NOW)
    assert verify(*arguments) == ANNE
    with pytest.raises(InvalidSignature, match="seen before"):
        verify(*arguments)


def test_what_has_expired_is_forgotten() -> None:
    seen: dict[str, float] = {}
    for second in range(200):
        sent(nonce=f"n{second}", now=NOW + second).verify(now=NOW + second, seen=seen)
    assert len(seen) == 60


def test_a_forgery_is_not_remembered() -> None:
    seen: dict[str, float] = {}
    with pytest.raises(InvalidSignature):
        sent().set("X-Account-Id", "evil").verify(seen=seen)
    assert not seen


def test_a_full_memory_lets_nothing_pass() -> None:
    class Full(dict[str, float]):
        def __len__(self) -> int:
            return 500_000

    with pytest.raises(InvalidSignature, match="too many"):
        sent().verify(seen=Full())


@pytest.mark.parametrize(("now", "passes"), [(-31, False), (-30, True), (59.9, True), (60, False), (10**6, False)])
def test_a_signature_has_its_time(now: float, passes: bool) -> None:
    if passes:
        sent().verify(now=NOW + now)
    else:
        refused(sent(), now=NOW + now)


def test_time_that_is_no_number_lets_nothing_pass() -> None:
    refused(sent(), now=float("nan"))


def test_a_signature_may_not_last_for_hours() -> None:
    sent(ttl_s=3600).verify()
    assert "lifetime" in refused(sent(ttl_s=3601))


PUBLIC = JWKS["keys"][0]
RAW_PUBLIC = Ed25519PrivateKey.from_private_bytes(ED.secret).public_key().public_bytes_raw()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"keys": []},
        {"keys": [None, 7, "x", {}]},
        {"keys": [PUBLIC, PUBLIC]},
        {"keys": [{**PUBLIC, "kty": "oct", "k": PUBLIC["x"]}]},
        {"keys": [{**PUBLIC, "crv": "Ed448"}]},
        {"keys": [{**PUBLIC, "use": "enc"}]},
        {"keys": [{**PUBLIC, "alg": "HS256"}]},
        {"keys": [{**PUBLIC, "x": "AAAA"}]},
        {"keys": [{**PUBLIC, "x": "é"}]},
        {"keys": [{**PUBLIC, "x": None}]},
        {ED.id: RAW_PUBLIC},
        {ED.id: PUBLIC["x"]},
    ],
)
def test_a_key_that_is_not_clearly_the_right_one_verifies_nothing(keys: Mapping[str, Any]) -> None:
    refused(sent(ED), keys)


def test_a_public_key_is_no_shared_secret() -> None:
    """Algorithm confusion: a MAC made with what everybody knows, offered to who holds the key set."""
    forged = sent(IdentityKey(ED.id, "hmac-sha256", RAW_PUBLIC))
    assert "algorithm" in refused(forged, JWKS)
    assert refused(forged.changed("Signature-Input", lambda v: v.replace("hmac-sha256", "ed25519")), JWKS)


def test_a_shared_secret_in_a_key_set_is_none() -> None:
    x = base64.urlsafe_b64encode(MAC.secret).decode()
    refused(sent(), {"keys": [{"kty": "oct", "k": x, "x": x, "kid": MAC.id, "alg": "HS256"}]})


def test_a_refusal_quotes_nothing() -> None:
    messages = {refused(alter(sent())) for alter in ALTERATIONS.values()}
    assert not any(part in message for message in messages for part in ("acme", "evil", "shared", "bm9uY2", "auth0"))
