"""Whom does the upstream serve? The identity headers and their signature (RFC 9421)."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from binascii import b2a_base64
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeGuard

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from sidecar.model import CredentialKind, Headers, IdentityKey

IDENTITY_HEADERS: Final = ("X-Account-Id", "X-Account-Scopes", "X-Auth-Method", "X-Auth-Subject", "X-Request-Id")
"""In the order in which they are sent and signed."""

WIRE_NAMES: Final = {name: name.encode("ascii") for name in IDENTITY_HEADERS}
Lines = tuple[tuple[str, str], ...]
_REQUEST_ID: Final = IDENTITY_HEADERS[-1]

_ACCOUNT: Final = re.compile(r"[A-Za-z0-9._:|@+/=-]{1,128}")
_SUBJECT: Final = re.compile(r"[!-~]{1,255}")
_AUTHORITY: Final = re.compile(r"[!-@\[-~]+")
"""Visible ASCII without capitals (RFC 9421 section 2.2.3)."""
_QUOTABLE: Final = re.compile(r"[!#-\[\]-~]{1,128}")
"""What stands in a structured-field string without escapes (RFC 8941 section 3.3.3)."""
_MIN_SECRET_BYTES: Final = 32
"""Of SHA-256."""
_REMEMBERED: Final = 10_000


def usable_account(text: object) -> TypeGuard[str]:
    """Tell whether this can be an account: 1 to 128 of ``A-Z a-z 0-9 . _ : | @ + / = -``."""
    return isinstance(text, str) and _ACCOUNT.fullmatch(text) is not None


def usable_subject(text: object) -> TypeGuard[str]:
    """Tell whether this can be a subject: 1 to 255 visible ASCII characters (0x21 to 0x7E)."""
    return isinstance(text, str) and _SUBJECT.fullmatch(text) is not None


def identity_headers(
    *, account: str, scopes: tuple[str, ...], kind: CredentialKind, subject: str, request_id: str
) -> Lines:
    """Write down who the request is for. Without scopes there is no ``X-Account-Scopes``.

    Raises:
        ValueError: an account or subject that should never have come this far.
    """
    return (*_lasting_lines(account, scopes, kind, subject), ("X-Request-Id", request_id))


def content_digest(body: bytes) -> str:
    """Return the ``Content-Digest`` of a body (RFC 9530 section 2), by sha-256 alone."""
    return f"sha-256=:{_base64(hashlib.sha256(body).digest())}:"


class Signer:
    """Signs what the upstream gets, under the label ``sidecar`` and the tag ``mcp-sidecar`` (RFC 9421 section 3.1).

    The first key signs; the public halves of all are published, so that a new key can be made known before it is
    used. `authority` is the upstream's as its ``Host`` header has it: lower-case, without the scheme's default port.
    A signature is good for `ttl_s` seconds.

    Raises:
        ValueError: no keys, ids that are doubled or need quoting, key material or an authority that can't be used.
    """

    __slots__ = ("_authority", "_published", "_seal", "_tail", "_ttl_s")

    def __init__(self, keys: tuple[IdentityKey, ...], *, authority: str, ttl_s: int) -> None:
        if not keys or len({key.id for key in keys}) != len(keys):
            raise ValueError("identity keys: at least one is needed, each with its own id")
        if not all(_QUOTABLE.fullmatch(key.id) for key in keys):
            raise ValueError("identity keys: an id is 1 to 128 visible ASCII characters without quote and backslash")
        if not _AUTHORITY.fullmatch(authority) or ttl_s < 1:
            raise ValueError("identity: the authority must be in lower case, and ttl_s at least 1")
        seals = [sealer(key) for key in keys]
        self._seal = seals[0]
        self._published = tuple(_jwk(key) for key in keys if key.algorithm == "ed25519")
        self._tail = f'";keyid="{keys[0].id}";alg="{keys[0].algorithm}";tag="mcp-sidecar"'
        self._ttl_s = ttl_s
        self._authority = f'"@authority": {authority}\n'

    def sign(
        self,
        *,
        method: str,
        path: str,
        query: str | None,
        identity: Lines,
        digest: str | None,
        session_id: str | None,
        now: int,
        nonce: str,
    ) -> Lines:
        """Return the ``Signature-Input`` and ``Signature`` lines of one request.

        `path` and `query` are the raw target's, before and after the first ``?``; no query and an empty one sign
        alike (RFC 9421 section 2.2.7). `identity` holds any of `IDENTITY_HEADERS`, in that order, and always
        the last one; `digest` and `session_id` are the values of ``Content-Digest`` and ``Mcp-Session-Id``, None where
        that header is not sent.

        Raises:
            ValueError: a value that can't be signed as it stands: anything but printable ASCII.
        """
        if not identity or identity[-1][0] != _REQUEST_ID:
            raise ValueError("not identity headers in their order")
        request_id = identity[-1][1]
        told = f"{method}{path}{query}{digest}{request_id}{session_id}"
        if not (told.isascii() and told.isprintable() and _QUOTABLE.fullmatch(nonce)):
            raise ValueError("a value to be signed is not printable ASCII")
        components = '("@method" "@authority" "@path" "@query"'
        base = f'"@method": {method}\n{self._authority}"@path": {path or "/"}\n"@query": ?{query or ""}\n'
        if digest is not None:
            components, base = f'{components} "content-digest"', f'{base}"content-digest": {digest}\n'
        names, lines, _ = lasting(identity[:-1])
        components, base = f'{components}{names} "x-request-id"', f'{base}{lines}"x-request-id": {request_id}\n'
        if session_id is not None:
            components, base = f'{components} "mcp-session-id"', f'{base}"mcp-session-id": {session_id}\n'
        params = f'{components});created={now:d};expires={now + self._ttl_s:d};nonce="{nonce}{self._tail}'
        signature = _base64(self._seal(f'{base}"@signature-params": {params}'.encode()))
        return (("Signature-Input", f"sidecar={params}"), ("Signature", f"sidecar=:{signature}:"))

    def jwks(self) -> dict[str, Any]:
        """Return the JWK set (RFC 7517, RFC 8037) that verifies our signatures. Shared secrets are never in it."""
        return {"keys": [dict(jwk) for jwk in self._published]}


def sealer(key: IdentityKey) -> Callable[[bytes], bytes]:
    """Return what makes a signature of a signature base (RFC 9421 sections 3.3.3 and 3.3.6).

    Raises:
        ValueError: an Ed25519 key that is not 32 bytes, or a shared secret of fewer.
    """
    secret = key.secret
    if key.algorithm == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(secret).sign
    if len(secret) < _MIN_SECRET_BYTES:
        raise ValueError(f"identity key {key.id}: a shared secret has at least {_MIN_SECRET_BYTES} bytes")
    return _hmac_sha256(secret)


def _hmac_sha256(secret: bytes) -> Callable[[bytes], bytes]:
    """Return HMAC under this key, begun once for all messages as RFC 2104 section 4 recommends.

    By *cryptography*: the standard library's is Python around C and takes twice as long.
    """
    begun = HMAC(secret, SHA256())

    def seal(base: bytes) -> bytes:
        whole = begun.copy()
        whole.update(base)
        return whole.finalize()

    return seal


@lru_cache(maxsize=_REMEMBERED)
def _lasting_lines(account: str, scopes: tuple[str, ...], kind: CredentialKind, subject: str) -> Lines:
    """Return the lines that are the same on a principal's every request; remembered of those that came last."""
    if not (usable_account(account) and usable_subject(subject)):
        raise ValueError("unusable account or subject")
    lines = (("X-Auth-Method", kind), ("X-Auth-Subject", subject))
    if not scopes:
        return (("X-Account-Id", account), *lines)
    return (("X-Account-Id", account), ("X-Account-Scopes", " ".join(scopes)), *lines)


@lru_cache(maxsize=_REMEMBERED)
def lasting(identity: Lines) -> tuple[str, str, Headers]:
    """Return what is the same on a principal's every request, where `identity` is its headers but for the last one.

    That is: how they stand in the list of components, in the signature base (RFC 9421 section 2.5), and on the wire.
    Remembered under the lines themselves, of which it is a function, for the 10 000 that came last.

    Raises:
        ValueError: they are not in their order, or a value can't be signed as it stands.
    """
    names = [name for name, _ in identity]
    if names != [name for name in IDENTITY_HEADERS if name in names]:
        raise ValueError("not identity headers in their order")
    values = "".join([value for _, value in identity])
    if not (values.isascii() and values.isprintable()):
        raise ValueError("a value to be signed is not printable ASCII")
    return (
        "".join([f' "{name.lower()}"' for name in names]),
        "".join([f'"{name.lower()}": {value}\n' for name, value in identity]),
        tuple([(WIRE_NAMES[name], value.encode("ascii")) for name, value in identity]),
    )


def _jwk(key: IdentityKey) -> dict[str, str]:
    public = Ed25519PrivateKey.from_private_bytes(key.secret).public_key().public_bytes_raw()
    x = urlsafe_b64encode(public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": key.id, "alg": "EdDSA", "use": "sig"}


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()
