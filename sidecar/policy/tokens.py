"""Is this JWT good for us, given a key and the time? Pure: no clock, no key fetching, no log."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from sidecar.denials import InvalidJson, InvalidRequest, InvalidToken
from sidecar.model import Principal, VerificationKey
from sidecar.policy import claims, strictjson
from sidecar.policy.claims import IssuerPolicy, brief, credential_id, token_id

__all__ = ["IssuerPolicy", "UnverifiedToken", "credential_id", "peek", "token_id", "verify"]

_MAX_TOKEN: Final = 8192
_MAX_KID: Final = 128
_MAX_HEADER_DEPTH: Final = 4
_MAX_CLAIMS_DEPTH: Final = 16
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""RFC 9068 section 2.1; many issuers say plain JWT."""
_REFUSED_PARAMETERS: Final = frozenset({"crit", "b64", "zip", "jku", "jwk", "x5u", "x5c"})
"""Header parameters that bring their own key or change how the rest is read (RFC 8725 sections 3.8 to 3.10)."""
_ALGORITHMS: Final = {
    name: jwt.get_algorithm_by_name(name)
    for name in (
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES256K", "ES384", "ES512", "EdDSA", "HS256"),
    )
}


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A well-formed token. Nothing in it is true until `verify` says so."""

    token: str = field(repr=False)
    issuer: str
    kid: str | None
    algorithm: str
    claims: Mapping[str, Any] = field(repr=False)
    signature: bytes = field(repr=False)


def peek(token: str) -> UnverifiedToken:
    """Take a compact JWS apart (RFC 7515 section 3.1), to learn which issuer and key it asks for.

    Raises:
        InvalidToken: anything unusual about it.
    """
    if len(token) > _MAX_TOKEN:
        raise InvalidToken("token_too_long", detail=f"{len(token)} characters")
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken("token_malformed", detail=f"{len(parts)} parts")
    header = _document("header", parts[0], _MAX_HEADER_DEPTH)
    algorithm, kid = _judge_header(header)
    payload = _document("payload", parts[1], _MAX_CLAIMS_DEPTH)
    issuer = payload.get("iss")
    if not isinstance(issuer, str):
        raise InvalidToken("token_issuer", detail="iss is missing or no string")
    return UnverifiedToken(token, issuer, kid, algorithm, payload, _decode("signature", parts[2]))


def verify(unverified: UnverifiedToken, policy: IssuerPolicy, key: VerificationKey, now: float) -> Principal:
    """Return whom the token names, after its signature and all of its claims have been judged.

    Raises:
        InvalidToken: the signature is not this key's, or the claims are not good for us now.
        AccountUnusable: a good token for an account or subject that can't be written into a header.
    """
    _require_signature(unverified, policy, key)
    return claims.principal(unverified.claims, policy, now)


def _require_signature(unverified: UnverifiedToken, policy: IssuerPolicy, key: VerificationKey) -> None:
    name = unverified.algorithm
    algorithm = _ALGORITHMS.get(name)
    if algorithm is None or name not in policy.algorithms or name not in key.algorithms:
        raise InvalidToken("token_algorithm", detail=f"alg is {brief(name)}")
    if isinstance(key.key, bytes) != (name == "HS256"):
        raise InvalidToken("token_key", detail="a shared secret is for HS256 and for nothing else")
    signed = unverified.token.rpartition(".")[0].encode("ascii")
    try:
        good = algorithm.verify(signed, algorithm.prepare_key(key.key), unverified.signature)
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        raise InvalidToken("token_key", detail=f"the key does not fit {name}") from error
    if not good:
        raise InvalidToken("token_signature", detail=f"alg {name}, kid {brief(unverified.kid)}")


def _document(part_name: str, part: str, max_depth: int) -> dict[str, Any]:
    try:
        document = strictjson.loads(_decode(part_name, part), max_depth=max_depth)
    except (InvalidJson, InvalidRequest) as error:
        raise InvalidToken("token_malformed", detail=f"{part_name}: {error.reason}") from error
    if not isinstance(document, dict):
        raise InvalidToken("token_malformed", detail=f"{part_name}: not an object")
    return document


def _decode(part_name: str, part: str) -> bytes:
    """Decode base64url without padding (RFC 7515 section 2); a text that is not what encoding gives is refused."""
    try:
        encoded = part.encode("ascii")
        decoded = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidToken("token_malformed", detail=f"{part_name}: not base64url") from error
    if not decoded or base64.urlsafe_b64encode(decoded).rstrip(b"=") != encoded:
        raise InvalidToken("token_malformed", detail=f"{part_name}: not canonical base64url")
    return decoded


def _judge_header(header: dict[str, Any]) -> tuple[str, str | None]:
    """Return the algorithm and the key id."""
    if not _REFUSED_PARAMETERS.isdisjoint(header):
        named = ", ".join(sorted(_REFUSED_PARAMETERS.intersection(header)))
        raise InvalidToken("token_header", detail=f"header carries {named}")
    typ, algorithm, kid = header.get("typ", "JWT"), header.get("alg"), header.get("kid", "-")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        raise InvalidToken("token_header", detail=f"typ is {brief(typ)}")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise InvalidToken("token_algorithm", detail=f"alg is {brief(algorithm)}")
    if not isinstance(kid, str) or not 1 <= len(kid) <= _MAX_KID or not kid.isprintable():
        raise InvalidToken("token_header", detail="kid is not a string of 1 to 128 printable characters")
    return algorithm, kid if "kid" in header else None
