from __future__ import annotations

import json
import random
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import AccountUnusable, InvalidToken
from sidecar.policy import tokens
from tests.forging import (
    CLAIMS,
    EC_KEYS,
    GOOD,
    HEADER,
    ISSUER,
    NOW,
    PAYLOAD,
    SIGNATURE,
    encode,
    forge,
    judge,
    reason,
)


def test_peeking_tells_issuer_key_and_algorithm_and_hides_the_token() -> None:
    unverified = tokens.peek(GOOD)
    assert (unverified.issuer, unverified.kid, unverified.algorithm) == (ISSUER, "k1", "ES256")
    assert "alice" not in repr(unverified)
    assert GOOD[-20:] not in repr(unverified)
    assert tokens.peek(forge({"alg": "ES256"})).kid is None


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
