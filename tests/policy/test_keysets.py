from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from math import prod
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy import keysets
from sidecar.policy.jwk import UnusableKey, verification_key
from sidecar.policy.keysets import KeySetError

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})


def b64(number: int, octets: int | None = None) -> str:
    raw = number.to_bytes(octets or (number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk_of(algorithm: str, key: Any, **members: Any) -> dict[str, Any]:
    """Return the public half and some members more."""
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    return {name: value for name, value in jwk.items() if name != "key_ops"} | members


RSA = jwk_of("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key())
P256 = jwk_of("ES256", ec.generate_private_key(ec.SECP256R1()).public_key())
ED25519 = jwk_of("EdDSA", ed25519.Ed25519PrivateKey.generate().public_key())
MODULUS = int.from_bytes(base64.urlsafe_b64decode(RSA["n"] + "=="))


def key_set(*jwks: Any) -> bytes:
    return json.dumps({"keys": jwks}).encode()


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (RSA, RSA_ALGORITHMS),
        (RSA | {"alg": "PS384", "use": "sig", "key_ops": ["verify"], "x5t": "ignored"}, {"PS384"}),
        (P256, {"ES256"}),
        (jwk_of("ES384", ec.generate_private_key(ec.SECP384R1()).public_key()), {"ES384"}),
        (jwk_of("ES512", ec.generate_private_key(ec.SECP521R1()).public_key(), alg="ES512"), {"ES512"}),
        (jwk_of("ES256K", ec.generate_private_key(ec.SECP256K1()).public_key()), {"ES256K"}),
        (ED25519 | {"key_ops": ["verify", "sign"]}, {"EdDSA"}),
        (jwk_of("EdDSA", ed448.Ed448PrivateKey.generate().public_key()), {"EdDSA"}),
    ],
)
def test_a_key_may_be_used_for_what_it_says_and_what_fits_it(jwk: dict[str, Any], algorithms: set[str]) -> None:
    key = verification_key(jwk | {"kid": "k1"})
    assert key.kid == "k1"
    assert key.algorithms == algorithms
    assert verification_key(jwk).kid is None


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        [],
        "key",
        {},
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXM"},
        {"kty": "oct"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        {"kty": None},
        {"kty": ["RSA"]},
        RSA | {"kty": "EC"},
        P256 | {"kty": "RSA"},
        P256 | {"kty": "OKP"},
        RSA | {"d": "AQAB"},
        P256 | {"d": "AQAB"},
        P256 | {"k": "AQAB"},
        RSA | {"use": "enc"},
        RSA | {"use": None},
        RSA | {"key_ops": []},
        RSA | {"key_ops": ["encrypt"]},
        RSA | {"key_ops": "verify"},
        RSA | {"alg": "ES256"},
        RSA | {"alg": "RSA-OAEP"},
        RSA | {"alg": "HS256"},
        RSA | {"alg": "none"},
        RSA | {"alg": None},
        RSA | {"alg": ["RS256"]},
        P256 | {"alg": "ES384"},
        P256 | {"alg": "RS256"},
        ED25519 | {"alg": "ES256"},
        RSA | {"kid": ""},
        RSA | {"kid": 1},
        RSA | {"kid": None},
        RSA | {"kid": "k" * 129},
        RSA | {"kid": "k\n"},
        RSA | {"e": "Aw"},
        RSA | {"e": b64(65536)},
        RSA | {"e": b64(65538)},
        RSA | {"e": b64(2**32 + 1)},
        RSA | {"e": ""},
        RSA | {"e": 65537},
        {"kty": "RSA", "e": "AQAB"},
        RSA | {"n": RSA["n"] + "="},
        RSA | {"n": "+" + RSA["n"][1:]},
        RSA | {"n": "A"},
        RSA | {"n": "é"},
        RSA | {"n": b64(2**1023 + 1)},
        RSA | {"n": b64(2**2046 + 1)},
        RSA | {"n": b64(MODULUS + 1)},
        RSA | {"n": b64(2**16384 + 1)},
        P256 | {"crv": "P-384"},
        P256 | {"crv": "P-256K"},
        P256 | {"crv": None},
        P256 | {"x": P256["y"], "y": P256["x"]},
        P256 | {"x": b64(0, 32), "y": b64(0, 32)},
        P256 | {"x": b64(2**256 - 1, 32)},
        P256 | {"x": b64(1, 31)},
        P256 | {"x": b64(1, 31), "y": b64(1, 31)},
        P256 | {"y": None},
        ED25519 | {"crv": "X25519"},
        ED25519 | {"crv": "Ed448"},
        ED25519 | {"x": b64(1, 31)},
        ED25519 | {"x": 1},
    ],
)
def test_a_key_that_is_weak_mistyped_or_for_something_else_is_left_out(jwk: Any) -> None:
    with pytest.raises(UnusableKey):
        verification_key(jwk)
    keys, left_out = keysets.read(key_set(jwk, P256))
    assert len(keys) == len(left_out) == 1
    assert left_out[0].startswith("keys[0]: ")


def test_a_modulus_of_the_faulty_chips_is_left_out() -> None:
    """CVE-2017-15361: such primes, and so their product, are powers of 65537 modulo a product of small primes."""
    small = prod(number for number in range(2, 168) if all(number % divisor for divisor in range(2, number)))
    modulus = (2**2047 // small) * small + pow(65537, 4711, small)
    with pytest.raises(UnusableKey, match="factored"):
        verification_key(RSA | {"n": b64(modulus)})


def test_honest_moduli_do_not_look_like_those_of_the_faulty_chips() -> None:
    rng = random.Random(20261123)  # noqa: S311 - a seed makes the same numbers every time
    for _ in range(200):
        modulus = rng.getrandbits(2048) | 1 | 1 << 2047
        assert verification_key(RSA | {"n": b64(modulus)}).algorithms == RSA_ALGORITHMS


P25519, P448 = 2**255 - 19, 2**448 - 2**224 - 1
OF_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
SMALL_ORDER = [
    *(("Ed25519", y, 32) for y in (0, 1, P25519 - 1, P25519, P25519 + 1, OF_ORDER_8, P25519 - OF_ORDER_8)),
    *(("Ed448", y, 57) for y in (0, 1, P448 - 1, P448, P448 + 1)),
]
"""Curve, y and octets of the points of small order, also where y is written as no reduced number."""


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize(("curve", "y", "octets"), SMALL_ORDER)
def test_an_edwards_key_for_which_anybody_can_sign_is_left_out(curve: str, y: int, octets: int, sign: int) -> None:
    encoded = bytearray(y.to_bytes(octets, "little"))
    encoded[-1] |= sign
    x = base64.urlsafe_b64encode(encoded).rstrip(b"=").decode()
    with pytest.raises(UnusableKey, match="small order"):
        verification_key({"kty": "OKP", "crv": curve, "x": x})


def test_signatures_for_a_key_of_small_order_need_no_private_key() -> None:
    """What the rule above is for: the library takes both the key and this."""
    neutral = b"\x01" + bytes(31)
    ed25519.Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"whatever")


def test_keys_that_share_a_name_are_all_left_out() -> None:
    doubled = RSA | {"kid": "a"}, P256 | {"kid": "a"}
    keys, left_out = keysets.read(key_set(*doubled, ED25519 | {"kid": "b"}, P256, ED25519))
    assert [key.kid for key in keys] == ["b", None, None]
    assert len(left_out) == 1


def test_a_key_for_encryption_may_share_its_name_with_the_one_for_signing() -> None:
    keys, _ = keysets.read(key_set(RSA | {"kid": "a", "use": "enc"}, P256 | {"kid": "a", "use": "sig"}))
    assert [key.algorithms for key in keys] == [{"ES256"}]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html></html>",
        b"null",
        b"[]",
        b"{}",
        b'{"keys":null}',
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[],"keys":[]}',
        b'\xef\xbb\xbf{"keys":[]}',
        b'{"keys":[' + b"[" * 50 + b"]" * 50 + b"]}",
        json.dumps(P256).encode(),
        key_set({"kty": "oct", "k": "AAAA"}, None),
        key_set(P256 | {"kid": "a"}, P256 | {"kid": "a"}),
        key_set(P256) + b" " * keysets.MAX_DOCUMENT_BYTES,
    ],
)
def test_a_document_without_a_usable_key_is_no_key_set(document: bytes) -> None:
    with pytest.raises(KeySetError):
        keysets.read(document)


@given(st.binary(max_size=50) | st.text(alphabet='{}[]:,"keystyRSAnoct1', max_size=60).map(str.encode))
def test_any_bytes_are_a_key_set_or_refused(document: bytes) -> None:
    with pytest.raises(KeySetError):
        keysets.read(document)


json_values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)
)
members = st.sampled_from(["kty", "use", "key_ops", "alg", "kid", "n", "e", "crv", "x", "y", "d"])


@given(st.sampled_from([RSA, P256, ED25519]), st.dictionaries(members, json_values, max_size=3))
def test_any_members_make_a_key_or_leave_it_out(jwk: dict[str, Any], changes: dict[str, Any]) -> None:
    keys, left_out = keysets.read(key_set(jwk | changes, ED25519 | {"kid": "good one"}))
    assert len(keys) + len(left_out) == 2


KEYS, _ = keysets.read(key_set(RSA | {"kid": "r"}, P256 | {"kid": "p"}, ED25519))


@pytest.mark.parametrize(
    ("kid", "algorithm", "found", "known"),
    [
        ("r", "RS256", 0, True),
        ("r", "PS512", 0, True),
        ("p", "ES256", 1, True),
        ("p", "RS256", None, True),
        ("p", "HS256", None, True),
        ("x", "ES256", None, False),
        (None, "ES256", 1, True),
        (None, "EdDSA", 2, True),
        (None, "ES384", None, False),
        ("x", "EdDSA", None, False),
    ],
)
def test_a_key_is_found_by_name_and_algorithm(kid: str | None, algorithm: str, found: int | None, known: bool) -> None:
    assert keysets.find(KEYS, kid, algorithm) == (None if found is None else KEYS[found])
    assert keysets.is_known(KEYS, kid, algorithm) is known


def test_without_a_name_several_keys_that_fit_are_none() -> None:
    keys, _ = keysets.read(key_set(P256 | {"kid": "a"}, P256 | {"kid": "b"}))
    assert keysets.find(keys, None, "ES256") is None
    assert keysets.is_known(keys, None, "ES256")


def test_a_shared_secret_is_for_hs256_alone() -> None:
    key = keysets.shared_secret(b"x" * 32)
    assert key.algorithms == {"HS256"}
    assert key.key == b"x" * 32
    assert "xxx" not in repr(key)


@pytest.mark.parametrize(
    "make_secret", [lambda: b"", lambda: b"x" * 31, lambda: json.dumps(P256).encode(), lambda: public_pem()]
)
def test_a_short_secret_or_a_public_key_is_no_shared_secret(make_secret: Callable[[], bytes]) -> None:
    with pytest.raises(KeySetError):
        keysets.shared_secret(make_secret())


def public_pem() -> bytes:
    from_jwk = jwt.get_algorithm_by_name("ES256").from_jwk(P256)
    body = base64.encodebytes(from_jwk.public_numbers().x.to_bytes(32))
    return b"-----BEGIN PUBLIC KEY-----\n" + body + b"-----END PUBLIC KEY-----\n"
