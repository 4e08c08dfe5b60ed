"""By which keys audit records are checked."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.model import IdentityKey
from sidecar.policy.audit_keys import KeySetUnusable, proving, read_key_set
from sidecar.policy.identity import Signer, sealer

ED25519 = IdentityKey("k1", "ed25519", bytes(range(32)))
HMAC = IdentityKey("k2", "hmac-sha256", bytes(range(32)))
PUBLIC = Ed25519PrivateKey.from_private_bytes(ED25519.secret).public_key().public_bytes_raw()


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


OKP = {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": encoded(PUBLIC)}
OCT = {"kty": "oct", "kid": "k2", "k": encoded(HMAC.secret)}


@pytest.mark.parametrize("key", [ED25519, HMAC], ids=["ed25519", "hmac"])
def test_a_signature_is_proven_by_its_key_alone(key: IdentityKey) -> None:
    signature = sealer(key)(b"data")
    other = IdentityKey(key.id, key.algorithm, bytes(32))
    for keys in (proving([ED25519, HMAC]), read_key_set(key_set(OKP, OCT))):
        assert keys[key.id](signature, b"data")
        assert not keys[key.id](signature, b"date")
        assert not keys[key.id](b"", b"data")
    assert not proving([other])[key.id](signature, b"data")


def test_the_key_set_that_is_published_will_do() -> None:
    published = Signer((ED25519,), authority="upstream", ttl_s=60).jwks()
    assert read_key_set(json.dumps(published).encode())["k1"](sealer(ED25519)(b"data"), b"data")


def test_what_can_not_be_used_is_left_out_of_a_set_that_has_more() -> None:
    others = ["x", {}, {**OKP, "kid": 1}, {**OKP, "kid": "a", "x": "???"}, {**OKP, "kid": "b", "x": "AAAA"}]
    others += [{"kty": "RSA", "kid": "c"}, {**OCT, "kid": "d", "k": "AAAA"}, {"kty": "OKP", "kid": "e"}]
    assert set(read_key_set(key_set(*others, OKP))) == {"k1"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": 1}', key_set(), key_set({"kty": "RSA", "kid": "a"})])
def test_a_set_without_a_key_that_could_be_used_is_refused(data: bytes) -> None:
    with pytest.raises(KeySetUnusable):
        read_key_set(data)
