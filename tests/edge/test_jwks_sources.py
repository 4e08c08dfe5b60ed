from __future__ import annotations

import asyncio
import json
import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.denials import IssuerUnavailable
from sidecar.edge.jwks import KeySource
from sidecar.policy.keysets import KeySetError
from tests.edge.key_keeping import Keeper, keeping, kid
from tests.issuer import KEY_SET, OAUTH, OPENID, FailingIssuer, Failure

DISCOVERY = KeySource()


async def test_an_issuer_is_discovered_by_its_oauth_metadata(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        found = await keeper.keys.find(issuer.url, kid(issuer), "ES256")
        assert found is not None
        assert found.kid == kid(issuer)
        assert keeper.keys.status() == {issuer.url: "ok"}
        assert issuer.requests == {OAUTH: 1, KEY_SET: 1}


@pytest.mark.parametrize("failure", ["500", "html", "redirect", "empty"])
async def test_an_issuer_without_oauth_metadata_is_discovered_by_openid(
    issuer: FailingIssuer, failure: Failure
) -> None:
    issuer.broken[OAUTH] = failure
    async with keeping(issuer.url, DISCOVERY) as keeper:
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256")
        assert issuer.requests[OPENID] == 1


async def test_metadata_of_another_issuer_gives_no_keys(issuer: FailingIssuer) -> None:
    other_name = issuer.url.replace("127.0.0.1", "localhost")
    async with keeping(other_name, DISCOVERY) as keeper:
        with pytest.raises(IssuerUnavailable):
            await keeper.keys.find(other_name, kid(issuer), "ES256")
        assert issuer.requests[KEY_SET] == 0


async def test_an_address_needs_no_discovery(issuer: FailingIssuer) -> None:
    source = KeySource(url=issuer.url + KEY_SET)
    async with keeping("https://idp.example", source) as keeper:
        assert await keeper.keys.find("https://idp.example", kid(issuer), "ES256")
        assert issuer.requests == {KEY_SET: 1}


async def test_a_discovered_address_is_kept_until_it_fails(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        await keeper.clock.advance(240)
        assert issuer.requests == {OAUTH: 1, KEY_SET: 2}
        issuer.broken[KEY_SET] = "html"
        await keeper.clock.advance(240)
        await keeper.clock.advance(1)
        assert issuer.requests == {OAUTH: 2, KEY_SET: 4}


async def test_an_issuer_nobody_configured_has_no_keys(issuer: FailingIssuer) -> None:
    async with keeping(issuer.url, DISCOVERY) as keeper:
        assert await keeper.keys.find("https://evil.example", kid(issuer), "ES256") is None
        assert keeper.keys.generation("https://evil.example") == 0


async def test_a_shared_secret_is_never_fetched_and_knows_no_key_ids() -> None:
    keeper = Keeper({"https://idp.example": KeySource(secret=b"x" * 32)}, timeout_s=1)
    assert "xxx" not in repr(KeySource(secret=b"x" * 32))
    await keeper.keys.start()
    found = await keeper.keys.find("https://idp.example", "any", "HS256")
    assert found is not None
    assert found.key == b"x" * 32
    assert await keeper.keys.find("https://idp.example", None, "RS256") is None
    assert keeper.keys.status() == {"https://idp.example": "ok"}
    assert keeper.keys.generation("https://idp.example") == 1
    await keeper.keys.aclose()


async def test_a_secret_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(KeySetError):
        Keeper({"https://idp.example": KeySource(secret=b"short")}, timeout_s=1)


async def test_a_file_is_read_again_when_it_changes(issuer: FailingIssuer, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(issuer.documents()[KEY_SET]))
    first = kid(issuer)
    async with keeping("https://idp.example", KeySource(file=str(path))) as keeper:
        assert await keeper.keys.find("https://idp.example", first, "ES256")
        issuer.rotate()
        issuer.retire()
        replacement = tmp_path / "new.json"
        replacement.write_text(json.dumps(issuer.documents()[KEY_SET]))
        os.replace(replacement, path)
        await keeper.clock.advance(10)
        assert await keeper.keys.find("https://idp.example", first, "ES256") is None
        assert await keeper.keys.find("https://idp.example", kid(issuer), "ES256")
        path.unlink()
        await keeper.clock.advance(10)
        assert await keeper.keys.find("https://idp.example", kid(issuer), "ES256")
        assert keeper.keys.status() == {"https://idp.example": "stale"}


async def test_no_proxy_of_the_environment_comes_between(
    issuer: FailingIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with keeping(issuer.url, DISCOVERY) as keeper:
        assert await keeper.keys.find(issuer.url, kid(issuer), "ES256")


async def test_a_key_set_without_end_is_read_no_further_than_the_limit() -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(1000):
            await answer.write(b" " * 65536)
        await asyncio.Event().wait()
        return answer

    runner = web.ServerRunner(web.Server(endless), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    source = KeySource(url=f"http://127.0.0.1:{runner.addresses[0][1]}/")
    async with keeping("https://idp.example", source) as keeper:
        assert [event for event, _ in keeper.reports] == ["keys_unavailable"]
        assert keeper.reports[0][1].endswith("larger than 1048576 bytes")
    await runner.cleanup()


def self_signed(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password)
    (directory / "both.pem").write_bytes(private + certificate.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "both.pem")
    return context


async def test_a_certificate_that_nobody_vouches_for_gives_no_keys(issuer: FailingIssuer, tmp_path: Path) -> None:
    runner = web.ServerRunner(web.Server(issuer.respond))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self_signed(tmp_path)).start()
    source = KeySource(url=f"https://127.0.0.1:{runner.addresses[0][1]}{KEY_SET}")
    async with keeping("https://idp.example", source) as keeper:
        assert keeper.keys.status() == {"https://idp.example": "unavailable"}
        assert "ertificate" in keeper.reports[0][1]
    assert issuer.requests[KEY_SET] == 0
    await runner.cleanup()
