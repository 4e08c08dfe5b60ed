"""Every path of every port, every method, every kind of caller: who may call what, and nothing else is served."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import pytest

from sidecar.edge import admin, key_page
from sidecar.edge.http.front import IDENTITY_KEYS_PATH
from sidecar.edge.http.server import PublicServer
from sidecar.management import RESOURCES
from sidecar.policy import pages
from sidecar.policy.discovery import WELL_KNOWN
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, Bed, credentials, request, with_other_secret
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream, reply

EITHER_ROUTE = "/mcp/either"
IN_BAND_ROUTE = "/mcp/in-band"
ROUTES: list[dict[str, Any]] = [
    {"path": JWT_ROUTE, "credentials": ["jwt"]},
    {"path": KEY_ROUTE, "credentials": ["api_key"]},
    {"path": EITHER_ROUTE, "credentials": ["jwt", "api_key"]},
    {"path": IN_BAND_ROUTE, "credentials": ["jwt"], "denials": "in_band"},
]
EVERYBODY = frozenset({"nobody", "token", "key", "forged key", "garbage", "expired token", "revoked key", "both"})
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
KEY = f"{KEYS}/key_000000000000"
APPROVAL = f"{pages.APPROVALS}/{'0a' * 16}"
FILES = tuple(pages.FILES + name for name in key_page.contents() if not name.endswith(".html"))
Who = Mapping[str, frozenset[str]]


def only(*who: str) -> frozenset[str]:
    return frozenset(who)


PUBLIC: Mapping[str, Who] = {
    JWT_ROUTE: {method: only("token") for method in ("GET", "POST", "DELETE")},
    KEY_ROUTE: {method: only("key") for method in ("GET", "POST", "DELETE")},
    EITHER_ROUTE: {method: only("token", "key") for method in ("GET", "POST", "DELETE")},
    IN_BAND_ROUTE: {method: only("token") for method in ("GET", "POST", "DELETE")},
    KEYS: {method: only("token") for method in ("GET", "POST")},
    f"{KEYS}/activity": {"GET": only("token")},
    KEY: {method: only("token") for method in ("GET", "DELETE")},
    f"{KEY}/rotate": {"POST": only("token")},
    f"{KEY}/usage": {"GET": only("token")},
    **{
        WELL_KNOWN + route: {"GET": EVERYBODY, "OPTIONS": EVERYBODY}
        for route in (JWT_ROUTE, EITHER_ROUTE, IN_BAND_ROUTE)
    },
    IDENTITY_KEYS_PATH: {"GET": EVERYBODY, "OPTIONS": EVERYBODY},
    **{path: {"GET": EVERYBODY} for path in (*pages.PAGES, APPROVAL, pages.SIGN_IN_PATH, *FILES)},
}
"""Who is served at all, by path and method. To be served is to get past authentication: a 404 of a key is one, too."""
ADMIN = {path: {"GET": EVERYBODY, "HEAD": EVERYBODY} for path in ("/livez", "/readyz", "/metrics")}
"""The second port asks for nothing: it tells nothing of an account and is not published."""
NOWHERE = (
    *("/", "/admin", "/livez", "/readyz", "/metrics", "/mcp/", "/mcp/x", "/MCP", "/mcp/inspector/", "/%6dcp", "//mcp"),
    *(
        "/mcp/..",
        "/./mcp",
        "/mcp;x",
        "/mcp%2finspector",
        "/api",
        "/api/",
        "/api/api-keys/",
        f"{KEYS}/key_1",
        f"{KEY}/x",
    ),
    *(
        "/keys/",
        "/keys/files/",
        "/keys/files/keys.html",
        "/keys/files/../keys.js",
        "/keys/files/none.js",
        "/keys/keys.js",
    ),
    *("/approvals", "/approvals/", f"{APPROVAL}/", f"{APPROVAL}0", APPROVAL.upper(), f"{APPROVAL}/callback", "/Keys"),
    *(WELL_KNOWN, f"{WELL_KNOWN}/mcp/inspector", f"{WELL_KNOWN}/mcp/", "/.well-known/oauth-authorization-server"),
)
NO_PATHS = (
    *("*", "mcp", "", "http://sidecar/mcp", "http://other.example/mcp", "https://sidecar/mcp", "//sidecar/mcp"),
    *("/mcp#x", "#/mcp", "sidecar:80", "sidecar:80/mcp", "http://sidecar", "HTTP://SIDECAR/mcp"),
)
"""Targets in the other forms of RFC 9112 section 3.2, and in none."""


FORWARDED = (JWT_ROUTE, KEY_ROUTE, EITHER_ROUTE, IN_BAND_ROUTE)


class Callers:
    """What each kind of caller presents."""

    def __init__(self, bed: Bed, key: str, revoked: str) -> None:
        token, expired = bed.token(), bed.token(expires_in_s=-3600)
        forged = bed.secret(with_other_secret(key, 7))
        self.present = {
            "nobody": [],
            "token": credentials(token=token),
            "key": credentials(key=key),
            "forged key": credentials(key=forged),
            "garbage": credentials(token=bed.secret("x.y.garbage-that-is-no-token")),
            "expired token": credentials(token=expired),
            "revoked key": credentials(key=revoked),
            "both": credentials(token=token, key=key),
        }

    @classmethod
    async def of(cls, bed: Bed) -> Callers:
        key, revoked = await bed.key("mcp:full"), await bed.key("mcp:full")
        await bed.sidecar.keyring.revoke("alice", f"key_{revoked[4:16]}")
        return cls(bed, key, revoked)


async def ask(bed: Bed, path: str, method: str, lines: list[tuple[str, str]]) -> int:
    """Ask as this caller, to the letter of the path, and return the status."""
    head = "".join(f"{name}: {value}\r\n" for name, value in [("Host", "sidecar"), *lines])
    body = json.dumps(request("ping")) if method == "POST" else ""
    framing = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    answer = await bed.raw(f"{method} {path} HTTP/1.1\r\n{head}{framing}Connection: close\r\n\r\n{body}".encode())
    return answer.status


def expected(allowed: Who, method: str, who: str) -> set[int]:
    """Return the statuses that this caller may get where `allowed` says who is served by which method."""
    if method not in allowed:
        return {405}
    if who in allowed[method]:
        return {200, 201, 204, 400, 404}  # 400 and 404: the key management understood who asks, and not what
    return {400} if who == "both" else {401}


def expected_of(path: str, method: str, who: str) -> set[int]:
    statuses = expected(PUBLIC[path], method, who)
    # In band are the refusals of requests with an id, but for 401.
    return {200} if path == IN_BAND_ROUTE and method == "POST" and statuses == {400} else statuses


async def closed_after(bed: Bed, sent: bytes) -> list[int]:
    """Return the statuses of all that comes back until the sidecar closes the connection."""
    address = urlsplit(bed.sidecar.public_url_bound)
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(sent)
        answers = await reader.read()
        writer.close()
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answers)]


async def test_every_path_serves_whom_it_says_by_the_methods_it_says_and_nobody_else(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start(routes=ROUTES)
    callers = await Callers.of(bed)
    assert set(callers.present) == EVERYBODY
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}})
    for (path, allowed), method in product(PUBLIC.items(), METHODS):
        for who, lines in callers.present.items():
            stub.received.clear()
            status = await ask(bed, path, method, lines)
            assert status in expected_of(path, method, who), (path, method, who, status)
            goes_on = path in FORWARDED and who in allowed.get(method, ())
            assert len(stub.received) == int(goes_on), (path, method, who)


async def test_nothing_is_served_anywhere_else_not_even_to_who_is_known(start: Start, stub: StubUpstream) -> None:
    bed = await start(routes=ROUTES)
    callers = await Callers.of(bed)
    for path, method in product(NOWHERE, METHODS):
        for who, lines in callers.present.items():
            assert await ask(bed, path, method, lines) == 404, (path, method, who)
    assert stub.received == []


async def test_a_target_that_is_no_path_is_served_to_nobody(start: Start, stub: StubUpstream) -> None:
    bed = await start(routes=ROUTES)
    callers = await Callers.of(bed)
    for target, method in product(NO_PATHS, METHODS):
        for who in ("nobody", "token", "key"):
            assert await ask(bed, target, method, callers.present[who]) in (400, 404), (target, method, who)
    assert stub.received == []


async def test_a_tunnel_is_refused_to_everybody_and_ends_the_connection(start: Start, stub: StubUpstream) -> None:
    """What follows a CONNECT is no HTTP to an intermediary that lets it pass (RFC 9110 section 9.3.6)."""
    bed = await start(routes=ROUTES)
    callers = await Callers.of(bed)
    behind = f"GET {WELL_KNOWN}{JWT_ROUTE} HTTP/1.1\r\nHost: sidecar\r\n\r\n".encode()
    for target, (who, lines) in product(("sidecar:80", "*", "/", *PUBLIC), callers.present.items()):
        head = "".join(f"{name}: {value}\r\n" for name, value in [("Host", "sidecar"), *lines])
        [status] = await closed_after(bed, f"CONNECT {target} HTTP/1.1\r\n{head}\r\n".encode() + behind)
        assert 400 <= status < 500, (target, who)
    assert stub.received == []


@pytest.mark.parametrize("line", ["Upgrade: h2c", "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked"])
async def test_a_request_whose_end_is_open_to_doubt_is_refused_everywhere(
    start: Start, stub: StubUpstream, line: str
) -> None:
    bed = await start(routes=ROUTES)
    callers = await Callers.of(bed)
    for path, allowed in PUBLIC.items():
        for method, served in allowed.items():
            who = callers.present["key" if served == only("key") else "token"]
            head = "".join(f"{name}: {value}\r\n" for name, value in [("Host", "sidecar"), *who])
            sent = f"{method} {path} HTTP/1.1\r\n{head}{line}\r\n\r\n".encode()
            assert await closed_after(bed, sent + sent) == [400], (path, method)
    assert stub.received == []


async def test_the_second_port_serves_the_orchestrator_and_nothing_of_the_first(start: Start) -> None:
    bed = await start(routes=ROUTES)
    for path, method in product((*ADMIN, *PUBLIC, *NOWHERE[:2]), METHODS):
        status = (await bed.admin.request(method, path)).status_code
        wanted = 200 if method in ADMIN.get(path, {}) else 405 if path in ADMIN else 404
        assert status == wanted, (path, method, status)


async def test_these_are_all_paths_that_there_are(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who adds one adds it above, and says who may call it."""
    servers: list[PublicServer] = []

    class Noted(PublicServer):
        def __init__(self, **parts: Any) -> None:
            super().__init__(**parts)
            servers.append(self)

    monkeypatch.setattr("sidecar.generation.PublicServer", Noted)
    await start(routes=ROUTES)
    [server] = servers
    management = {KEYS + below.replace("{id}", KEY.rpartition("/")[2]) for below in RESOURCES}
    own_pages = {*pages.PAGES, APPROVAL, pages.SIGN_IN_PATH, *FILES}
    assert set(PUBLIC) == set(server._routes) | management | set(server._front._documents) | own_pages
    assert set(server._routes) == set(FORWARDED)
    assert set(ADMIN) == set(admin.PATHS)
