"""Where does an issuer keep its keys, and for how long may they be kept?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from sidecar.denials import InvalidJson, InvalidRequest
from sidecar.policy import strictjson
from sidecar.policy.claims import mismatch
from sidecar.policy.keysets import KeySetError

_MAX_DEPTH: Final = 16
_MIN_LIFETIME_S: Final = 60
_MAX_LIFETIME_S: Final = 3600
_DEFAULT_LIFETIME_S: Final = 300
_MAX_AGE = re.compile(r'(?:^|[,\s])max-age\s*=\s*"?([0-9]{1,10})(?![0-9])', re.ASCII | re.IGNORECASE)


def urls(issuer: str) -> tuple[str, str]:
    """Return where its metadata may be: RFC 8414 section 3.1, then OpenID Connect Discovery 1.0 section 4.1."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    )


def read(document: bytes, issuer: str) -> Mapping[str, Any]:
    """Return an issuer's metadata (RFC 8414 section 2).

    Raises:
        KeySetError: not metadata, or another issuer's (RFC 8414 section 3.3).
    """
    try:
        metadata = strictjson.loads(document, max_depth=_MAX_DEPTH)
    except (InvalidJson, InvalidRequest) as error:
        raise KeySetError(f"metadata: not a JSON document: {error.reason}") from error
    if not isinstance(metadata, dict):
        raise KeySetError("metadata: not a JSON object")
    if metadata.get("issuer") != issuer:
        raise KeySetError(f"metadata: {mismatch('issuer', metadata.get('issuer'), [issuer])}")
    return metadata


def jwks_uri(document: bytes, issuer: str) -> str:
    """Return the address of the key set from an issuer's metadata (RFC 8414 section 2).

    Raises:
        KeySetError: not metadata of this issuer, or an address that can't be trusted.
    """
    address = read(document, issuer).get("jwks_uri")
    if not isinstance(address, str) or not is_as_safe(address, issuer):
        raise KeySetError("metadata: jwks_uri is not an http(s) address, or falls back from https to http")
    return address


def lifetime_s(cache_control: str | None) -> float:
    """Return how long a key set may be used before it is fetched again: 60 to 3600 s (RFC 9111 section 5.2.2)."""
    if cache_control is None:
        return _DEFAULT_LIFETIME_S
    if "no-store" in cache_control.lower() or "no-cache" in cache_control.lower():
        return _MIN_LIFETIME_S
    named = _MAX_AGE.search(cache_control)
    if named is None:
        return _DEFAULT_LIFETIME_S
    return min(max(int(named[1]), _MIN_LIFETIME_S), _MAX_LIFETIME_S)


def is_as_safe(address: str, issuer: str) -> bool:
    """Tell whether this is an http(s) address that gives away nothing the issuer's own https protects."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    if not parts.netloc or "@" in parts.netloc or not address.isascii() or not address.isprintable():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and urlsplit(issuer).scheme == "http")
