from __future__ import annotations

import base64
import hmac
import itertools
import time
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver
from http_message_signatures.algorithms import ED25519, HMAC_SHA256
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import IdentityKey
from sidecar.policy.identity import (
    Signer,
    content_digest,
    identity_headers,
    sealer,
    usable_account,
    usable_subject,
)

ED = IdentityKey("2026-07", "ed25519", bytes(range(32)))
MAC = IdentityKey("shared", "hmac-sha256", bytes(range(100, 140)))
BODY = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
IDENTITY = identity_headers(
    account="acme", scopes=("mcp:read", "mcp:tools:list"), kind="jwt", subject="auth0|7", request_id="r-1"
)


def signed(key: IdentityKey = MAC, authority: str = "127.0.0.1:3000", **changes: Any) -> dict[str, str]:
    request: dict[str, Any] = {
        "method": "POST",
        "path": "/mcp",
        "query": None,
        "identity": IDENTITY,
        "digest": content_digest(BODY),
        "session_id": None,
        "now": 1_700_000_000,
        "nonce": "bm9uY2U",
    }
    return dict(Signer((key,), authority=authority, ttl_s=60).sign(**{**request, **changes}))


@pytest.mark.parametrize("text", ["a", "a" * 128, "auth0|5f", "org:7/user@x.example", "A-Z_0.9+=", "https://idp/u=1+2"])
def test_these_are_accounts(text: str) -> None:
    assert usable_account(text)


NO_ACCOUNTS = [
    "",
    "a" * 129,
    "a b",
    "a\n",
    "a\r\nX-Evil: 1",
    "a,b",
    "a\0",
    'a"',
    "é",
    "\u0663",
    "\u212a",
    None,
    7,
    b"a",
    ["a"],
]


@pytest.mark.parametrize("text", NO_ACCOUNTS)
def test_these_are_no_accounts(text: object) -> None:
    assert not usable_account(text)


@pytest.mark.parametrize("text", ["a", "~" * 255, "!", 'a"b\\c,d;e', "key_0123456789ab"])
def test_these_are_subjects(text: str) -> None:
    assert usable_subject(text)


@pytest.mark.parametrize("text", ["", "a" * 256, "a b", "a\n", "\x7f", "\x1f", "é", "\u2028", None, 7, b"a"])
def test_these_are_no_subjects(text: object) -> None:
    assert not usable_subject(text)


def test_identity_is_written_in_one_order_and_no_scopes_means_no_header() -> None:
    assert IDENTITY == (
        ("X-Account-Id", "acme"),
        ("X-Account-Scopes", "mcp:read mcp:tools:list"),
        ("X-Auth-Method", "jwt"),
        ("X-Auth-Subject", "auth0|7"),
        ("X-Request-Id", "r-1"),
    )
    bare = identity_headers(account="acme", scopes=(), kind="api_key", subject="key_0", request_id="r-1")
    assert [name for name, _ in bare] == ["X-Account-Id", "X-Auth-Method", "X-Auth-Subject", "X-Request-Id"]


@pytest.mark.parametrize(("account", "subject"), [("", "s"), ("a\r\nX: y", "s"), ("a", ""), ("a", "s s")])
def test_an_unusable_identity_is_never_written_down(account: str, subject: str) -> None:
    with pytest.raises(ValueError, match="unusable"):
        identity_headers(account=account, scopes=(), kind="jwt", subject=subject, request_id="r")


def test_the_digest_is_the_one_of_rfc_9530() -> None:
    """Appendix B.1; RFC 9421 appendix B.2 has the same body without the line feed."""
    assert content_digest(b'{"hello": "world"}\n') == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    assert content_digest(b'{"hello": "world"}') == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"


def test_the_signature_input_is_the_contracts() -> None:
    assert signed(session_id="s")["Signature-Input"] == (
        'sidecar=("@method" "@authority" "@path" "@query" "content-digest" "x-account-id" "x-account-scopes"'
        ' "x-auth-method" "x-auth-subject" "x-request-id" "mcp-session-id")'
        ';created=1700000000;expires=1700000060;nonce="bm9uY2U";keyid="shared";alg="hmac-sha256";tag="mcp-sidecar"'
    )


RFC_9421_HMAC = (
    '"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
    '"@authority": example.com\n'
    '"content-type": application/json\n'
    '"@signature-params": ("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
)
RFC_9421_ED25519 = (
    '"date": Tue, 20 Apr 2021 02:07:55 GMT\n'
    '"@method": POST\n'
    '"@path": /foo\n'
    '"@authority": example.com\n'
    '"content-type": application/json\n'
    '"content-length": 18\n'
    '"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)


@pytest.mark.parametrize(
    ("algorithm", "secret", "base", "signature"),
    [
        (
            "hmac-sha256",
            "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==",
            RFC_9421_HMAC,
            "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
        ),
        (
            "ed25519",
            "n4Ni+HpISpVObnQMW0wOhCKROaIKqKtW/2ZYb2p9KcU=",
            RFC_9421_ED25519,
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
        ),
    ],
    ids=["B.2.5", "B.2.6"],
)
def test_the_signatures_of_rfc_9421_come_out(
    algorithm: Literal["ed25519", "hmac-sha256"], secret: str, base: str, signature: str
) -> None:
    """Appendix B.2.5 and B.2.6, keys of appendix B.1."""
    seal = sealer(IdentityKey("k", algorithm, base64.b64decode(secret)))
    assert base64.b64encode(seal(base.encode())).decode() == signature


@dataclass
class Message:
    """A request as the independent library wants it."""

    method: str
    url: str
    headers: dict[str, str]


class Keys(HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id: str) -> Any:
        keys = {MAC.id: MAC.secret, ED.id: Ed25519PrivateKey.from_private_bytes(ED.secret).public_key()}
        return keys[key_id]


@pytest.mark.parametrize(("key", "algorithm"), [(ED, ED25519), (MAC, HMAC_SHA256)], ids=["ed25519", "hmac"])
@pytest.mark.parametrize(
    ("authority", "url"),
    [
        ("127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("up.example", "https://UP.example:443"),
        ("[::1]", "http://[::1]:80"),
    ],
)
def test_an_independent_library_agrees(key: IdentityKey, algorithm: Any, authority: str, url: str) -> None:
    parts = itertools.product((IDENTITY, IDENTITY[:1] + IDENTITY[2:]), (BODY, None), ("s-1", None))
    for (identity, body, session_id), (path, query) in itertools.product(
        parts, (("/mcp", None), ("/", ""), ("", None), ("/a%2Fb//c;d", "x=1&y=%20?&=%25"))
    ):
        digest = None if body is None else content_digest(body)
        lines = signed(
            key,
            authority=authority,
            path=path,
            query=query,
            identity=identity,
            digest=digest,
            session_id=session_id,
            now=int(time.time()),
        )
        headers = {**dict(identity), **lines}
        headers |= {} if digest is None else {"Content-Digest": digest}
        headers |= {} if session_id is None else {"Mcp-Session-Id": session_id}
        target = path if query is None else f"{path}?{query}"
        results = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=Keys()).verify(
            Message("POST", url + target, headers),
            expect_tag="mcp-sidecar",
            expect_label="sidecar",
            require_components=("@method", "@authority", "@path", "@query", *(name.lower() for name, _ in identity)),
            body=body,
        )
        assert [result.nonce for result in results] == ["bm9uY2U"]


def test_no_query_and_an_empty_one_sign_alike() -> None:
    """RFC 9421 section 2.2.7."""
    assert signed(query=None) == signed(query="")
    assert signed(query=None) != signed(query="?")


def test_an_authority_may_hold_a_percent_sign() -> None:
    """As the zone of a scoped IPv6 address does (RFC 6874)."""
    assert signed(authority="[fe80::1%25eth0]:3000")["Signature"] != signed()["Signature"]


@pytest.mark.parametrize("poison", ["a\nb", "a\rb", "a\0b", "é", "a\tb", "\x7f", "\ud800"])
@pytest.mark.parametrize("part", ["method", "path", "query", "digest", "session_id", "nonce"])
def test_what_cannot_stand_in_a_header_is_never_signed(part: str, poison: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        signed(MAC, "u", **{part: poison})


@pytest.mark.parametrize("poison", ["a\nb", "é"])
@pytest.mark.parametrize("place", range(len(IDENTITY)))
def test_nor_in_an_identity_header(place: int, poison: str) -> None:
    poisoned = (IDENTITY[place][0], poison)
    with pytest.raises(ValueError, match="printable"):
        signed(identity=(*IDENTITY[:place], poisoned, *IDENTITY[place + 1 :]))


@pytest.mark.parametrize("nonce", ["", 'a"b', "a\\b", "a b", "n" * 129])
def test_a_nonce_that_would_need_quoting_is_never_signed(nonce: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        signed(nonce=nonce)


@pytest.mark.parametrize(
    "identity",
    [
        (),
        IDENTITY[:-1],
        IDENTITY[::-1],
        (IDENTITY[1], IDENTITY[0], *IDENTITY[2:]),
        (IDENTITY[0], *IDENTITY),
        (*IDENTITY, ("X-Account-Id", "b")),
        (("X-Else", "1"), IDENTITY[-1]),
        (("x-account-id", "a"), IDENTITY[-1]),
    ],
)
def test_only_identity_headers_in_their_order_are_signed(identity: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ValueError, match="order"):
        signed(identity=identity)


def test_the_first_key_signs_and_all_public_halves_are_published() -> None:
    newer = IdentityKey("2026-08", "ed25519", bytes(32))
    signer = Signer((ED, newer, MAC), authority="u", ttl_s=60)
    published = signer.jwks()["keys"]
    assert [(jwk["kid"], jwk["kty"], jwk["crv"], jwk["alg"], jwk["use"]) for jwk in published] == [
        ("2026-07", "OKP", "Ed25519", "EdDSA", "sig"),
        ("2026-08", "OKP", "Ed25519", "EdDSA", "sig"),
    ]
    assert 'keyid="2026-07"' in signed(ED)["Signature-Input"]
    raw = base64.urlsafe_b64decode(published[0]["x"] + "=")
    Ed25519PublicKey.from_public_bytes(raw).verify(sealer(ED)(b"base"), b"base")
    assert set(published[0]) == {"kty", "crv", "x", "kid", "alg", "use"}


def test_a_shared_secret_is_never_published() -> None:
    assert Signer((MAC,), authority="u", ttl_s=60).jwks() == {"keys": []}


@pytest.mark.parametrize(
    ("keys", "authority", "ttl_s"),
    [
        ((), "u", 60),
        ((MAC, IdentityKey("shared", "ed25519", bytes(32))), "u", 60),
        ((IdentityKey("k", "hmac-sha256", b"x" * 31),), "u", 60),
        ((MAC, IdentityKey("k", "hmac-sha256", b"")), "u", 60),
        ((IdentityKey("k", "ed25519", b"x" * 31),), "u", 60),
        ((IdentityKey('k"', "ed25519", bytes(32)),), "u", 60),
        ((MAC,), "Upstream", 60),
        ((MAC,), "", 60),
        ((MAC,), "u\n", 60),
        ((MAC,), "u", 0),
    ],
)
def test_a_signer_that_could_not_sign_well_is_not_made(
    keys: tuple[IdentityKey, ...], authority: str, ttl_s: int
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reasons are many, some of them the crypto library's
        Signer(keys, authority=authority, ttl_s=ttl_s)


@given(st.binary(min_size=32, max_size=200), st.binary(max_size=500))
def test_the_shared_secrets_seal_is_hmac(secret: bytes, base: bytes) -> None:
    assert sealer(IdentityKey("k", "hmac-sha256", secret))(base) == hmac.digest(secret, base, "sha256")
