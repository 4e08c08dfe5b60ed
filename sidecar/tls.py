"""TLS for what connects to us and for what we connect to: version 1.2 and newer, and certificates that are checked."""

from __future__ import annotations

import os
import ssl
from tempfile import TemporaryFile
from typing import Final

from cryptography import x509

_OLDEST: Final = ssl.TLSVersion.TLSv1_2
"""RFC 8996 retires what came before."""
_PROTOCOLS: Final = ["http/1.1"]


def server_context(cert: bytes, key: bytes) -> ssl.SSLContext:
    """Return what a port serves TLS by; certificate chain and key are PEM.

    Raises:
        ValueError: TLS can't be served by these.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _OLDEST
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(_PROTOCOLS)
    present(context, cert, key)
    return context


def client_context(ca: bytes | None, cert: bytes | None, key: bytes | None) -> ssl.SSLContext:
    """Return what we connect by: whom to believe (the system's authorities when None), and who we are, if asked.

    Raises:
        ValueError: TLS can't be spoken by these.
    """
    context = ssl.create_default_context(cadata=None if ca is None else ca.decode("ascii", "ignore"))
    context.minimum_version = _OLDEST
    if cert is not None and key is not None:
        present(context, cert, key)
    return context


def expires_at(cert: bytes) -> float:
    """Return until when, in Unix seconds, the first certificate of a chain is good; PEM.

    Raises:
        ValueError: there is none.
    """
    return x509.load_pem_x509_certificate(cert).not_valid_after_utc.timestamp()


def present(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    """Have a context that shows none yet show this certificate.

    Raises:
        ValueError: OpenSSL doesn't take them; the context is of no use any more.
    """
    # OpenSSL reads files alone. The file system may be read-only, and the key should not come to lie there twice.
    with os.fdopen(os.memfd_create("certificate"), "wb") if hasattr(os, "memfd_create") else TemporaryFile() as file:
        file.write(cert.rstrip() + b"\n" + key)
        file.flush()
        try:
            context.load_cert_chain(f"/dev/fd/{file.fileno()}")
        except (ssl.SSLError, OSError) as error:
            raise ValueError(f"the certificate can't be used: {error}") from error
