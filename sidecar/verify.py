"""For upstreams: verify that a request came through the sidecar, and learn whom it is for.

This file stands alone: import it or copy it. It needs *cryptography* and nothing else. With Starlette or FastAPI::

    keys = json.load(urllib.request.urlopen("https://mcp.example/.well-known/sidecar-keys.json"))
    app.add_middleware(VerifySidecar, keys=keys)
    request.scope["sidecar.identity"].account  # in a handler

The keys are the JWK set that the sidecar publishes there (fetch it over a way that you trust), or
``{keyid: secret bytes}`` when it signs with ``hmac-sha256``, or, when they change while the process runs, a function
that returns either at once. Anything but ASGI calls `verify`.

What passes was signed by the sidecar (RFC 9421) for this method, host, path, query, body and identity, has not expired
and was not seen before by this process; several processes need a common `seen` to know of each other's.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
import time
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from urllib.parse import quote

from cryptography import exceptions
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_DERIVED = ("@method", "@authority", "@path", "@query")
_REQUIRED = ("x-account-id", "x-auth-method", "x-auth-subject", "x-request-id")
_SIGNED = (*_REQUIRED, "x-account-scopes", "content-digest", "mcp-session-id")
"""Headers that pass only if the signature covers them."""
_READ = frozenset((*_SIGNED, "signature-input", "signature", "host"))

_CLOCK_SKEW_S = 30
_MAX_LIFETIME_S = 3600
_MIN_SECRET_BYTES = 32
_MAX_NONCES = 500_000
"""Some 130 MB; at a lifetime of 60 s it takes 8 000 requests per second to fill it. Then nothing passes."""

_MEMBER = r'(?:"(?:[^"\\]|\\.)*"|[^",])+'
_DICTIONARY = re.compile(rf"{_MEMBER}(?:,{_MEMBER})*")
"""RFC 8941 section 3.2, as far as it takes to step over the signatures of others: commas in strings divide nothing."""
_OURS = re.compile(r"[ \t]*sidecar(?![a-z0-9_.*-])")
_BYTES = re.compile(r":((?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?):")
_PARAM = re.compile(r';(?:(created|expires)=(0|[1-9]\d{0,14})|(alg|keyid|nonce|tag)="([!#-\[\]-~]{1,128})")', re.ASCII)
_INPUT = re.compile(rf'\(("[@a-z-]+"(?: "[@a-z-]+")*)\)((?:{_PARAM.pattern})+)', re.ASCII)
"""Ours has one form, the canonical one: so the text that was received is the text that was signed."""
_DEFAULT_PORT = re.compile(r":(?:80|443)\Z")
"""Whether it is, only the scheme could say, and that may have changed on the way; so both readings are tried."""
_seen: OrderedDict[str, float] = OrderedDict()
_seen_lock = threading.Lock()

Clock = Callable[[], float]
Seen = MutableMapping[str, float] | None
Keys = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class InvalidSignature(Exception):  # noqa: N818 - the name that libraries for RFC 9421 have for it
    """The request is not what the sidecar signed. The message says which check failed; it quotes nothing."""


@dataclass(frozen=True)
class Identity:
    """Whom a request is for. The method is ``jwt`` or ``api_key``, the subject the token's ``sub`` or the key's id."""

    account: str
    scopes: tuple[str, ...]
    auth_method: str
    subject: str
    request_id: str


def verify(
    method: str, target: str, headers: list[tuple[str, str]], body: bytes, keys: Keys, now: float, seen: Seen = None
) -> Identity:
    """Return whom a request is for.

    `target` is the raw path and query of the request line, `headers` are all the lines received, `now` is Unix time
    in seconds. `seen` maps nonces to their expiry and is pruned from its front; the default is one for the process.

    Raises:
        InvalidSignature: the request is not, to the letter, what the sidecar signed, or it comes late or again.
    """
    identity, digest = _verify_head(method, target, headers, keys, now, seen)
    _verify_body(body, digest)
    return identity


class VerifySidecar:
    """ASGI middleware that lets nothing pass but what the sidecar signed; the rest gets a 401 before its body is read.

    A body of up to `max_body_bytes` (else 413) is read before the app is called. The app finds the `Identity` in
    ``scope["sidecar.identity"]``. Websockets are refused: the sidecar never forwards one. `seen` is as for `verify`,
    `clock` returns Unix time in seconds.
    """

    def __init__(
        self, app: App, keys: Keys, max_body_bytes: int = 4194304, *, seen: Seen = None, clock: Clock = time.time
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._keys, self._seen, self._clock = keys, seen, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, headers = scope["method"], [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]]
        try:
            identity, digest = _verify_head(method, _target(scope), headers, self._keys, self._clock(), self._seen)
            body = await self._read(receive, send)
            if body is None:
                return
            _verify_body(body, digest)
        except InvalidSignature as invalid:
            logging.getLogger("sidecar.verify").warning("request refused: %s", invalid)
            await _answer(send, 401, b"This server is reached through its sidecar only.\n")
        else:
            await self._app({**scope, "sidecar.identity": identity}, _replaying(body, receive), send)

    async def _read(self, receive: Receive, send: Send) -> bytes | None:
        """Return the whole body; None when it was refused or the client is gone."""
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                await _answer(send, 413, b"The request body is too large.\n")
                return None
            more = message.get("more_body", False)
        return bytes(body)


def _verify_head(
    method: str, target: str, headers: Sequence[tuple[str, str]], keys: Keys, now: float, seen: Seen
) -> tuple[Identity, str | None]:
    """Check all that needs no body; return the signed ``Content-Digest``, if any, with the identity."""
    fields = _fields(headers)
    form, encoded = _INPUT.fullmatch(_member(fields, "signature-input")), _BYTES.fullmatch(_member(fields, "signature"))
    if form is None or encoded is None:
        raise InvalidSignature("a signature field is not in the form that the sidecar writes")
    components, params = [name[1:-1] for name in form[1].split(" ")], _params(form[2], now)
    _check_coverage(components, fields)
    key = _key(keys() if callable(keys) else keys, params)
    path, _, query = target.partition("?")
    values = {**fields, "@method": method, "@path": path or "/", "@query": f"?{query}"}
    host, genuine = fields["host"].lower(), False
    for authority in {host, _DEFAULT_PORT.sub("", host)}:
        base = _signature_base({**values, "@authority": authority}, components, form[0])
        genuine = genuine or _is_genuine(key, b64decode(encoded[1]), base)
    _require(genuine, "the signature does not fit key and request")
    _remember(_seen if seen is None else seen, params, now)
    account, auth_method, subject, request_id = (fields[name] for name in _REQUIRED)
    scopes = tuple(fields.get("x-account-scopes", "").split())
    return Identity(account, scopes, auth_method, subject, request_id), fields.get("content-digest")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise InvalidSignature(fault)


def _verify_body(body: bytes, digest: str | None) -> None:
    expected = f"sha-256=:{b64encode(hashlib.sha256(body).digest()).decode()}:"
    _require(digest == expected or (digest is None and not body), "the body is not the one that was signed")


def _fields(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that matter here by lower-case name; only signatures may take several lines."""
    fields: dict[str, str] = {}
    for spelt, text in headers:
        name, value = spelt.lower(), text.strip(" \t")
        if name.replace("_", "-") in _READ:
            _require("_" not in name, "a header of the sidecar's is spelt with an underscore")
            _require(name not in fields or name.startswith("signature"), "a header that must be single came twice")
            fields[name] = f"{fields[name]},{value}" if name in fields else value
    return fields


def _member(fields: Mapping[str, str], name: str) -> str:
    """Return the value of a dictionary's member ``sidecar`` as it was written."""
    text = fields.get(name, "")
    _require(_DICTIONARY.fullmatch(text) is not None, "a signature field is missing or malformed")
    ours: list[str] = [member for member in re.findall(_MEMBER, text) if _OURS.match(member)]
    _require(len(ours) == 1, "there is not exactly one signature of the sidecar's")
    return ours[0].strip(" \t").removeprefix("sidecar=")


def _params(text: str, now: float) -> dict[str, Any]:
    found = [(when or what, int(digits) if when else word) for when, digits, what, word in _PARAM.findall(text)]
    params = dict(found)
    _require(len(found) == len(params) == 6, "a signature parameter is missing or doubled")
    _require(params["tag"] == "mcp-sidecar", "the signature is for another purpose")
    _require(params["created"] <= now + _CLOCK_SKEW_S, "the signature is from the future")
    _require(params["expires"] > now, "the signature has expired")
    _require(0 < params["expires"] - params["created"] <= _MAX_LIFETIME_S, "the lifetime is out of bounds")
    return params


def _check_coverage(components: Sequence[str], fields: Mapping[str, str]) -> None:
    _require(all(fields.get(name) for name in (*_REQUIRED, "host")), "a header that is always sent is missing or empty")
    expected = [*_DERIVED, *(name for name in _SIGNED if name in fields)]
    _require(sorted(components) == sorted(expected), "the signature does not cover exactly what it must")


def _signature_base(values: Mapping[str, str], components: Sequence[str], signature_params: str) -> bytes:
    """Write down what is signed (RFC 9421 section 2.5)."""
    text = "".join(values[name] for name in components)
    _require(text.isascii() and text.isprintable(), "a signed value is not printable ASCII")
    lines = [f'"{name}": {values[name]}' for name in components]
    return "\n".join([*lines, f'"@signature-params": {signature_params}']).encode()


def _key(keys: Mapping[str, Any], params: Mapping[str, Any]) -> Ed25519PublicKey | bytes:
    """Find the key; its own type, not the message, says which algorithm it is for."""
    published = keys.get("keys")
    key = _public_key(published, params["keyid"]) if isinstance(published, list) else keys.get(params["keyid"])
    if isinstance(key, Ed25519PublicKey):
        algorithm = "ed25519"
    elif isinstance(key, bytes) and len(key) >= _MIN_SECRET_BYTES:
        algorithm = "hmac-sha256"
    else:
        raise InvalidSignature("there is no usable key of this id")
    _require(params["alg"] == algorithm, "the algorithm is not the key's")
    return key


def _public_key(jwks: Sequence[Any], kid: str) -> Ed25519PublicKey | None:
    """Return the one Ed25519 key of this id (RFC 8037 section 2); shared secrets never come from a published set."""
    named = [jwk for jwk in jwks if isinstance(jwk, Mapping) and jwk.get("kid") == kid]
    jwk = {"use": "sig", "alg": "EdDSA", **named[0]} if len(named) == 1 else {}
    if [jwk.get(name) for name in ("kty", "crv", "use", "alg")] != ["OKP", "Ed25519", "sig", "EdDSA"]:
        return None
    try:
        return Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(f"{jwk.get('x')}=="))
    except ValueError:
        return None


def _is_genuine(key: Ed25519PublicKey | bytes, signature: bytes, base: bytes) -> bool:
    if isinstance(key, bytes):
        return hmac.compare_digest(hmac.digest(key, base, "sha256"), signature)
    try:
        key.verify(signature, base)
    except exceptions.InvalidSignature:
        return False
    return True


def _remember(seen: MutableMapping[str, float], params: Mapping[str, Any], now: float) -> None:
    with _seen_lock:
        for nonce in list(takewhile(lambda known: seen.get(known, 0) <= now, seen)):
            seen.pop(nonce, None)
        _require(seen.get(params["nonce"], 0) <= now, "the request was seen before")
        _require(len(seen) < _MAX_NONCES, "there are too many requests to remember")
        seen[params["nonce"]] = float(params["expires"])


def _target(scope: Scope) -> str:
    raw_path, query = scope.get("raw_path"), scope.get("query_string", b"").decode("latin-1")
    path = raw_path.decode("latin-1") if raw_path else quote(scope["path"], safe="/:@!$&'()*+,;=~", errors="replace")
    return f"{path}?{query}" if query else path


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body once and then what comes next, such as ``http.disconnect``."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(messages, None) or await receive()

    return replay


async def _answer(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Signature realm="mcp-sidecar"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
