"""Which keys may have signed audit records, and does a signature belong to what it stands under?"""

from __future__ import annotations

import hmac
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.model import IdentityKey
from sidecar.policy.identity import sealer

Proves = Callable[[bytes, bytes], bool]
"""Does this signature belong to these bytes?"""


class KeySetUnusable(ValueError):  # noqa: N818 - named for what is wrong
    """What should be a JWK set holds no key that signatures of the audit could be checked with."""


def proving(keys: Iterable[IdentityKey]) -> dict[str, Proves]:
    """Return what checks signatures of keys that are at hand."""
    return {key.id: _public(key) if key.algorithm == "ed25519" else _shared(key) for key in keys}


def read_key_set(data: bytes) -> dict[str, Proves]:
    """Return what checks signatures by the keys of a JWK set (RFC 7517): Ed25519 (RFC 8037) and shared secrets.

    Raises:
        KeySetUnusable: it is no JWK set, or has no such key with an id.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = None
    keys = document.get("keys") if isinstance(document, dict) else None
    found = {}
    for jwk in keys if isinstance(keys, list) else []:
        if isinstance(jwk, dict) and isinstance(jwk.get("kid"), str) and (proves := _of_jwk(jwk)) is not None:
            found[jwk["kid"]] = proves
    if not found:
        raise KeySetUnusable("a JWK set with an Ed25519 key (kty OKP) or a shared secret (kty oct), each with its kid")
    return found


def _of_jwk(jwk: Mapping[str, Any]) -> Proves | None:
    member = {"OKP": "x", "oct": "k"}.get(str(jwk.get("kty")), "")
    text = jwk.get(member)
    try:
        raw = b64decode(str(text) + "=" * (-len(str(text)) % 4), altchars=b"-_", validate=True)
        if member == "x":
            return _verifies(Ed25519PublicKey.from_public_bytes(raw))
        return _shared(IdentityKey(str(jwk["kid"]), "hmac-sha256", raw)) if member else None
    except ValueError:  # of base64, or of the key
        return None


def _public(key: IdentityKey) -> Proves:
    return _verifies(Ed25519PrivateKey.from_private_bytes(key.secret).public_key())


def _verifies(key: Ed25519PublicKey) -> Proves:
    def proves(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return proves


def _shared(key: IdentityKey) -> Proves:
    seal = sealer(key)
    return lambda signature, data: hmac.compare_digest(signature, seal(data))
