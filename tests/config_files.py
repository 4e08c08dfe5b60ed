"""Loading settings in tests: text in, and either the `Config` or the places of its problems out."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from sidecar.config import Config, ConfigError, Problem, load

ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
P256 = ec.derive_private_key(7, ec.SECP256R1())
SECRET = b"correct horse battery staple, 32+"

FILES: Mapping[str, bytes] = {
    "identity.pem": ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "other.pem": Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ),
    "locked.pem": ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    "p256.pem": P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "identity.secret": base64.encodebytes(SECRET * 3),
    "short.secret": base64.b64encode(b"x" * 31),
    "not.base64": b"\xff\xfe*",
    "hs256": SECRET,
    "hs256-line": SECRET + b"\n",
    "hs256-crlf": SECRET + b"\r\n",
    "hs256-lines": SECRET + b"\n\n",
    "hs256-31": b"x" * 31 + b"\n",
    "hs256-32": b"x" * 32 + b"\n",
    "empty": b"\n",
    "jwks.json": json.dumps(
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}
    ).encode(),
    "jwks-empty.json": b'{"keys": []}',
    "jwks-list.json": b"[]",
    "jwks-nested.json": b"[" * 100_000,
    "jwks-binary.json": b"\xff\x00\xfe",
}


def read_file(path: str) -> bytes:
    """Read one of `FILES`; ``locked`` is there and may not be read."""
    if path == "locked":
        raise PermissionError(13, "Permission denied", path)
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory", path)
    return FILES[path]


def loaded(text: str, environ: Mapping[str, str] | None = None, **overrides: str) -> Config:
    return load(text, environ or {}, read_file, overrides)


def problems(text: str, environ: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, environ)
    assert caught.value.problems
    return caught.value.problems


def refused(text: str, environ: Mapping[str, str] | None = None) -> list[tuple[str, int | None]]:
    """Return key and line of every problem."""
    return [(problem.key, problem.line) for problem in problems(text, environ)]


ISSUER = "https://idp.test"


def issuers(*bodies: str) -> str:
    """One issuer on each line from line 3 on."""
    return "jwt:\n  issuers:\n" + "".join(f"  - {{{body}}}\n" for body in bodies)


def issuer(body: str = "") -> str:
    return issuers(f"issuer: '{ISSUER}'" + (f", {body}" if body else ""))


def identity(algorithm: str, *keys: str) -> str:
    """One key on each line from line 4 on."""
    return f"identity:\n  algorithm: {algorithm}\n  keys:\n" + "".join(f"  - {{{key}}}\n" for key in keys)
