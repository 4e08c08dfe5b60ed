"""Tokens made by hand: signed with real keys, whatever they say."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecar.denials import InvalidToken
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
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


def judge(token: str, algorithm: str = "ES256", policy: IssuerPolicy = POLICY) -> Principal:
    return tokens.verify(tokens.peek(token), policy, public(algorithm), NOW)


def reason(token: str, key: VerificationKey | None = None, policy: IssuerPolicy = POLICY) -> str:
    with pytest.raises(InvalidToken) as refused:
        tokens.verify(tokens.peek(token), policy, key or public("ES256"), NOW)
    return refused.value.reason
