"""May this one key verify tokens, and by which algorithms?"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from sidecar.model import VerificationKey

Jwk = Mapping[str, Any]

_MAX_KID: Final = 128
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[str, tuple[ec.EllipticCurve, str]]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
    "P-521": (ec.SECP521R1(), "ES512"),
    "secp256k1": (ec.SECP256K1(), "ES256K"),
}
_EDWARDS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "Ed25519": ed25519.Ed25519PublicKey.from_public_bytes,
    "Ed448": ed448.Ed448PublicKey.from_public_bytes,
}
_ED25519_PRIME: Final = 2**255 - 19
_ED25519_OF_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_ED448_PRIME: Final = 2**448 - 2**224 - 1
_SMALL_ORDER: Final[Mapping[str, tuple[int, frozenset[int]]]] = {
    "Ed25519": (
        _ED25519_PRIME,
        frozenset({0, 1, _ED25519_PRIME - 1, _ED25519_OF_ORDER_8, _ED25519_PRIME - _ED25519_OF_ORDER_8}),
    ),
    "Ed448": (_ED448_PRIME, frozenset({0, 1, _ED448_PRIME - 1})),
}
"""Curve -> its prime, and the y of every point whose order divides the cofactor."""
_POWERS_OF_65537: Final = tuple(
    (prime, frozenset(pow(65537, exponent, prime) for exponent in range(prime)))
    for prime in range(3, 168)
    if all(prime % divisor for divisor in range(2, prime))
)


class UnusableKey(Exception):  # noqa: N818 - a judgement on one key, not an error of the program
    """Says why a key is not used to verify tokens."""


def verification_key(jwk: Any) -> VerificationKey:
    """Make a key of one member of a key set (RFC 7517 section 4).

    Raises:
        UnusableKey: meant for something else, weak, mistyped, unknown, or holding a private key.
    """
    if not isinstance(jwk, dict):
        raise UnusableKey("not an object")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise UnusableKey("carries a private or shared key, which is no secret any more")
    _require_verifying(jwk)
    kid = _kid(jwk)
    reader = _READERS.get(jwk["kty"]) if isinstance(jwk.get("kty"), str) else None
    if reader is None:
        raise UnusableKey("kty is none of RSA, EC, OKP")
    try:
        public_key, algorithms = reader(jwk)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey("not a valid public key") from error
    if "alg" in jwk:
        algorithms = algorithms & {jwk["alg"]} if isinstance(jwk["alg"], str) else frozenset()
    if not algorithms:
        raise UnusableKey("alg does not fit the key")
    return VerificationKey(kid, algorithms, public_key)


def _kid(jwk: Jwk) -> str | None:
    kid = jwk.get("kid", "-")
    if not isinstance(kid, str) or not 1 <= len(kid) <= _MAX_KID or not kid.isprintable():
        raise UnusableKey("kid is not a string of 1 to 128 printable characters")
    return kid if "kid" in jwk else None


def _require_verifying(jwk: Jwk) -> None:
    """RFC 7517 sections 4.2 and 4.3: what is meant for something else is not ours to verify with."""
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("not for verifying signatures")


def _read_rsa(jwk: Jwk) -> tuple[Any, frozenset[str]]:
    modulus, exponent = (int.from_bytes(_octets(jwk, name)) for name in ("n", "e"))
    if not 2048 <= modulus.bit_length() <= 16384:
        raise UnusableKey(f"RSA key of {modulus.bit_length()} bits, not 2048 to 16384")
    if modulus % 2 == 0 or _has_roca_fingerprint(modulus):
        raise UnusableKey("RSA modulus that can be factored")
    if not 65537 <= exponent < 2**32:
        raise UnusableKey("RSA exponent below 65537 or above 32 bits")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key(), _RSA_ALGORITHMS


def _read_ec(jwk: Jwk) -> tuple[Any, frozenset[str]]:
    named = _CURVES.get(_curve_name(jwk))
    if named is None:
        raise UnusableKey("crv is none of " + ", ".join(_CURVES))
    curve, algorithm = named
    x, y = _octets(jwk, "x"), _octets(jwk, "y")
    if len(x) != len(y) or len(x) != (curve.key_size + 7) // 8:
        raise UnusableKey("coordinates of the wrong length")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve)
    return numbers.public_key(), frozenset({algorithm})


def _read_okp(jwk: Jwk) -> tuple[Any, frozenset[str]]:
    curve = _curve_name(jwk)
    from_octets = _EDWARDS.get(curve)
    if from_octets is None:
        raise UnusableKey("crv is none of " + ", ".join(_EDWARDS))
    octets = _octets(jwk, "x")
    public_key = from_octets(octets)
    prime, weak = _SMALL_ORDER[curve]
    y = int.from_bytes(octets, "little") & ~(0x80 << 8 * (len(octets) - 1))  # the highest bit is the sign of x
    if y % prime in weak:
        raise UnusableKey("a point of small order, for which anybody can sign")
    return public_key, frozenset({"EdDSA"})


_READERS: Final[Mapping[str, Callable[[Jwk], tuple[Any, frozenset[str]]]]] = {
    "RSA": _read_rsa,
    "EC": _read_ec,
    "OKP": _read_okp,
}


def _curve_name(jwk: Jwk) -> str:
    name = jwk.get("crv")
    return name if isinstance(name, str) else ""


def _octets(jwk: Jwk, name: str) -> bytes:
    """Read a member that is base64url without padding (RFC 7518 section 2)."""
    text = jwk.get(name)
    if not isinstance(text, str):
        raise UnusableKey(f"{name} is missing or no string")
    try:
        encoded = text.encode("ascii")
        octets = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise UnusableKey(f"{name} is not base64url") from error
    if base64.urlsafe_b64encode(octets).rstrip(b"=") != encoded:
        raise UnusableKey(f"{name} is not base64url")
    return octets


def _has_roca_fingerprint(modulus: int) -> bool:
    """Tell whether a faulty chip made this modulus (CVE-2017-15361), so that it can be factored.

    Such a modulus is a power of 65537 modulo every small prime; one in some 2**27 others is too.
    """
    return all(modulus % prime in powers for prime, powers in _POWERS_OF_65537)
