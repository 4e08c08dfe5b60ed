"""The dev issuer with failures at will."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from aiohttp import web

from sidecar.demo.issuer import Algorithm, DevIssuer, Documents

Failure = Literal["html", "500", "hang", "empty", "huge", "redirect", "no_keys", "gzip", "cut"]

KEY_SET = "/jwks.json"
OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


class FailingIssuer(DevIssuer):
    """A real issuer over HTTP that fails as told: `broken[path]` says how."""

    def __init__(self, *, algorithm: Algorithm = "ES256") -> None:
        super().__init__(algorithm=algorithm)
        self.broken: dict[str, Failure] = {}
        self.gate: asyncio.Event | None = None
        """While set and not passed, every answer waits for it."""
        self.asked = asyncio.Event()
        """Set whenever a request arrives."""
        self._stopped = asyncio.Event()

    async def stop(self) -> None:
        self._stopped.set()
        await super().stop()

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        failure = self.broken.get(request.path)
        if failure is None:
            return await super().respond(request)
        self.requests[request.path] += 1
        return await self._fail(failure, request)

    async def _fail(self, failure: Failure, request: web.BaseRequest) -> web.StreamResponse:
        match failure:
            case "html":
                return web.Response(text="<html>Sign in</html>", content_type="text/html")
            case "500":
                return web.Response(status=500)
            case "empty":
                return web.Response(body=b"")
            case "no_keys":
                return web.json_response({"keys": []})
            case "huge":
                return web.json_response({"keys": [key.jwk() for key in self.keys], "padding": "x" * 2_000_000})
            case "redirect":
                return web.Response(status=302, headers={"Location": "/elsewhere.json"})
            case "gzip":
                answer = web.json_response({"keys": [key.jwk() for key in self.keys]})
                answer.enable_compression(web.ContentCoding.gzip)
                return answer
            case "cut":
                return await self._cut_short(request)
            case "hang":
                await self._stopped.wait()
                return web.Response(status=503)

    async def _cut_short(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b'{"keys":[')
        assert request.transport is not None
        request.transport.close()
        return answer


class IssuerForPeople(FailingIssuer):
    """The dev issuer, with metadata of a sign-in that nobody performs here."""

    def documents(self) -> Documents:
        return {path: self._with_sign_in(path, document) for path, document in super().documents().items()}

    def _with_sign_in(self, path: str, document: Any) -> dict[str, Any]:
        if path not in (OAUTH, OPENID):
            return dict(document)
        return {
            **document,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "code_challenge_methods_supported": ["S256"],
        }
