"""What the files of TLS may hold. They are read whole, so that a change of any of them is a change of the settings."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sidecar.config.document import Entry, Refused
from sidecar.config.files import content
from sidecar.config.reader import UNREADABLE, Complaint, optional, section, setting
from sidecar.tls import present

_MOST_SHOWN: Final = 3


def certificates_file(entry: Entry) -> bytes:
    """One or more certificates in PEM: a server's own first, then those between it and its root (RFC 8446, 4.4.2)."""
    pem = content(entry)
    try:
        x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise Refused("must name a file with certificates in PEM (-----BEGIN CERTIFICATE-----)") from None
    return pem


def private_key_file(entry: Entry) -> bytes:
    """A private key in PEM, without a passphrase: nobody is there to type it."""
    pem = content(entry)
    try:
        load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Refused("must name a file with a private key in PEM, without a passphrase") from None
    return pem


def described(pem: bytes) -> str:
    """Return whose certificates these are and until when they are good, as they may be listed."""
    found = x509.load_pem_x509_certificates(pem)
    named = [f"{one.subject.rfc4514_string() or '(no name)'} until {one.not_valid_after_utc:%Y-%m-%d}" for one in found]
    more = f" and {len(named) - _MOST_SHOWN} more" if len(named) > _MOST_SHOWN else ""
    return ", ".join(named[:_MOST_SHOWN]) + more


def pair(values: dict[str, Any]) -> Iterator[Complaint]:
    """Tell what is wrong with a certificate and a key that belong together."""
    cert, key = values.get("cert_file"), values.get("key_file")
    if UNREADABLE in (cert, key):
        return
    if (cert is None) != (key is None):
        missing = "cert_file" if cert is None else "key_file"
        yield missing, "must be set too: a certificate and its key belong together"
    elif cert is not None and key is not None and not _belong_together(cert, key):
        yield "key_file", "must hold the key of the first certificate in cert_file"
    elif cert is not None and key is not None:
        try:
            present(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)
        except ValueError as error:
            yield "cert_file", f"must hold certificates that OpenSSL takes: {error}"


def _belong_together(cert: bytes, key: bytes) -> bool:
    first, private = x509.load_pem_x509_certificates(cert)[0], load_pem_private_key(key, password=None)
    return _encoded(first.public_key()) == _encoded(private.public_key())


def _encoded(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class ServerTlsConfig:
    """With what we prove who we are; with neither, there is no TLS."""

    cert: bytes | None = setting(optional(certificates_file), None, key="cert_file", shown=described)
    key: bytes | None = setting(optional(private_key_file), None, key="key_file", secret=True)


@dataclass(frozen=True, slots=True)
class ClientTlsConfig:
    """Whom we believe (null: whom the system believes), and with what we prove who we are, where we are asked."""

    ca: bytes | None = setting(optional(certificates_file), None, key="ca_file", shown=described)
    cert: bytes | None = setting(optional(certificates_file), None, key="cert_file", shown=described)
    key: bytes | None = setting(optional(private_key_file), None, key="key_file", secret=True)


def server_tls() -> Any:
    """Declare the field of a section that may serve by TLS."""
    return setting(section(ServerTlsConfig, prepare=pair), ServerTlsConfig())


def client_tls() -> Any:
    """Declare the field of a section that may connect by TLS."""
    return setting(section(ClientTlsConfig, prepare=pair), ClientTlsConfig())
