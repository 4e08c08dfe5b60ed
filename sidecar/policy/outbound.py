"""What exactly goes upstream? The client's allowed header lines, then ours, signed over what the upstream gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from sidecar.model import Headers, Permit
from sidecar.policy.identity import WIRE_NAMES, Signer, content_digest, lasting

_SESSION_ID: Final = b"Mcp-Session-Id"
_WIRE_NAMES: Final = {
    **WIRE_NAMES,
    **{name: name.encode("ascii") for name in ("Content-Digest", "Signature-Input", "Signature")},
}
_OURS: Final = frozenset(_WIRE_NAMES.values())
_NAMES: Final = {wire_name: name for name, wire_name in WIRE_NAMES.items()}


def target(path: str, query: str | None) -> str:
    """Return the request target (RFC 9112 section 3.2.1)."""
    return path if query is None else f"{path}?{query}"


def signed(
    signer: Signer,
    *,
    method: str,
    path: str,
    query: str | None,
    lines: Iterable[tuple[bytes, bytes]],
    identity: tuple[tuple[str, str], ...],
    body: bytes | None,
    now: float,
    nonce: str,
) -> Headers:
    """Return the header lines with digest, identity and signature added last, where nothing can take them away."""
    sent = list(lines)
    digest = content_digest(body) if body else None
    session_id = None
    for name, value in sent:
        if name == _SESSION_ID:
            session_id = value.decode("latin-1")
            break
    signature = signer.sign(
        method=method,
        path=path,
        query=query,
        identity=identity,
        digest=digest,
        session_id=session_id,
        now=int(now),
        nonce=nonce,
    )
    sent += lasting(identity[:-1])[2]
    ours = (*identity[-1:], *signature) if digest is None else (*identity[-1:], ("Content-Digest", digest), *signature)
    sent += [(_WIRE_NAMES[name], value.encode("ascii")) for name, value in ours]
    return tuple(sent)


def renewed(signer: Signer, permit: Permit, body: bytes | None, *, now: float, nonce: str) -> Permit:
    """Return the permit for this body, signed anew: for a request that is sent later than it was judged."""
    path, mark, query = permit.target.partition("?")
    identity = tuple([(_NAMES[name], value.decode("ascii")) for name, value in permit.headers if name in _NAMES])
    lines = signed(
        signer,
        method=permit.method,
        path=path,
        query=query if mark else None,
        lines=[line for line in permit.headers if line[0] not in _OURS],
        identity=identity,
        body=body,
        now=now,
        nonce=nonce,
    )
    return replace(permit, headers=lines, body=body)
