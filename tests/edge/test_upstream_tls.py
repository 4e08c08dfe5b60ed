"""The upstream behind TLS: verified, reused, closed."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.denials import BadGateway
from tests.edge.scripted_upstream import OK, always, client_of, once_then_wait, scripted

POST = ("POST", "/mcp", (), b"{}")


LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def certify(folder: Path, subject: x509.GeneralName = LOOPBACK) -> ssl.SSLContext:
    """Write a self-signed certificate for that address or name and return the server's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_an_upstream_behind_tls_is_verified_and_its_connection_reused(tmp_path: Path) -> None:
    server = certify(tmp_path)
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    body = bytes(1_000_000)
    async with (
        scripted(always(OK), tls=server) as upstream,
        client_of(upstream, scheme="https", ssl_context=trust) as client,
    ):
        assert await client.reachable()
        for sent in (b"{}", body, b"{}"):
            assert await (await client.send("POST", "/mcp", (), sent)).read(10) == b"ok"
        assert upstream.accepted <= 2  # a session ticket of TLS 1.3 that is not read yet costs the first one


async def test_idle_tls_connections_are_closed_too(tmp_path: Path) -> None:
    server = certify(tmp_path)
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    closed = asyncio.Event()
    async with (
        scripted(once_then_wait(OK, closed), tls=server) as upstream,
        client_of(upstream, scheme="https", ssl_context=trust, idle_s=0.02) as client,
    ):
        assert await (await client.send(*POST)).read(10) == b"ok"
        await closed.wait()


async def test_a_certificate_that_nobody_trusts_is_a_bad_gateway(tmp_path: Path) -> None:
    async with (
        scripted(always(OK), tls=certify(tmp_path)) as upstream,
        client_of(upstream, scheme="https") as client,
    ):
        with pytest.raises(BadGateway) as caught:
            await client.send(*POST)
        assert caught.value.reason == "upstream_connect"
        assert not await client.reachable()


@pytest.mark.parametrize(("subject", "verified"), [(x509.DNSName("localhost"), True), (LOOPBACK, False)])
async def test_it_is_the_name_that_is_verified_and_not_the_address_that_it_led_to(
    tmp_path: Path, subject: x509.GeneralName, verified: bool
) -> None:
    server = certify(tmp_path, subject)
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    async with (
        scripted(always(OK), tls=server) as upstream,
        client_of(upstream, scheme="https", host="localhost", ssl_context=trust) as client,
    ):
        assert await client.reachable() == verified
