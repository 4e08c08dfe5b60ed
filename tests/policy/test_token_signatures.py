from __future__ import annotations

import hmac

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from sidecar.model import VerificationKey
from sidecar.policy import tokens
from sidecar.policy.tokens import IssuerPolicy
from tests.forging import (
    ASYMMETRIC,
    CLAIMS,
    EC_KEYS,
    GOOD,
    HEADER,
    ISSUER,
    NOW,
    PAYLOAD,
    POLICY,
    RSA_KEY,
    SIGNATURE,
    encode,
    es256,
    forge,
    judge,
    private_key,
    public,
    reason,
)

_SECRET = b"a secret of 32 bytes and a bit more"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_token_of_each_algorithm_verifies_with_its_key_and_with_no_other(algorithm: str) -> None:
    token = jwt.encode(CLAIMS, private_key(algorithm), algorithm=algorithm)
    assert judge(token, algorithm).account == "alice"
    for other in ASYMMETRIC:
        if other != algorithm:
            assert reason(token, public(other)) == "token_algorithm"


def test_ed448_is_eddsa_too() -> None:
    key = ed448.Ed448PrivateKey.generate()
    token = jwt.encode(CLAIMS, key, algorithm="EdDSA")
    usable = VerificationKey(None, frozenset({"EdDSA"}), key.public_key())
    assert tokens.verify(tokens.peek(token), POLICY, usable, NOW).account == "alice"


def test_a_shared_secret_verifies_hs256() -> None:
    token = jwt.encode(CLAIMS, _SECRET, algorithm="HS256")
    policy = IssuerPolicy(ISSUER, POLICY.audiences, ("HS256",))
    key = VerificationKey(None, frozenset({"HS256"}), _SECRET)
    assert tokens.verify(tokens.peek(token), policy, key, NOW).account == "alice"
    assert reason(token[:-4] + "AAAA", key, policy) == "token_signature"


def test_an_algorithm_the_issuer_does_not_use_is_refused() -> None:
    assert reason(GOOD, policy=IssuerPolicy(ISSUER, POLICY.audiences, ("RS256",))) == "token_algorithm"


PEM = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.mark.parametrize(
    "secret",
    [
        RSA_KEY.public_key().public_bytes(*PEM),
        RSA_KEY.public_key().public_bytes(serialization.Encoding.DER, PEM[1]),
        jwt.get_algorithm_by_name("RS256").to_jwk(RSA_KEY.public_key()).encode(),
    ],
    ids=["pem", "der", "jwk"],
)
def test_a_public_key_is_never_a_secret(secret: bytes) -> None:
    """The classic: sign with HS256 and the public key. Three doors, each shut by itself."""
    signed = f"{encode({'alg': 'HS256'})}.{encode(CLAIMS)}"
    token = f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256'))}"
    either = IssuerPolicy(ISSUER, POLICY.audiences, ("RS256", "HS256"))
    both = frozenset({"RS256", "HS256"})
    assert reason(token, public("RS256")) == "token_algorithm"
    assert reason(token, public("RS256"), either) == "token_algorithm"
    assert reason(token, VerificationKey(None, both, RSA_KEY.public_key()), either) == "token_key"
    assert reason(token, VerificationKey(None, both, secret), either) == "token_key"


def test_a_secret_never_verifies_what_asks_for_a_key_pair() -> None:
    pem = EC_KEYS["ES256"].public_key().public_bytes(*PEM)
    assert reason(GOOD, VerificationKey(None, frozenset({"ES256"}), pem)) == "token_key"


@pytest.mark.parametrize(("algorithm", "other"), [("ES256", "ES384"), ("ES256", "RS256"), ("RS256", "ES256")])
def test_a_key_under_the_wrong_algorithm_refuses_and_never_raises(algorithm: str, other: str) -> None:
    token = jwt.encode(CLAIMS, private_key(algorithm), algorithm=algorithm)
    wrong = VerificationKey(None, frozenset({algorithm}), private_key(other).public_key())
    assert reason(token, wrong) == "token_key"


def _der(signature: bytes) -> bytes:
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    return b"\x30\x44\x02\x20" + r.to_bytes(32) + b"\x02\x20" + s.to_bytes(32)


ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize(
    "signature",
    [
        bytes(64),
        bytes(63),
        bytes(65),
        b"\x00",
        b"\xff" * 64,
        bytes(31) + b"\x01" + bytes(31) + b"\x01",
        ORDER.to_bytes(32) * 2,
        bytes(32) + ORDER.to_bytes(32),
        _der(es256(f"{HEADER}.{PAYLOAD}")),
        EC_KEYS["ES256"].sign(f"{HEADER}.{PAYLOAD}".encode(), ec.ECDSA(hashes.SHA256())),
        es256(f"{HEADER}.{PAYLOAD}") * 2,
        es256(f"{HEADER}.{PAYLOAD} "),
        es256(f"{HEADER}.{PAYLOAD}", ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_an_ecdsa_signature_is_two_plain_numbers_of_the_curve(signature: bytes) -> None:
    """RFC 7518 section 3.4; zero and the group's order are the forgeries of CVE-2022-21449."""
    assert reason(f"{HEADER}.{PAYLOAD}.{encode(signature)}") == "token_signature"


def test_the_raw_form_of_a_der_signature_is_the_good_one() -> None:
    """Shows that the refusals above are of the form, not of the key."""
    der = EC_KEYS["ES256"].sign(f"{HEADER}.{PAYLOAD}".encode(), ec.ECDSA(hashes.SHA256()))
    raw = b"".join(number.to_bytes(32) for number in decode_dss_signature(der))
    assert judge(f"{HEADER}.{PAYLOAD}.{encode(raw)}").account == "alice"


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_rsa_paddings_are_not_interchangeable(algorithm: str) -> None:
    signed = f"{encode({'alg': algorithm})}.{encode(CLAIMS)}"
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    wrong = pss if algorithm == "RS256" else padding.PKCS1v15()
    signature = RSA_KEY.sign(signed.encode(), wrong, hashes.SHA256())
    for forged in (signature, signature[:-1], signature + b"\x00", bytes(256), b"\x01"):
        assert reason(f"{signed}.{encode(forged)}", public(algorithm)) == "token_signature"


def test_a_signature_over_other_parts_does_not_travel() -> None:
    other = forge({"alg": "ES256"}, CLAIMS | {"sub": "mallory"})
    assert reason(f"{HEADER}.{other.split('.')[1]}.{SIGNATURE}") == "token_signature"
    assert reason(f"{other.split('.')[0]}.{PAYLOAD}.{SIGNATURE}") == "token_signature"
