"""Every path of every port, every method, every kind of caller: who may call what, and nothing else is served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from sidecar import config
from sidecar.edge.http.front import IDENTITY_KEYS_PATH
from sidecar.management import RESOURCES
from sidecar.policy.discovery import WELL_KNOWN, Discovery
from tests.e2e.bed import JWT_ROUTE, KEY_ROUTE, KEYS, Bed, config_text, credentials, request, with_other_secret
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream, reply

EVERYBODY = frozenset({"nobody", "token", "key", "other kind", "garbage", "expired token", "revoked key", "both"})
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
KEY = f"{KEYS}/key_000000000000"
Who = Mapping[str, frozenset[str]]


def only(*who: str) -> frozenset[str]:
    return frozenset(who)


PUBLIC: Mapping[str, Who] = {
    JWT_ROUTE: {method: only("token") for method in ("GET", "POST", "DELETE")},
    KEY_ROUTE: {method: only("key") for method in ("GET", "POST", "DELETE")},
    KEYS: {method: only("token") for method in ("GET", "POST")},
    KEY: {method: only("token") for method in ("GET", "DELETE")},
    f"{KEY}/rotate": {"POST": only("token")},
    f"{KEY}/usage": {"GET": only("token")},
    WELL_KNOWN + JWT_ROUTE: {"GET": EVERYBODY, "OPTIONS": EVERYBODY},
    IDENTITY_KEYS_PATH: {"GET": EVERYBODY, "OPTIONS": EVERYBODY},
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
    *(WELL_KNOWN, f"{WELL_KNOWN}/mcp/inspector", f"{WELL_KNOWN}/mcp/", "/.well-known/oauth-authorization-server"),
)


class Callers:
    """What each kind of caller presents."""

    def __init__(self, bed: Bed, key: str, revoked: str) -> None:
        token, expired = bed.token(), bed.token(expires_in_s=-3600)
        forged = bed.secret(with_other_secret(key, 7))
        self.on_tokens = {
            "nobody": [],
            "token": credentials(token=token),
            "other kind": credentials(key=key),
            "garbage": credentials(token=bed.secret("x.y.garbage-that-is-no-token")),
            "expired token": credentials(token=expired),
            "revoked key": credentials(key=revoked),
            "both": credentials(token=token, key=key),
        }
        self.on_keys = {
            "nobody": [],
            "key": credentials(key=key),
            "other kind": credentials(token=token),
            "garbage": credentials(key=forged),
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


async def test_every_path_serves_whom_it_says_by_the_methods_it_says_and_nobody_else(
    start: Start, stub: StubUpstream
) -> None:
    bed = await start()
    callers = await Callers.of(bed)
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}})
    for (path, allowed), method in product(PUBLIC.items(), METHODS):
        presented = callers.on_keys if path == KEY_ROUTE else callers.on_tokens
        for who, lines in presented.items():
            stub.received.clear()
            status = await ask(bed, path, method, lines)
            assert status in expected(allowed, method, who), (path, method, who, status)
            goes_on = path in (JWT_ROUTE, KEY_ROUTE) and who in allowed.get(method, ())
            assert len(stub.received) == int(goes_on), (path, method, who)


async def test_nothing_is_served_anywhere_else_not_even_to_who_is_known(start: Start, stub: StubUpstream) -> None:
    bed = await start()
    callers = await Callers.of(bed)
    for path, method in product(NOWHERE, METHODS):
        for who, lines in callers.on_tokens.items():
            assert await ask(bed, path, method, lines) == 404, (path, method, who)
    assert stub.received == []


async def test_the_second_port_serves_the_orchestrator_and_nothing_of_the_first(start: Start) -> None:
    bed = await start()
    for path, method in product((*ADMIN, *PUBLIC, *NOWHERE[:2]), METHODS):
        status = (await bed.admin.request(method, path)).status_code
        wanted = 200 if method in ADMIN.get(path, {}) else 405 if path in ADMIN else 404
        assert status == wanted, (path, method, status)


async def test_these_are_all_paths_that_there_are(start: Start) -> None:
    """Who adds one adds it above, and says who may call it."""
    bed = await start()
    loaded = config.load(config_text(bed.settings), {}, lambda path: Path(path).read_bytes())
    documents = Discovery(
        public_url=loaded.public_url, routes=loaded.routes, issuers=["x"], advertised_scopes=()
    ).documents
    management = {KEYS + below.replace("{id}", KEY.rpartition("/")[2]) for below in RESOURCES}
    routes = {route.path for route in loaded.routes}
    assert set(PUBLIC) == routes | management | set(documents) | {IDENTITY_KEYS_PATH}
