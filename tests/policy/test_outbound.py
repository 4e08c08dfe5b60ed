"""The header lines of a request to the upstream."""

from __future__ import annotations

from sidecar.model import IdentityKey, Permit, Principal, ResponsePlan
from sidecar.policy import outbound
from sidecar.policy.identity import Signer, identity_headers

SIGNER = Signer((IdentityKey("k", "hmac-sha256", b"s" * 32),), authority="up.example", ttl_s=60)
IDENTITY = identity_headers(account="a", scopes=("mcp:read",), kind="jwt", subject="s", request_id="r")


def signed(*lines: tuple[bytes, bytes], body: bytes | None = None) -> dict[str, str]:
    sent = outbound.signed(
        SIGNER,
        method="POST",
        path="/mcp",
        query=None,
        lines=lines,
        identity=IDENTITY,
        body=body,
        now=1000.9,
        nonce="n",
    )
    return {name.decode(): value.decode() for name, value in sent}


def test_identity_digest_and_signature_come_last() -> None:
    assert list(signed((b"Accept", b"x"), body=b"{}")) == [
        "Accept",
        *("X-Account-Id", "X-Account-Scopes", "X-Auth-Method", "X-Auth-Subject", "X-Request-Id"),
        *("Content-Digest", "Signature-Input", "Signature"),
    ]


def test_without_a_body_there_is_no_digest() -> None:
    assert "Content-Digest" not in signed()
    assert "content-digest" not in signed()["Signature-Input"]


def test_a_session_that_is_sent_is_signed() -> None:
    assert '"mcp-session-id"' in signed((b"Mcp-Session-Id", b"s-1"))["Signature-Input"]
    assert '"mcp-session-id"' not in signed()["Signature-Input"]


def test_the_signature_is_dated_in_whole_seconds() -> None:
    assert "created=1000;expires=1060" in signed()["Signature-Input"]


def test_a_target_is_path_and_query() -> None:
    assert outbound.target("/mcp", None) == "/mcp"
    assert outbound.target("/mcp", "") == "/mcp?"
    assert outbound.target("/mcp", "a=b") == "/mcp?a=b"


def test_a_request_that_waited_is_signed_again_for_what_is_sent_then() -> None:
    plan = ResponsePlan(Principal("a", "s", "jwt", "c", ("mcp:read",), 0, 1), "legacy", 60)
    for target, body in (("/mcp?a=b", b"new"), ("/mcp?", b"new"), ("/mcp", b"new"), ("/mcp", None)):
        path, mark, query = target.partition("?")
        for_now = {"method": "POST", "path": path, "query": query if mark else None, "identity": IDENTITY}
        lines = ((b"Accept", b"x"), (b"Mcp-Session-Id", b"s-1"))
        old = outbound.signed(SIGNER, **for_now, lines=lines, body=b"old", now=1000, nonce="n")  # type: ignore[arg-type] # of several types
        permit = Permit("POST", target, old, b"old", (("X-A", "b"),), plan)

        renewed = outbound.renewed(SIGNER, permit, body, now=1050, nonce="m")

        anew = outbound.signed(SIGNER, **for_now, lines=lines, body=body, now=1050, nonce="m")  # type: ignore[arg-type] # of several types
        assert renewed == Permit("POST", target, anew, body, (("X-A", "b"),), plan)
