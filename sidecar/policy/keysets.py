"""Which of an issuer's keys may verify tokens, and which one verifies this token?"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import jwt

from sidecar.denials import InvalidJson, InvalidRequest
from sidecar.model import VerificationKey
from sidecar.policy import strictjson
from sidecar.policy.jwk import UnusableKey, verification_key

Keys = tuple[VerificationKey, ...]

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
_MAX_DEPTH: Final = 8
_MIN_SECRET_BYTES: Final = 32


class KeySetError(Exception):
    """The document is no key set, or holds no key that could verify a token."""


def read(document: bytes) -> tuple[Keys, tuple[str, ...]]:
    """Read a JWK set (RFC 7517 section 5): the usable keys, and what was left out and why.

    Left out are keys for anything but verifying, weak or mistyped ones, those that carry private members, and
    all that share a ``kid``.

    Raises:
        KeySetError: not a JWK set, larger than 1 MiB, or without a usable key.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise KeySetError(f"larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        key_set = strictjson.loads(document, max_depth=_MAX_DEPTH)
    except (InvalidJson, InvalidRequest) as error:
        raise KeySetError(f"not a JSON document: {error.reason}") from error
    if not isinstance(key_set, dict) or not isinstance(key_set.get("keys"), list):
        raise KeySetError("no object with a list of keys")
    keys, left_out = _sort_out(key_set["keys"])
    if not keys:
        raise KeySetError("no usable key" + "".join(f"; {reason}" for reason in left_out[:5]))
    return keys, left_out


def shared_secret(secret: bytes) -> VerificationKey:
    """Make the key of an issuer that signs with HS256 (RFC 7518 section 3.2).

    Raises:
        KeySetError: shorter than 32 bytes, or a public key by mistake: everybody could sign with that.
    """
    if len(secret) < _MIN_SECRET_BYTES:
        raise KeySetError(f"a shared secret needs {_MIN_SECRET_BYTES} bytes or more")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise KeySetError("this is a key of a key pair, not a shared secret") from error
    return VerificationKey(None, frozenset({"HS256"}), secret)


def find(keys: Keys, kid: str | None, algorithm: str) -> VerificationKey | None:
    """Return the one key that this token may have been signed with, or None."""
    fitting = [key for key in keys if algorithm in key.algorithms and (kid is None or key.kid == kid)]
    return fitting[0] if len(fitting) == 1 else None


def is_known(keys: Keys, kid: str | None, algorithm: str) -> bool:
    """Tell whether the set has an answer for such a token, be it that no key fits: fetching again would be no use."""
    return any(algorithm in key.algorithms if kid is None else key.kid == kid for key in keys)


def _sort_out(jwks: list[Any]) -> tuple[Keys, tuple[str, ...]]:
    usable: list[VerificationKey] = []
    left_out: list[str] = []
    for position, jwk in enumerate(jwks):
        try:
            usable.append(verification_key(jwk))
        except UnusableKey as reason:
            left_out.append(f"keys[{position}]: {reason}")
    doubled = {kid for kid, times in Counter(key.kid for key in usable).items() if kid is not None and times > 1}
    left_out.extend(f"kid {kid!a}: on several keys" for kid in sorted(doubled))
    return tuple(key for key in usable if key.kid not in doubled), tuple(left_out)
