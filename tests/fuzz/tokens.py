"""Tokens as presented: only one spelling of a token is read, and only a signed one that is good for us is believed.

An input begins with a letter: `r`, and the rest is what follows `Authorization:`; or `s` or `u`, and the rest is a
header and a payload, with a line feed between: `s` is signed by the issuer whatever it says, `u` by somebody else; or
`m`, and the rest is what claims are made of.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import Any, Final

from sidecar.denials import AccountUnusable, Denial, InvalidToken
from sidecar.model import SCOPES, BearerToken, Principal, VerificationKey
from sidecar.policy import credentials, tokens
from sidecar.policy.tokens import IssuerPolicy, UnverifiedToken
from tests.fuzz import readers
from tests.fuzz.made import Grammar, Shape
from tests.fuzz.target import Target
from tests.policy.facts import facts

NOW: Final = 1_800_000_000.0
LEEWAY_S: Final = 30
ISSUER: Final = "https://idp.example"
AUDIENCE: Final = "https://mcp.example/mcp"
SECRET: Final = b"a shared secret of thirty-two bytes or more"
KEY: Final = VerificationKey("k1", frozenset({"HS256"}), SECRET)
POLICY: Final = IssuerPolicy(ISSUER, (AUDIENCE,), ("HS256", "ES256"), leeway_s=LEEWAY_S)
BRINGS_ITS_OWN: Final = ("crit", "b64", "zip", "jku", "jwk", "x5u", "x5c")


def check(data: bytes) -> bool:
    form, rest = data[:1], data[1:]
    if form == b"m":
        return judge_made(b'{"alg":"HS256"}', GRAMMAR.made(rest), SECRET)
    if form in (b"s", b"u"):
        header, _, payload = rest.partition(b"\n")
        return judge_made(header, payload, SECRET if form == b"s" else b"x" * 32)
    try:
        found = credentials.extract(facts(("Authorization", rest.decode("latin-1"))), ("jwt", "api_key"))
    except Denial:
        return False
    if not isinstance(found, BearerToken):
        return False
    assert found.token in rest.decode("latin-1")
    return judge(found.token, signed=False) is not None


def judge_made(header: bytes, payload: bytes, secret: bytes) -> bool:
    unsigned = f"{encoded(header)}.{encoded(payload)}"
    signature = hmac.digest(secret, unsigned.encode(), hashlib.sha256)
    principal = judge(f"{unsigned}.{encoded(signature)}", signed=secret is SECRET)
    if principal is None:
        return False
    judge_header(header)
    judge_claims(json.loads(payload), principal)
    return True


def judge(token: str, *, signed: bool) -> Principal | None:
    try:
        unverified = tokens.peek(token)
    except InvalidToken:
        return None
    judge_spelling(token, unverified)
    try:
        principal = tokens.verify(unverified, POLICY, KEY, NOW)
    except (InvalidToken, AccountUnusable):
        return None
    assert signed, "nobody signed this"
    return principal


def judge_spelling(token: str, unverified: UnverifiedToken) -> None:
    """The parts, encoded again, are the token: it has no second spelling that a memory of revoked ones would miss."""
    assert len(token) <= 8192
    parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]
    assert ".".join(map(encoded, parts)) == token
    for part in parts[:2]:
        read = readers.read(part.decode())
        assert not readers.has_doubled_name(read)
        assert [readers.read(text) for text in readers.texts(part)] == [read]
    assert unverified.claims.get("iss") == unverified.issuer
    assert token not in repr(unverified)


def judge_header(header: bytes) -> None:
    said = json.loads(header)
    assert said["alg"] == "HS256"
    assert said.get("typ", "JWT").lower() in ("jwt", "at+jwt", "application/at+jwt")
    assert not any(name in said for name in BRINGS_ITS_OWN)
    assert 1 <= len(said.get("kid", "k")) <= 128


def judge_claims(said: dict[str, Any], principal: Principal) -> None:
    """What must be true of claims before anybody is believed to be someone (RFC 7519 section 4.1)."""
    assert said["iss"] == ISSUER
    assert AUDIENCE in ([said["aud"]] if isinstance(said["aud"], str) else said["aud"])
    for name, truth in (("exp", lambda at: at + LEEWAY_S > NOW), ("nbf", not_ahead), ("iat", not_ahead)):
        assert name not in said or (type(said[name]) in (int, float) and truth(said[name]))
    assert re.fullmatch(r"[!-~]{1,255}", said["sub"])
    assert principal.account == principal.subject == said["sub"]
    assert re.fullmatch(r"[A-Za-z0-9._:|@+/=-]{1,128}", principal.account)
    assert principal.expires_at == said["exp"] + LEEWAY_S
    assert principal.issued_at <= NOW
    named = [name for claim in ("scope", "scp") for name in words_of(said.get(claim, ""))]
    assert set(principal.scopes) <= set(named) & set(SCOPES)
    assert (principal.token_id is None) == ("jti" not in said)


def not_ahead(at: float) -> bool:
    return at - LEEWAY_S <= NOW


def words_of(claim: Any) -> list[str]:
    return claim.split(" ") if isinstance(claim, str) else claim


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


GRAMMAR: Final = Grammar(
    {
        "": Shape(("iss", "aud", "sub", "exp"), ("iat", "nbf", "jti", "scope", "scp", "client_id", "azp", "x")),
        "x": Shape(("iss",), ("x", "sub")),
    },
    {
        "iss": (ISSUER, ISSUER, ISSUER, f"{ISSUER}/"),
        "aud": (AUDIENCE, AUDIENCE, AUDIENCE, f"{AUDIENCE}/", "https://mcp.example"),
        "sub": ("alice", "a b", "auth0|7", "a\n", "\u00e9", "x" * 255, "y" * 128, "z,"),
        **dict.fromkeys(("exp", "iat", "nbf"), (1800000600, 1799999971, 1799999970, 1800000030, 1800000031, 0, -1)),
        **dict.fromkeys(("scope", "scp"), ("mcp:full", "mcp:read openid", "mcp:full\tmcp:read", "", "mcp:")),
        **dict.fromkeys(("jti", "client_id", "azp"), ("t", "", "x" * 256, "x" * 257)),
    },
)
WORDS: Final = (
    *(f'"{name}":'.encode() for name in ("alg", "typ", "kid", "iss", "aud", "sub", "exp", "nbf", "iat", "jti")),
    *(f'"{name}":'.encode() for name in ("scope", "scp", "client_id", "azp", *BRINGS_ITS_OWN)),
    *(f'"{value}"'.encode() for value in ("HS256", "none", "ES256", "at+jwt", "JWT", ISSUER, AUDIENCE, *SCOPES)),
    *(b"Bearer ", b"eyJ", b".", b"=", b"\n", b"1800000600", b"1799999970", b"1e9", b"NaN", b"-0", b"true", b"[", b"]"),
)
TOKENS: Final = Target("tokens", check, WORDS)
