from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sidecar.verify import Message, Receive, Scope, Send, VerifySidecar
from tests.signed import ANNE, ED, JWKS, NOW, SECRETS, Sent, sent

PARTS = ({"type": "http.request", "body": b'{"id"', "more_body": True}, {"type": "http.request", "body": b":1}"})


class App:
    """Notes what it is called with, answers in two pieces, and waits for the client to go."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "lifespan":
            return
        self.received.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        self.received.append(await receive())
        await send({"type": "http.response.body", "body": b"b"})


def scope_of(request: Sent) -> Scope:
    path, _, query = request.target.partition("?")
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers]
    return {
        "type": "http",
        "method": request.method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
    }


async def call(
    scope: Scope, *messages: Message, app: App | None = None, max_body_bytes: int = 4194304, keys: Any = SECRETS
) -> tuple[list[Message], int]:
    """Run one call and return what was sent, and how many messages were left unread."""
    left, answer = deque(messages), list[Message]()

    async def receive() -> Message:
        return left.popleft()

    async def send(message: Message) -> None:
        answer.append(message)

    guarded = VerifySidecar(app or App(), keys, max_body_bytes, seen={}, clock=lambda: NOW)
    async with asyncio.timeout(5):
        await guarded(scope, receive, send)
    return answer, len(left)


async def test_a_signed_request_reaches_the_app_with_its_identity_and_whole_body() -> None:
    app, scope = App(), scope_of(sent())
    answer, _ = await call(scope, *PARTS, {"type": "http.disconnect"}, app=app)
    assert app.scopes[0]["sidecar.identity"] == ANNE
    assert "sidecar.identity" not in scope
    assert app.received[0] == {"type": "http.request", "body": b'{"id":1}', "more_body": False}
    assert [message.get("body") for message in answer] == [None, b"a", b"b"]


async def test_the_app_still_learns_that_the_client_has_gone() -> None:
    app = App()
    await call(scope_of(sent()), *PARTS, {"type": "http.disconnect"}, app=app)
    assert app.received[1] == {"type": "http.disconnect"}


async def test_a_stranger_gets_a_401_and_its_body_is_not_read() -> None:
    app = App()
    answer, left = await call(scope_of(sent().without("Signature")), *PARTS, app=app)
    assert answer[0]["status"] == 401
    assert b"www-authenticate" in dict(answer[0]["headers"])
    assert (app.scopes, left) == ([], 2)


@pytest.mark.parametrize("body", [b"", b'{"id":2}', b'{"id":1} '])
async def test_another_body_than_the_signed_one_gets_a_401(body: bytes) -> None:
    app = App()
    answer, _ = await call(scope_of(sent()), {"type": "http.request", "body": body}, app=app)
    assert (answer[0]["status"], app.scopes) == (401, [])


async def test_a_body_above_the_limit_gets_a_413_and_is_read_no_further() -> None:
    app = App()
    answer, left = await call(scope_of(sent()), *PARTS, app=app, max_body_bytes=4)
    assert (answer[0]["status"], app.scopes, left) == (413, [], 1)


async def test_a_body_at_the_limit_passes() -> None:
    answer, _ = await call(scope_of(sent()), *PARTS, {"type": "http.disconnect"}, max_body_bytes=8)
    assert answer[0]["status"] == 200


async def test_a_client_that_goes_in_mid_body_is_not_answered() -> None:
    app = App()
    answer, _ = await call(scope_of(sent()), PARTS[0], {"type": "http.disconnect"}, app=app)
    assert (answer, app.scopes) == ([], [])


async def test_websockets_are_refused_and_lifespan_passes() -> None:
    app = App()
    answer, _ = await call({**scope_of(sent()), "type": "websocket"}, app=app)
    assert ([message["type"] for message in answer], app.scopes) == (["websocket.close"], [])
    await call({"type": "lifespan"}, app=app)
    assert app.scopes == [{"type": "lifespan"}]


async def test_a_server_without_raw_paths_will_do() -> None:
    scope = scope_of(sent())
    del scope["raw_path"]
    answer, _ = await call(scope, *PARTS, {"type": "http.disconnect"})
    assert answer[0]["status"] == 200


async def test_a_claim_of_identity_in_the_clear_is_worth_nothing() -> None:
    headers = (("Host", "up"), ("X-Account-Id", "acme"))
    answer, _ = await call(scope_of(Sent("POST", "/mcp", headers, b"")), *PARTS)
    assert answer[0]["status"] == 401


async def test_it_guards_a_starlette_app() -> None:
    async def whoami(request: Request) -> JSONResponse:
        return JSONResponse([request.scope["sidecar.identity"].account, await request.json()])

    guard = Middleware(VerifySidecar, keys=JWKS, seen={}, clock=lambda: NOW)
    app = Starlette(routes=[Route("/mcp", whoami, methods=["POST"])], middleware=[guard])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://up.example:3000") as client:
        request = sent(ED)

        async def post() -> httpx.Response:
            return await client.post(request.target, content=request.body, headers=list(request.headers))

        first, again = await post(), await post()
    assert (first.status_code, json.loads(first.content)) == (200, ["acme", {"id": 1}])
    assert again.status_code == 401
