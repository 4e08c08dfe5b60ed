"""The classes of forged signatures that Wycheproof's vectors for JWS consist of, made here with keys of our own.

https://github.com/C2SP/wycheproof, testvectors_v1/json_web_signature_test.json: the names are
its flags. What other tests hold one by one (DER, unused bits, key strength) is not repeated.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import pytest

from sidecar.policy.tokens import IssuerPolicy
from tests.forging import (
    CLAIMS,
    ED_KEY,
    HEADER,
    PAYLOAD,
    POLICY,
    RSA_KEY,
    SIGNATURE,
    encode,
    es256,
    judge,
    public,
    reason,
)

OCTETS = 256
SIGNED = f"{encode({'alg': 'RS256'})}.{encode(CLAIMS)}"
DIGEST = hashlib.sha256(SIGNED.encode()).digest()
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""DigestInfo up to the digest (RFC 8017 section 9.2, note 1)."""
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def padded(content: bytes, *, head: bytes = b"\x00\x01", fill: bytes = b"\xff", separator: bytes = b"\x00") -> bytes:
    """Encode as PKCS #1 v1.5 does; the other arguments do it wrongly."""
    return head + fill * (OCTETS - len(head) - len(separator) - len(content)) + separator + content


def rsa_signature(encoded: bytes) -> bytes:
    """Apply the private key to whatever this is."""
    numbers = RSA_KEY.private_numbers()
    modulus = numbers.public_numbers.n
    return pow(int.from_bytes(encoded) % modulus, numbers.d, modulus).to_bytes(OCTETS)


GOOD = padded(SHA256_INFO + DIGEST)


def modified_paddings() -> Iterator[tuple[str, bytes]]:
    """Yield what Wycheproof calls ModifiedPkcs1Padding."""
    info = SHA256_INFO + DIGEST
    yield "no NULL parameters", padded(bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + DIGEST)
    yield "a length in long form", padded(bytes.fromhex("308131300d060960864801650304020105000420") + DIGEST)
    yield "NULL with content", padded(bytes.fromhex("3032300e06096086480165030402010501000420") + DIGEST)
    yield "the name of SHA-1", padded(bytes.fromhex("302d300906052b0e03021a05000420") + DIGEST)
    yield "the name of SHA-512", padded(bytes.fromhex("3031300d060960864801650304020305000420") + DIGEST)
    yield "no digest info", padded(DIGEST)
    yield "a digest cut short", padded(info[:-1])
    yield "a digest and more", padded(info + b"\x00")
    yield "content after it (Bleichenbacher 2006)", (b"\x00\x01" + b"\xff" * 8 + b"\x00" + info).ljust(OCTETS, b"\x00")
    yield "no padding string", (b"\x00\x01\x00" + info).ljust(OCTETS, b"\x00")
    yield "nothing but the info, on the right", info.rjust(OCTETS, b"\x00")
    yield "block type 0", padded(info, head=b"\x00\x00", fill=b"\x00")
    yield "block type 2", padded(info, head=b"\x00\x02")
    yield "no leading zero", padded(info, head=b"\x01\x01")
    yield "a padding of zeros", padded(info, fill=b"\x00")
    yield "no separator", padded(info, separator=b"\xff")
    yield "two separators", padded(info, separator=b"\x00\x00")
    yield "zero", bytes(OCTETS)
    yield "one", b"\x01".rjust(OCTETS, b"\x00")
    for place in (0, 1, 2, 100, *range(OCTETS - len(info) - 1, OCTETS, 3)):
        yield f"byte {place} changed", GOOD[:place] + bytes([GOOD[place] ^ 0x80]) + GOOD[place + 1 :]


def test_the_control_verifies() -> None:
    """Shows that the refusals below are of the padding."""
    assert judge(f"{SIGNED}.{encode(rsa_signature(GOOD))}", "RS256").account == "alice"


@pytest.mark.parametrize("encoded", [pytest.param(each, id=name) for name, each in modified_paddings()])
def test_a_modified_pkcs1_padding_is_refused(encoded: bytes) -> None:
    assert reason(f"{SIGNED}.{encode(rsa_signature(encoded))}", public("RS256")) == "token_signature"


def test_an_rsa_signature_has_one_length_and_one_value() -> None:
    good = rsa_signature(GOOD)
    plus_modulus = (int.from_bytes(good) + RSA_KEY.public_key().public_numbers().n).to_bytes(OCTETS + 1)
    for forged in (b"\x00" + good, plus_modulus, plus_modulus.lstrip(b"\x00"), good[::-1], GOOD):
        assert reason(f"{SIGNED}.{encode(forged)}", public("RS256")) == "token_signature"


def es256_values() -> Iterator[tuple[str, int, int]]:
    """Yield what Wycheproof calls SpecialCaseEs256, of a good signature's two numbers."""
    raw = es256(f"{HEADER}.{PAYLOAD}")
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    yield "swapped", s, r
    yield "r for s", r, r
    yield "s is 0", r, 0
    yield "r is 0", 0, s
    yield "s is 1", r, 1
    yield "r is the order", P256_ORDER, s
    yield "s is the order", r, P256_ORDER
    yield "s is the order less one", r, P256_ORDER - 1
    yield "r and s of all bits", 2**256 - 1, 2**256 - 1
    yield "r negated", P256_ORDER - r, s


@pytest.mark.parametrize(("r", "s"), [pytest.param(r, s, id=name) for name, r, s in es256_values()])
def test_a_special_case_of_es256_is_refused(r: int, s: int) -> None:
    forged = r.to_bytes(32) + s.to_bytes(32)
    assert reason(f"{HEADER}.{PAYLOAD}.{encode(forged)}") == "token_signature"


def test_the_one_other_value_of_an_ecdsa_signature_proves_as_much() -> None:
    """(r, n - s) verifies too, by the algorithm. So nothing here may take a token's text for its identity."""
    raw = es256(f"{HEADER}.{PAYLOAD}")
    other = raw[:32] + (P256_ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    assert judge(f"{HEADER}.{PAYLOAD}.{encode(other)}").account == "alice"


def test_an_eddsa_signature_has_one_value() -> None:
    """RFC 8032 section 5.1.7: S is below the order."""
    signed = f"{encode({'alg': 'EdDSA'})}.{encode(CLAIMS)}"
    good = ED_KEY.sign(signed.encode())
    assert judge(f"{signed}.{encode(good)}", "EdDSA").account == "alice"
    larger = good[:32] + (int.from_bytes(good[32:], "little") + ED25519_ORDER).to_bytes(32, "little")
    for forged in (larger, bytes(64), good[:32] + bytes(32), bytes(32) + good[32:], good[:-1], good + b"\x00"):
        assert reason(f"{signed}.{encode(forged)}", public("EdDSA")) == "token_signature"


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", " ES256", "es256", "ES256 ", "HS512", "RSA1_5", "dir"]
)
@pytest.mark.parametrize("signature", ["AA", SIGNATURE])
def test_no_algorithm_and_other_primitives_are_refused(alg: str, signature: str) -> None:
    """AlgIsNone and WrongPrimitive."""
    assert reason(f"{encode({'alg': alg})}.{PAYLOAD}.{signature}") == "token_algorithm"


def test_a_token_that_is_keyed_with_the_numbers_of_the_public_key_is_refused() -> None:
    either = IssuerPolicy(POLICY.issuer, POLICY.audiences, ("RS256", "HS256"))
    signed = f"{encode({'alg': 'HS256'})}.{encode(CLAIMS)}"
    for secret in (RSA_KEY.public_key().public_numbers().n.to_bytes(OCTETS), b"", b"\x00"):
        forged = hmac.digest(secret, signed.encode(), "sha256")
        assert reason(f"{signed}.{encode(forged)}", public("RS256"), either) == "token_algorithm"
