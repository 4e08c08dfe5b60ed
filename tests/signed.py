"""Requests as an upstream receives them, signed by the sidecar's own signer; and what its verifier says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sidecar.model import IdentityKey
from sidecar.policy.identity import Signer, content_digest, identity_headers
from sidecar.verify import Identity, InvalidSignature, verify

NOW = 1_700_000_000
ED = IdentityKey("2026-07", "ed25519", bytes(range(32)))
NEWER = IdentityKey("2026-08", "ed25519", bytes(range(1, 33)))
MAC = IdentityKey("shared", "hmac-sha256", bytes(range(100, 140)))
SECRETS = {MAC.id: MAC.secret}
JWKS = Signer((ED, NEWER), authority="u", ttl_s=60).jwks()
ANNE = Identity("acme", ("mcp:read", "mcp:tools:list"), "jwt", "auth0|7", "r-1")


@dataclass(frozen=True)
class Sent:
    """A request as the upstream receives it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return dict(self.headers)[name]

    def having(self, *lines: tuple[str, str]) -> Sent:
        return replace(self, headers=(*self.headers, *lines))

    def without(self, name: str) -> Sent:
        return replace(self, headers=tuple(line for line in self.headers if line[0] != name))

    def changed(self, name: str, change: Callable[[str], str]) -> Sent:
        headers = tuple((key, change(value) if key == name else value) for key, value in self.headers)
        assert headers != self.headers
        return replace(self, headers=headers)

    def set(self, name: str, value: str) -> Sent:
        return self.changed(name, lambda _: value)

    def verify(self, keys: Any = SECRETS, now: float = NOW, seen: dict[str, float] | None = None) -> Identity:
        return verify(self.method, self.target, list(self.headers), self.body, keys, now, {} if seen is None else seen)


def sent(
    key: IdentityKey = MAC,
    *,
    authority: str = "up.example:3000",
    host: str | None = None,
    query: str | None = "a=1",
    body: bytes = b'{"id":1}',
    scopes: tuple[str, ...] = ANNE.scopes,
    subject: str = "auth0|7",
    session_id: str | None = "s-1",
    nonce: str = "bm9uY2U",
    now: int = NOW,
    ttl_s: int = 60,
) -> Sent:
    identity = identity_headers(account="acme", scopes=scopes, kind="jwt", subject=subject, request_id="r-1")
    digest = content_digest(body) if body else None
    signature = Signer((key,), authority=authority, ttl_s=ttl_s).sign(
        method="POST",
        path="/mcp",
        query=query,
        identity=identity,
        digest=digest,
        session_id=session_id,
        now=now,
        nonce=nonce,
    )
    lines = (("Host", host or authority), ("Accept", "application/json"), *identity)
    lines += () if digest is None else (("Content-Digest", digest),)
    lines += () if session_id is None else (("Mcp-Session-Id", session_id),)
    return Sent("POST", "/mcp" if query is None else f"/mcp?{query}", (*lines, *signature), body)


def refused(request: Sent, keys: Any = SECRETS, now: float = NOW) -> str:
    with pytest.raises(InvalidSignature) as raised:
        request.verify(keys, now)
    return str(raised.value)
