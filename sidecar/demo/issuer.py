"""A token issuer for development: real keys, real discovery, and tokens for the asking. Nobody can log in here."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

Algorithm = Literal["RS256", "ES256", "EdDSA"]
Documents = Mapping[str, Mapping[str, Any]]

_NEW_PRIVATE_KEY: Final[Mapping[Algorithm, Callable[[], Any]]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


class SigningKey:
    """A key pair under a name; only the public half is ever shown."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.kid = f"dev-{secrets.token_hex(6)}"
        self._private_key = _NEW_PRIVATE_KEY[algorithm]()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Make a token of the type that RFC 9068 section 2.1 asks for."""
        header = {"kid": self.kid, "typ": "at+jwt"}
        return jwt.encode(dict(claims), self._private_key, algorithm=self.algorithm, headers=header)

    def jwk(self) -> dict[str, Any]:
        """Return the public half (RFC 7517 section 4)."""
        jwk = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self._private_key.public_key(), as_dict=True)
        jwk.pop("key_ops", None)  # not beside "use", RFC 7517 section 4.3
        return {**jwk, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


class DevIssuer:
    """An issuer over HTTP: metadata, key set, rotation; tokens are minted by whoever holds this object."""

    def __init__(self, *, algorithm: Algorithm = "RS256", clock: Callable[[], float] = time.time) -> None:
        self.algorithm = algorithm
        self.url = ""
        """The issuer identifier; known once started."""
        self.requests: Counter[str] = Counter()
        """Requests received, by path."""
        self.keys = [SigningKey(algorithm)]
        """Published keys; the last one signs."""
        self.max_age_s: int | None = 300
        """What the key set says in ``Cache-Control``; None says nothing."""
        self._clock = clock
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes any free one."""
        self._runner = web.ServerRunner(web.Server(self.respond, access_log=None), shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening; the keys stay, so that a later start goes on with them."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def mint(
        self, *, sub: str, aud: str | list[str], scope: str | None = None, expires_in_s: float = 3600, **claims: Any
    ) -> str:
        """Sign an access token (RFC 9068). Further claims are added or replaced; one that is None is left out."""
        now = int(self._clock())
        token = {
            "iss": self.url,
            "sub": sub,
            "aud": aud,
            "iat": now,
            "exp": now + expires_in_s,
            "jti": secrets.token_urlsafe(12),
            "client_id": "dev",
            "scope": scope,
            **claims,
        }
        return self.keys[-1].sign({name: value for name, value in token.items() if value is not None})

    def rotate(self) -> None:
        """Sign with a new key from now on; the old ones stay published."""
        self.keys.append(SigningKey(self.algorithm))

    def retire(self) -> None:
        """Publish the signing key only: tokens of the old ones stop working."""
        del self.keys[:-1]

    def documents(self) -> Documents:
        """Return what is served, by path: RFC 8414 and OpenID Connect metadata, and the key set."""
        metadata = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks.json",
            "response_types_supported": ["none"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm],
        }
        return {
            "/.well-known/oauth-authorization-server": metadata,
            "/.well-known/openid-configuration": metadata,
            "/jwks.json": {"keys": [key.jwk() for key in self.keys]},
        }

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.requests[request.path] += 1
        document = self.documents().get(request.path)
        if document is None:
            return web.json_response({"error": "not_found"}, status=404)
        if request.method not in ("GET", "HEAD"):
            return web.json_response({"error": "method_not_allowed"}, status=405, headers={"Allow": "GET, HEAD"})
        caching = {} if self.max_age_s is None else {"Cache-Control": f"max-age={self.max_age_s}"}
        return web.json_response(document, headers=caching)
