"""What the files that settings name may hold. What is secret in them is in no message."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.config.document import Entry, Refused
from sidecar.config.values import text
from sidecar.policy import keysets

MIN_SECRET_BYTES: Final = 32

_path = text(4096, "a path")


def key_set_file(entry: Entry) -> str:
    """Check a JWK set (RFC 7517 section 5). It is read again when it changes, so what stays is its path."""
    try:
        keysets.read(content(entry))
    except keysets.KeySetError as error:
        raise Refused(f"must name a file with a JWK set that has a usable key: {error}") from None
    return _path(entry)


def shared_secret_file(entry: Entry) -> bytes:
    """The file's bytes but for one line end after them."""
    found = content(entry)
    secret = found[:-2] if found.endswith(b"\r\n") else found.removesuffix(b"\n")
    try:
        keysets.shared_secret(secret)
    except keysets.KeySetError as error:
        raise Refused(f"must name a file with a shared secret: {error}") from None
    return secret


def base64_secret_file(entry: Entry) -> bytes:
    """Base64 (RFC 4648 section 4) of the secret; white space does not count."""
    try:
        secret = base64.b64decode(b"".join(content(entry).split()), validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) < MIN_SECRET_BYTES:
        raise Refused(
            f"must name a file with the base64 of {MIN_SECRET_BYTES} bytes or more; "
            "make one with: openssl rand -base64 32 > FILE"
        )
    return secret


def ed25519_key_file(entry: Entry) -> bytes:
    """An Ed25519 private key in PEM (PKCS#8, RFC 8410 section 7), as its 32 bytes."""
    try:
        key = load_pem_private_key(content(entry), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Refused(
            "must name a file with an Ed25519 private key in PEM (PKCS#8) without a passphrase; "
            "make one with: openssl genpkey -algorithm ed25519 -out FILE"
        )
    return key.private_bytes_raw()


def content(entry: Entry) -> bytes:
    """Return what is in the file that an entry names; an empty one is refused."""
    try:
        found = entry.document.read_file(_path(entry))
    except FileNotFoundError:
        raise Refused(
            f"names a file that does not exist: {entry.shown} (paths are relative to the working directory)"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise Refused(f"names a file that can't be read: {entry.shown}: {reason or type(error).__name__}") from None
    if not found.strip():
        raise Refused("names a file that is empty")
    return found
