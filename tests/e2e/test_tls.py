"""TLS towards clients, towards the upstream and towards Redis; and who may come without it."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from cryptography import x509

from sidecar import config
from sidecar.edge.jwks import KeySets
from sidecar.tls import server_context
from tests.certificates import Authority
from tests.e2e.bed import JWT_ROUTE, Bed, assert_refused, config_text, credentials, merged, request
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream, echo
from tests.redis_server import RedisServer
from tests.service import until
from tests.tls_front import tls_before

OURS, THEIRS = Authority("Ours"), Authority("Theirs")
AWAY = "203.0.113.7"


def trusting(authority: Authority, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.cert.decode())
    for name, version in versions.items():
        setattr(context, name, version)
    return context


async def over_tls(bed: Bed, context: ssl.SSLContext, headers: Mapping[str, str] | None = None) -> httpx.Response:
    async with httpx.AsyncClient(base_url=bed.sidecar.public_url_bound, verify=context, trust_env=False) as client:
        return await client.post(
            JWT_ROUTE, json=request("ping"), headers=[*credentials(token=bed.token()), *(headers or {}).items()]
        )


async def serial(bed: Bed, context: ssl.SSLContext | None = None) -> int | None:
    """Return the serial number of the certificate that is shown to who connects now."""
    url = httpx.URL(bed.sidecar.public_url_bound)
    _, writer = await asyncio.open_connection(url.host, url.port, ssl=context or trusting(OURS))
    shown = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return int(shown["serialNumber"], 16)


async def test_clients_are_served_by_tls_1_2_and_1_3_and_by_nothing_older(start: Start, tmp_path: Path) -> None:
    bed = await start(listen={"tls": OURS.certify().written(tmp_path, "sidecar")})
    assert bed.sidecar.public_url_bound.startswith("https://")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        exactly = trusting(OURS, minimum_version=version, maximum_version=version)
        assert (await over_tls(bed, exactly)).json()["result"] is not None
    old = trusting(OURS)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        await over_tls(bed, old)
    assert "sidecar_tls_handshake_failures_total 1.0" in (await bed.admin.get("/metrics")).text


async def test_who_does_not_trust_the_certificate_or_speaks_plain_http_gets_nothing(
    start: Start, tmp_path: Path
) -> None:
    bed = await start(listen={"tls": OURS.certify().written(tmp_path, "sidecar")})
    with pytest.raises(httpx.ConnectError):
        await over_tls(bed, trusting(THEIRS))
    plain = bed.sidecar.public_url_bound.replace("https://", "http://")
    async with httpx.AsyncClient(base_url=plain, trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.post(JWT_ROUTE, json=request("ping"))
    assert (await over_tls(bed, trusting(OURS))).status_code == 200


async def test_a_renewed_certificate_is_shown_to_the_next_who_connects_and_open_connections_go_on(
    start: Start, tmp_path: Path
) -> None:
    bed = await start(listen={"tls": OURS.certify().written(tmp_path, "sidecar")})
    first = await serial(bed)
    async with httpx.AsyncClient(
        base_url=bed.sidecar.public_url_bound, verify=trusting(OURS), trust_env=False
    ) as client:
        headers = credentials(token=bed.token())
        assert (await client.post(JWT_ROUTE, json=request("ping"), headers=headers)).status_code == 200
        OURS.certify().written(tmp_path, "sidecar")
        await bed.sidecar.reload(config.load(config_text(bed.settings), {}, lambda path: Path(path).read_bytes()))
        assert (await client.post(JWT_ROUTE, json=request("ping"), headers=headers)).status_code == 200
    assert await serial(bed) != first


async def test_a_renewed_certificate_is_not_shown_when_what_else_has_changed_can_not_take_effect(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = await start(listen={"tls": OURS.certify().written(tmp_path, "sidecar")})
    first = await serial(bed)

    async def fail(*_: object) -> None:
        raise OSError("the keys can't be had")

    monkeypatch.setattr(KeySets, "use", fail)
    OURS.certify().written(tmp_path, "sidecar")
    with pytest.raises(OSError, match="can't be had"):
        await bed.sidecar.reload(config.load(config_text(bed.settings), {}, lambda path: Path(path).read_bytes()))
    assert await serial(bed) == first


@pytest.mark.parametrize(("old_bits", "new_bits"), [(None, 2048), (2048, None)])
async def test_a_certificate_with_another_kind_of_key_is_the_only_one_shown_from_then_on(
    start: Start, tmp_path: Path, old_bits: int | None, new_bits: int | None
) -> None:
    bed = await start(listen={"tls": OURS.certify(rsa_bits=old_bits).written(tmp_path, "sidecar")})
    new = OURS.certify(rsa_bits=new_bits)
    new.written(tmp_path, "sidecar")
    await bed.sidecar.reload(config.load(config_text(bed.settings), {}, lambda path: Path(path).read_bytes()))
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(OURS, minimum_version=version, maximum_version=version)
        assert await serial(bed, context) == x509.load_pem_x509_certificate(new.cert).serial_number


async def test_a_certificate_that_can_not_be_used_changes_nothing_for_who_connects(
    start: Start, tmp_path: Path
) -> None:
    bed = await start(listen={"tls": OURS.certify().written(tmp_path, "sidecar")})
    before = await serial(bed)
    running = config.load(config_text(bed.settings), {}, lambda path: Path(path).read_bytes())
    new = OURS.certify()
    unusable = dataclasses.replace(
        running.listen.tls, cert=new.cert + OURS.certify("weak", rsa_bits=1024).cert, key=new.key
    )
    with pytest.raises(ValueError, match="CA_KEY_TOO_SMALL"):
        await bed.sidecar.reload(dataclasses.replace(running, listen=dataclasses.replace(running.listen, tls=unusable)))
    assert await serial(bed) == before
    assert (await over_tls(bed, trusting(OURS))).status_code == 200


async def test_large_bodies_and_answers_pass_whole(start: Start, tmp_path: Path, stub: StubUpstream) -> None:
    bed = await start(listen={"tls": OURS.certify().written(tmp_path, "sidecar")}, max_body_bytes=1_000_000)
    text = "x" * 900_000
    async with httpx.AsyncClient(
        base_url=bed.sidecar.public_url_bound, verify=trusting(OURS), trust_env=False, timeout=20
    ) as client:
        sent = request("tools/call", {"name": "look", "arguments": {"text": text}})
        answer = await client.post(JWT_ROUTE, json=sent, headers=credentials(token=bed.token()))
    assert answer.status_code == 200
    assert text.encode() in stub.received[-1].body


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({}, {}, 200),
        ({"require_https": "always"}, {}, 403),
        ({"require_https": "always", "trusted_proxies": ["127.0.0.1/32"]}, {"X-Forwarded-Proto": "https"}, 200),
        ({"require_https": "always"}, {"X-Forwarded-Proto": "https"}, 403),
        ({"trusted_proxies": ["127.0.0.1/32"]}, {"X-Forwarded-Proto": "http"}, 403),
        ({"trusted_proxies": ["127.0.0.1/32"]}, {"X-Forwarded-For": AWAY}, 200),
        ({"trusted_proxies": ["127.0.0.1/32"]}, {"X-Forwarded-For": AWAY, "X-Forwarded-Proto": "https"}, 200),
        ({"trusted_proxies": ["127.0.0.1/32"]}, {"X-Forwarded-Proto": "https, http"}, 403),
        ({"trusted_proxies": ["127.0.0.1/32"], "require_https": "never"}, {"X-Forwarded-Proto": "http"}, 200),
    ],
)
async def test_credentials_by_plain_http_are_refused_where_others_may_have_read_them(
    start: Start, settings: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    bed = await start(**settings)
    for credential in ({"key": await bed.key()}, {"token": bed.token()}):
        answer = await bed.post(request("ping"), headers=tuple(headers.items()), **credential)  # type: ignore[arg-type]
        if status == 403:
            assert_refused(answer, 403, "HTTPS_REQUIRED")
            assert "WWW-Authenticate" not in answer.headers
        else:
            assert answer.status_code == status
    without = await bed.client.post(JWT_ROUTE, json=request("ping"), headers=headers)
    assert without.status_code == 401, "who has no credential is told how to get one"


async def test_over_tls_no_proxy_needs_to_say_anything(start: Start, tmp_path: Path) -> None:
    bed = await start(listen={"tls": OURS.certify().written(tmp_path, "sidecar")}, require_https="always")
    assert (await over_tls(bed, trusting(OURS))).status_code == 200


@pytest.mark.parametrize(
    ("trusted", "proto", "status"),
    [("127.0.0.1/32", "http", 403), ("127.0.0.1/32", "https", 200), ("192.0.2.1/32", "http", 200)],
)
async def test_over_tls_a_proxy_is_believed_that_its_client_came_without(
    start: Start, tmp_path: Path, trusted: str, proto: str, status: int
) -> None:
    bed = await start(listen={"tls": OURS.certify().written(tmp_path, "sidecar")}, trusted_proxies=[trusted])
    answer = await over_tls(bed, trusting(OURS), {"X-Forwarded-Proto": proto})
    assert answer.status_code == status


@asynccontextmanager
async def upstream_by_tls(context: ssl.SSLContext) -> AsyncIterator[str]:
    async def handle(received: web.BaseRequest) -> web.StreamResponse:
        return await echo(received, await received.read())

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/mcp"
    finally:
        await runner.cleanup()


async def test_the_upstream_is_verified_by_the_named_authority_and_sees_our_certificate(
    start: Start, tmp_path: Path
) -> None:
    server = OURS.certify("server")
    context = server_context(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=THEIRS.cert.decode())
    ours = {"ca_file": OURS.written(tmp_path), **THEIRS.certify("client").written(tmp_path, "client")}
    async with upstream_by_tls(context) as url:
        bed = await start(upstream={"url": url, "tls": ours})
        assert (await bed.post(request("ping"), token=bed.token())).status_code == 200
        for wrong in ({"ca_file": THEIRS.written(tmp_path, "theirs")}, {"ca_file": ours["ca_file"]}):
            bed = await start(upstream={"url": url, "tls": wrong})
            assert_refused(await bed.post(request("ping"), token=bed.token()), 502, "UPSTREAM_UNAVAILABLE")


async def test_redis_is_verified_by_the_named_authority_and_sees_our_certificate(start: Start, tmp_path: Path) -> None:
    server = OURS.certify("redis")
    context = server_context(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=THEIRS.cert.decode())
    ours = {"ca_file": OURS.written(tmp_path), **THEIRS.certify("client").written(tmp_path, "client")}
    with RedisServer() as redis:
        async with tls_before(redis.connect, context) as port:
            url = f"rediss://127.0.0.1:{port}"
            bed = await start("redis", store={"url": url, "tls": ours})
            await until(partial(_reaches_its_store, bed))
            assert (await bed.post(request("ping"), key=await bed.key())).status_code == 200
            bed = await start(
                "redis", store={"url": url, "tls": merged(ours, {"ca_file": THEIRS.written(tmp_path, "theirs")})}
            )
            assert (await bed.admin.get("/readyz")).json()["checks"]["store"] == "unavailable"


async def _reaches_its_store(bed: Bed) -> bool:
    """Ask whether it does by now: greetings by TLS may take longer than a decision waits."""
    return bool((await bed.admin.get("/readyz")).json()["checks"]["store"] == "ok")
