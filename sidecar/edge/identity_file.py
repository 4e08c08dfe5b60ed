"""The identity key that is made at first start and kept beside the embedded store."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.model import IdentityKey

Algorithm = Literal["ed25519", "hmac-sha256"]

_SECRET_BYTES: Final = 32


def kept(directory: Path, algorithm: Algorithm) -> IdentityKey | None:
    """Return the key kept in this directory, or None when none was made yet.

    Raises:
        OSError: it can't be read.
        ValueError: the file holds something else.
    """
    return load_or_make(directory, algorithm) if _path(directory, algorithm).exists() else None


def load_or_make(directory: Path, algorithm: Algorithm) -> IdentityKey:
    """Return the key kept in this directory (file mode 0600), making one when there is none.

    Raises:
        OSError: it can't be read or written.
        ValueError: the file holds something else.
    """
    path = _path(directory, algorithm)
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        secret = _make(path, algorithm)
    if len(secret) != _SECRET_BYTES:
        raise ValueError(f"{path} does not hold a key of {_SECRET_BYTES} bytes; remove it to have a new one made")
    return IdentityKey(_name(secret, algorithm), algorithm, secret)


def _path(directory: Path, algorithm: Algorithm) -> Path:
    return directory / f"identity-{algorithm}.key"


def _make(path: Path, algorithm: Algorithm) -> bytes:
    if algorithm == "ed25519":
        secret = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
    else:
        secret = secrets.token_bytes(_SECRET_BYTES)
    # Written aside and linked into place: a crash leaves a whole key or none, and of two makers one wins.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return path.read_bytes()
    finally:
        draft.unlink(missing_ok=True)
    return secret


def _name(secret: bytes, algorithm: Algorithm) -> str:
    return f"{algorithm}-{hashlib.sha256(b'key id' + secret).hexdigest()[:12]}"
