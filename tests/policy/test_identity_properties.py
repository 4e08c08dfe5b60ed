"""Whatever a request holds, an independent library finds the same signature base, and no other request has it."""

from __future__ import annotations

import base64
import hmac
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver
from http_message_signatures.algorithms import ED25519, HMAC_SHA256
from http_message_signatures.exceptions import HTTPMessageSignaturesException
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import SCOPES, IdentityKey
from sidecar.policy.identity import Signer, content_digest, identity_headers, usable_account, usable_subject

ED = IdentityKey("2026-07", "ed25519", bytes(range(32)))
MAC = IdentityKey("shared", "hmac-sha256", bytes(range(100, 140)))


@dataclass(frozen=True)
class Asked:
    """What is signed of a request."""

    method: str
    path: str
    query: str | None
    identity: tuple[tuple[str, str], ...]
    body: bytes
    session_id: str | None
    nonce: str

    def signed(self, key: IdentityKey, now: int) -> dict[str, str]:
        lines = Signer((key,), authority="up.example:3000", ttl_s=60).sign(
            method=self.method,
            path=self.path,
            query=self.query,
            identity=self.identity,
            digest=content_digest(self.body) if self.body else None,
            session_id=self.session_id,
            now=now,
            nonce=self.nonce,
        )
        return dict(lines)

    @property
    def components(self) -> tuple[str, ...]:
        """What a receiver must insist on: all that is there."""
        beside = ["content-digest"] if self.body else []
        beside += ["mcp-session-id"] if self.session_id is not None else []
        return ("@method", "@authority", "@path", "@query", *beside, *(name.lower() for name, _ in self.identity))

    def base(self, params: str) -> bytes:
        """Write down the signature base as RFC 9421 section 2.5 tells to, line by line."""
        lines = [("@method", self.method), ("@authority", "up.example:3000"), ("@path", self.path or "/")]
        lines.append(("@query", "?" + (self.query or "")))
        lines += [("content-digest", content_digest(self.body))] if self.body else []
        lines += [(name.lower(), value) for name, value in self.identity]
        lines += [("mcp-session-id", self.session_id)] if self.session_id is not None else []
        lines.append(("@signature-params", params))
        return "\n".join(f'"{name}": {value}' for name, value in lines).encode()


@dataclass
class Message:
    """A request as the independent library wants it."""

    method: str
    url: str
    headers: dict[str, str]


class Keys(HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id: str) -> Any:
        return {MAC.id: MAC.secret, ED.id: Ed25519PrivateKey.from_private_bytes(ED.secret).public_key()}[key_id]


ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
accounts = st.text("AZaz09._:|@+/=-", min_size=1, max_size=12)
pieces = st.lists(st.sampled_from([*"aZ09-._~/;:@&=+$,'()*!", "%2F", "%25", "%c3%A9"]), max_size=8).map("".join)
paths = pieces.map(lambda text: f"/{text}")
queries = st.none() | st.lists(pieces, max_size=3).map("?".join)
scopes = st.lists(st.sampled_from(SCOPES), unique=True).map(tuple)
identities = st.builds(
    lambda account, held, kind, subject, request: identity_headers(
        account=account, scopes=held, kind=kind, subject=subject, request_id=request
    ),
    accounts,
    scopes,
    st.sampled_from(["jwt", "api_key"]),
    ids,
    st.text("aZ09._-", min_size=1, max_size=12),
)
requests = st.builds(
    Asked,
    method=st.sampled_from(["POST", "GET", "DELETE"]),
    path=paths,
    query=queries,
    identity=identities,
    body=st.binary(max_size=12),
    session_id=st.none() | ids,
    nonce=st.text("aZ09-_", min_size=1, max_size=22),
)


@given(requests, st.integers(1, 2**33))
def test_the_base_is_the_standards_for_whatever_is_signed(asked: Asked, now: int) -> None:
    lines = asked.signed(MAC, now)
    label, _, params = lines["Signature-Input"].partition("=")
    seal = hmac.digest(MAC.secret, asked.base(params), "sha256")

    assert label == "sidecar"
    assert lines["Signature"] == f"sidecar=:{base64.b64encode(seal).decode()}:"
    assert f";created={now};expires={now + 60};" in params


def verified(asked: Asked, lines: dict[str, str], key: IdentityKey) -> None:
    headers = {**dict(asked.identity), **lines}
    headers |= {"Content-Digest": content_digest(asked.body)} if asked.body else {}
    headers |= {} if asked.session_id is None else {"Mcp-Session-Id": asked.session_id}
    target = asked.path if asked.query is None else f"{asked.path}?{asked.query}"
    HTTPMessageVerifier(signature_algorithm=ED25519 if key is ED else HMAC_SHA256, key_resolver=Keys()).verify(
        Message(asked.method, f"http://up.example:3000{target}", headers),
        expect_tag="mcp-sidecar",
        expect_label="sidecar",
        require_components=asked.components,
        body=asked.body or None,
    )


@given(requests, st.sampled_from([ED, MAC]))
def test_an_independent_library_agrees_on_whatever_is_signed(asked: Asked, key: IdentityKey) -> None:
    verified(asked, asked.signed(key, int(time.time())), key)


@given(requests, requests, st.sampled_from(["method", "path", "query", "identity", "body", "session_id"]))
def test_a_signature_is_good_for_no_other_request(asked: Asked, other: Asked, part: str) -> None:
    changed = replace(asked, **{part: getattr(other, part)})
    lines = asked.signed(MAC, int(time.time()))

    if (changed.query or "") != (asked.query or "") or replace(changed, query=asked.query) != asked:
        with pytest.raises(HTTPMessageSignaturesException):
            verified(changed, lines, MAC)
    else:
        verified(changed, lines, MAC)


@given(st.text(max_size=20), st.text(max_size=20), scopes)
def test_no_text_becomes_a_second_header_or_another_account(account: str, subject: str, held: tuple[str, ...]) -> None:
    try:
        lines = identity_headers(account=account, scopes=held, kind="jwt", subject=subject, request_id="r")
    except ValueError:
        assert not (usable_account(account) and usable_subject(subject))
        return
    assert dict(lines)["X-Account-Id"] == account
    assert dict(lines)["X-Auth-Subject"] == subject
    assert all(value.isascii() and value.isprintable() and "," not in account for _, value in lines)


@given(requests, st.sampled_from(["method", "path", "query", "session_id", "nonce"]), st.text(min_size=1, max_size=5))
def test_what_is_signed_is_printable_ascii_on_one_line_or_nothing_is(asked: Asked, part: str, text: str) -> None:
    changes: Any = {part: text}
    changed = replace(asked, **changes)
    try:
        lines = changed.signed(MAC, 1)
    except ValueError:
        return
    assert text.isascii()
    assert text.isprintable()
    assert all(value.isascii() and value.isprintable() for value in lines.values())
