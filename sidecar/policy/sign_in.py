"""Where and how does a person sign in at the issuer? Its endpoints, and what its tokens have to be for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sidecar.policy import issuer_metadata
from sidecar.policy.keysets import KeySetError

_ADDRESS: Final = re.compile(r"(https?://[A-Za-z0-9.-]{1,255}(?::[0-9]{1,5})?)(?:[/?][^#]*)?")
"""An address whose origin can stand in a Content-Security-Policy, where ``;`` or ``'`` would mean something. No policy
knows IPv6 addresses (CSP 3 section 2.3.1, host-char)."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What an issuer's metadata says of signing in (RFC 8414 section 2, OpenID Connect RP-Initiated Logout 1.0)."""

    issuer: str
    authorization: str
    token: str
    revocation: str | None
    end_session: str | None
    names_itself: bool
    """Whether it says in its answers who it is, so that one without that is another's (RFC 9207 section 2.4)."""

    @property
    def asked_by_pages(self) -> tuple[str, ...]:
        """The origins that our pages ask by themselves; each once. To the others the person goes."""
        asked = (self.token, *(() if self.revocation is None else (self.revocation,)))
        return tuple(dict.fromkeys(origin(address) for address in asked))


def endpoints(document: bytes, issuer: str) -> Endpoints:
    """Read an issuer's metadata for who wants to sign in.

    Raises:
        KeySetError: not this issuer's metadata, an endpoint that is missing or can't be trusted, or a sign-in that is
            not protected against stolen codes: it names its methods of PKCE, and S256 is not among them.
    """
    metadata = issuer_metadata.read(document, issuer)
    methods = metadata.get("code_challenge_methods_supported")
    if methods is not None and not (isinstance(methods, list) and "S256" in methods):
        raise KeySetError("metadata: code_challenge_methods_supported does not name S256")
    authorization = _usable(metadata.get("authorization_endpoint"), issuer)
    token = _usable(metadata.get("token_endpoint"), issuer)
    if authorization is None or token is None:
        raise KeySetError("metadata: no authorization_endpoint and token_endpoint that can be used")
    return Endpoints(
        issuer,
        authorization,
        token,
        _usable(metadata.get("revocation_endpoint"), issuer),
        _usable(metadata.get("end_session_endpoint"), issuer),
        metadata.get("authorization_response_iss_parameter_supported") is True,
    )


def origin(address: str) -> str:
    """Return the origin of an endpoint's address."""
    match = _ADDRESS.fullmatch(address)
    return "" if match is None else match[1].lower()


def resource(own: Iterable[str], audiences: tuple[str, ...]) -> str | None:
    """Return what tokens have to be for, as the issuer is asked for it (RFC 8707 section 2).

    That is one of our `own` URLs if the issuer's tokens may name it, else the first of their audiences that is a URL.
    None where no audience is one: an issuer that goes by other names decides by client or scope.
    """
    named = [*(url for url in own if url in audiences), *(name for name in audiences if _ADDRESS.fullmatch(name))]
    return named[0] if named else None


def _usable(address: Any, issuer: str) -> str | None:
    if not isinstance(address, str) or not issuer_metadata.is_as_safe(address, issuer):
        return None
    return address if _ADDRESS.fullmatch(address) else None
