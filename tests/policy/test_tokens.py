from __future__ import annotations

import base64
import hmac
import json
import random
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import AccountUnusable, InvalidToken
from sidecar.model import Principal, VerificationKey
from sidecar.policy import tokens
from sidecar.policy.tokens import IssuerPolicy

NOW = 1_800_000_000.0
ISSUER = "https://idp.example"
ASYMMETRIC = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES256K", "ES384", "ES512", "EdDSA"),
)
POLICY = IssuerPolicy(ISSUER, ("https://mcp.example/mcp",), ASYMMETRIC)
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": "https://mcp.example/mcp", "sub": "alice", "exp": NOW + 600}
SECRET = b"a secret of 32 bytes and a bit more"

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES256K": ec.generate_private_key(ec.SECP256K1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def private_key(algorithm: str) -> Any:
    if algorithm == "EdDSA":
        return ED_KEY
    return EC_KEYS.get(algorithm, RSA_KEY)


def public(algorithm: str) -> VerificationKey:
    return VerificationKey("k1", frozenset({algorithm}), private_key(algorithm).public_key())


def encode(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def es256(signed: str, key: Any = EC_KEYS["ES256"]) -> bytes:
    return jwt.get_algorithm_by_name("ES256").sign(signed.encode(), key)


def forge(header: bytes | dict[str, Any], payload: bytes | dict[str, Any] = CLAIMS) -> str:
    """Sign whatever this is with ES256, whatever it says."""
    signed = f"{encode(header)}.{encode(payload)}"
    return f"{signed}.{encode(es256(signed))}"


GOOD = forge({"alg": "ES256", "kid": "k1", "typ": "at+jwt"})


def judge(token: str, algorithm: str = "ES256", policy: IssuerPolicy = POLICY) -> Principal:
    return tokens.verify(tokens.peek(token), policy, public(algorithm), NOW)


def reason(token: str, key: VerificationKey | None = None, policy: IssuerPolicy = POLICY) -> str:
    with pytest.raises(InvalidToken) as refused:
        tokens.verify(tokens.peek(token), policy, key or public("ES256"), NOW)
    return refused.value.reason


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
    token = jwt.encode(CLAIMS, SECRET, algorithm="HS256")
    policy = IssuerPolicy(ISSUER, POLICY.audiences, ("HS256",))
    key = VerificationKey(None, frozenset({"HS256"}), SECRET)
    assert tokens.verify(tokens.peek(token), policy, key, NOW).account == "alice"
    assert reason(token[:-4] + "AAAA", key, policy) == "token_signature"


def test_peeking_tells_issuer_key_and_algorithm_and_hides_the_token() -> None:
    unverified = tokens.peek(GOOD)
    assert (unverified.issuer, unverified.kid, unverified.algorithm) == (ISSUER, "k1", "ES256")
    assert "alice" not in repr(unverified)
    assert GOOD[-20:] not in repr(unverified)
    assert tokens.peek(forge({"alg": "ES256"})).kid is None


HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "abc",
        f"{HEADER}.{PAYLOAD}",
        f"{HEADER}.{PAYLOAD}.",
        f".{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}..{SIGNATURE}",
        f"{GOOD}.",
        f"{GOOD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{PAYLOAD}.{SIGNATURE}",
        f"{GOOD}==",
        f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{HEADER}.{PAYLOAD}\n.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-1]}é",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE[:10]}!{SIGNATURE[10:]}",
        f"{HEADER}.{PAYLOAD}.+{SIGNATURE[1:]}",
        f"{HEADER}.{PAYLOAD}./{SIGNATURE[1:]}",
        f"{HEADER}.{PAYLOAD}.A",
        f"{HEADER}.{PAYLOAD}.AB",
        f"{HEADER}.{PAYLOAD}.\ud800",
        json.dumps({"payload": PAYLOAD, "signatures": [{"protected": HEADER, "signature": SIGNATURE}]}),
    ],
)
def test_what_is_no_compact_jws_is_malformed(token: str) -> None:
    assert reason(token) == "token_malformed"


@pytest.mark.parametrize("last", "BCDEFGHIJKLMNOP")
def test_unused_bits_of_the_last_character_are_no_room_for_variants(last: str) -> None:
    """64 octets leave four unused bits: 16 spellings of one signature, one of them canonical."""
    assert SIGNATURE[-1] in "AQgw"
    variant = chr(ord(SIGNATURE[-1]) + ord(last) - ord("A"))
    assert reason(GOOD[:-1] + variant) == "token_malformed"


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b'{"iss":"a","iss":"b","alg":"ES256","alg":"ES256"}',
        b'\xef\xbb\xbf{"alg":"ES256"}',
        '{"alg":"ES256"}'.encode("utf-16"),
        b'{"alg":"ES256"}\x00',
        b'{"exp":NaN}',
        b'{"exp":1e400}',
        b'{"a":' * 20 + b"1" + b"}" * 20,
    ],
)
def test_header_and_payload_are_strict_json_objects(part: bytes) -> None:
    assert reason(forge(part)) == "token_malformed"
    assert reason(forge({"alg": "ES256"}, part)) == "token_malformed"


def test_a_token_too_long_is_refused_unread() -> None:
    assert reason("x" * 8193) == "token_too_long"
    assert reason("x" * 8192) == "token_malformed"


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_types_of_access_tokens_are_accepted(typ: str) -> None:
    assert judge(forge({"alg": "ES256", "typ": typ})).account == "alice"


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "dpop+jwt"},
        {"typ": "logout+jwt"},
        {"typ": ""},
        {"typ": None},
        {"typ": ["JWT"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"b64": True},
        {"zip": "DEF"},
        {"jku": "https://evil.example/jwks.json"},
        {"jwk": json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(EC_KEYS["ES256"].public_key()))},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["MIIB"]},
        {"kid": ""},
        {"kid": None},
        {"kid": 1},
        {"kid": ["k1"]},
        {"kid": "k" * 129},
        {"kid": "k\u0000"},
        {"kid": "k\n1"},
    ],
)
def test_a_header_that_says_too_much_is_refused(header: dict[str, Any]) -> None:
    assert reason(forge({"alg": "ES256", **header})) == "token_header"


@pytest.mark.parametrize(
    "alg", [None, "", "none", "None", "NONE", "nOnE", "es256", "ES256 ", "HS384", "ES521", "RSA-OAEP", 1, ["ES256"], {}]
)
def test_an_algorithm_we_do_not_know_is_refused(alg: Any) -> None:
    assert reason(forge({"alg": alg})) == "token_algorithm"


def test_a_missing_algorithm_is_refused() -> None:
    assert reason(forge({"typ": "JWT"})) == "token_algorithm"


def test_an_unsigned_token_is_refused() -> None:
    assert reason(f"{encode({'alg': 'none'})}.{encode(CLAIMS)}.") == "token_algorithm"


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


@pytest.mark.parametrize("iss", [None, 1, ["https://idp.example"]])
def test_a_token_that_names_no_issuer_is_nobodys(iss: Any) -> None:
    assert reason(forge({"alg": "ES256"}, CLAIMS | {"iss": iss})) == "token_issuer"
    assert reason(forge({"alg": "ES256"}, {"sub": "alice"})) == "token_issuer"


def test_claims_count_only_after_the_signature() -> None:
    expired = forge({"alg": "ES256"}, CLAIMS | {"exp": NOW - 600})
    assert reason(expired) == "token_expired"
    assert reason(expired[:-20] + "A" * 20) in {"token_signature", "token_malformed"}
    with pytest.raises(AccountUnusable):
        judge(forge({"alg": "ES256"}, CLAIMS | {"sub": "a b"}))


def test_every_truncation_is_refused() -> None:
    for end in range(len(GOOD)):
        with pytest.raises(InvalidToken):
            judge(GOOD[:end])


def test_every_change_of_one_character_is_refused() -> None:
    rng = random.Random(20261123)  # noqa: S311 - a seed makes the same mutations every time
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    for position, character in enumerate(GOOD):
        replacement = rng.choice(alphabet.replace(character, ""))
        with pytest.raises(InvalidToken):
            judge(GOOD[:position] + replacement + GOOD[position + 1 :])


@given(st.text(max_size=60) | st.text(alphabet="eyJhbGci._-=", max_size=60))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        judge(text)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_parts_are_a_token_or_refused(header: bytes, payload: bytes) -> None:
    with pytest.raises(InvalidToken):
        judge(forge(header, payload))
