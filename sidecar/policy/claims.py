"""Whom does a set of claims name, and is it meant for us now? The claims are judged here, their signature elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

from sidecar.denials import AccountUnusable, InvalidToken
from sidecar.model import SCOPES, Principal
from sidecar.policy.identity import usable_account, usable_subject
from sidecar.policy.redaction import redacted

Claims = Mapping[str, Any]

_MAX_JTI: Final = 256
_MAX_COMPARED: Final = 200
_MOST_EXPECTED: Final = 5
_LATEST_S: Final = 253402300799
"""The end of the year 9999: a later time is a mistake of unit, and would outlive every revocation list."""


@dataclass(frozen=True, slots=True)
class IssuerPolicy:
    """What one issuer's tokens must be, and how their claims become a principal."""

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    account_claim: str = "sub"
    account_prefix: str = ""
    scope_claims: tuple[str, ...] = ("scope", "scp")
    """In order of preference; the first that is present counts."""
    default_scopes: tuple[str, ...] = ()
    leeway_s: float = 30


def principal(claims: Claims, policy: IssuerPolicy, now: float) -> Principal:
    """Return whom these claims name. `expires_at` is ``exp`` itself: whoever compares it adds the leeway.

    Raises:
        InvalidToken: not from this issuer, not for us, not now, or a claim missing or mistyped (RFC 7519 section 4.1).
        AccountUnusable: a good token whose account or subject can't be written into a header.
    """
    _require_issuer(claims, policy)
    _require_audience(claims, policy)
    issued_at, expires_at = _lifetime(claims, policy.leeway_s, now)
    subject = _subject(claims)
    account = _account(claims, policy)
    client_id = _client_id(claims)
    named = _named_scopes(claims, policy)
    return Principal(
        account=account,
        subject=subject,
        kind="jwt",
        credential_id=credential_id(policy.issuer, subject, client_id),
        scopes=_granted(named, policy),
        issued_at=min(issued_at, now),  # a clock ahead of ours must not outlive a revocation
        expires_at=expires_at + policy.leeway_s,
        client_id=client_id,
        token_id=_token_id(claims, policy.issuer),
        foreign_scopes=frozenset(named).difference(SCOPES, ("",)),
        issuer=policy.issuer,
    )


def token_id(issuer: str, jti: str) -> str:
    """Name a token for the revocation store."""
    return _digest("token", issuer, jti)


def credential_id(issuer: str, subject: str, client_id: str | None) -> str:
    """Name what survives a refresh of the token: who, through which client, by which issuer."""
    return "jwt:" + (
        _digest("user", issuer, subject) if client_id is None else _digest("client", issuer, subject, client_id)
    )


def brief(text: object) -> str:
    """Quote a public value from outside for the log: short and in ASCII."""
    quoted = ascii(text)
    return quoted if len(quoted) <= 80 else quoted[:77] + "..."


def mismatch(name: str, value: object, expected: Iterable[str]) -> str:
    """Say for the log what came and what would have been right, long enough to compare, and without any credential."""
    right = " or ".join(_comparable(text) for text in islice(expected, _MOST_EXPECTED)) or "nothing"
    return f"{name} is {_comparable(value)}, and must be {right}, character by character"


def _comparable(value: object) -> str:
    quoted = redacted(ascii(value))
    return quoted if len(quoted) <= _MAX_COMPARED else quoted[: _MAX_COMPARED - 3] + "..."


def _shape(value: object) -> str:
    """Say what a claim looks like without showing it."""
    return f"a string of {len(value)} characters" if isinstance(value, str) else f"of type {type(value).__name__}"


def _digest(*parts: str) -> str:
    """Digest a list of texts, each with its length before it so that no two lists look alike; 32 hex digits."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in encoded)).hexdigest()[:32]


def _require_issuer(claims: Claims, policy: IssuerPolicy) -> None:
    if claims.get("iss") != policy.issuer:
        raise InvalidToken("token_issuer", detail=mismatch("iss", claims.get("iss"), [policy.issuer]))


def _require_audience(claims: Claims, policy: IssuerPolicy) -> None:
    """Find one of our names in ``aud``, a string or a list of strings (RFC 7519 section 4.1.3), compared exactly."""
    claim = claims.get("aud")
    named = [claim] if isinstance(claim, str) else claim
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InvalidToken("token_claims", detail=f"aud is {brief(claim)}")
    if not any(_same_resource(name, ours) for name in named for ours in policy.audiences):
        raise InvalidToken("token_audience", detail=mismatch("aud", claim, policy.audiences))


def _same_resource(name: str, ours: str) -> bool:
    """Compare exactly, but for the slash that URL libraries put after a bare origin."""
    if name == ours:
        return True
    return (name == ours + "/" and _is_origin(ours)) or (name + "/" == ours and _is_origin(name))


def _is_origin(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.netloc) and url == f"{parts.scheme}://{parts.netloc}" and parts.scheme in ("http", "https")


def _lifetime(claims: Claims, leeway_s: float, now: float) -> tuple[float, float]:
    """Return when the token was issued (0 when it does not say) and when it expires."""
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise InvalidToken("token_claims", detail="exp is missing")
    if now >= expires_at + leeway_s:
        raise InvalidToken("token_expired", detail=f"exp was {now - expires_at:.0f} s ago")
    issued_at = _time(claims, "iat")
    for name, earliest in (("nbf", _time(claims, "nbf")), ("iat", issued_at)):
        if earliest is not None and now < earliest - leeway_s:
            raise InvalidToken("token_not_yet_valid", detail=f"{name} is {earliest - now:.0f} s ahead")
    return issued_at or 0.0, expires_at


def _time(claims: Claims, name: str) -> float | None:
    """Return a NumericDate (RFC 7519 section 2) in Unix seconds; None when the claim is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not -_LATEST_S <= value <= _LATEST_S:
        raise InvalidToken("token_claims", detail=f"{name} is {_shape(value)}")
    return float(value)


def _subject(claims: Claims) -> str:
    if "sub" not in claims:
        raise InvalidToken("token_claims", detail="sub is missing")
    subject = claims["sub"]
    if not usable_subject(subject):
        raise AccountUnusable("subject_unusable", detail=f"sub is {_shape(subject)}")
    return subject


def _account(claims: Claims, policy: IssuerPolicy) -> str:
    name = policy.account_claim
    if name not in claims:
        raise InvalidToken("token_claims", detail=f"{name} is missing")
    own_part = claims[name]
    if not isinstance(own_part, str) or not own_part or not usable_account(account := policy.account_prefix + own_part):
        raise AccountUnusable("account_unusable", detail=f"{name} is {_shape(own_part)}")
    return account


def _named_scopes(claims: Claims, policy: IssuerPolicy) -> tuple[str, ...]:
    """Return what the first scope claim names that mentions our scopes, or else the first there is."""
    present = [_scope_names(name, claims[name]) for name in policy.scope_claims if name in claims]
    return next((names for names in present if _mentions_ours(names)), present[0] if present else ())


def _granted(named: tuple[str, ...], policy: IssuerPolicy) -> tuple[str, ...]:
    """Return the known scopes among the named, in table order.

    The issuer's defaults stand in only where nothing looks like one of ours: a mention in a form that can't be read
    (between commas, after a tab) grants nothing, rather than everything.
    """
    if not _mentions_ours(named):
        named = policy.default_scopes
    return tuple(scope for scope in SCOPES if scope in named)


def _mentions_ours(names: tuple[str, ...]) -> bool:
    return any("mcp:" in name for name in names)


def _scope_names(claim: str, value: object) -> tuple[str, ...]:
    """Read a space-separated string (RFC 8693 section 4.2) or, as some issuers write it, a list of strings."""
    if isinstance(value, str):
        return tuple(value.split(" "))
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise InvalidToken("token_claims", detail=f"{claim} is {_shape(value)}")


def _client_id(claims: Claims) -> str | None:
    for name in ("client_id", "azp"):
        value = claims.get(name, "")
        if not isinstance(value, str):
            raise InvalidToken("token_claims", detail=f"{name} is {_shape(value)}")
        if value:
            return value
    return None


def _token_id(claims: Claims, issuer: str) -> str | None:
    if "jti" not in claims:
        return None
    jti = claims["jti"]
    if not isinstance(jti, str) or not 1 <= len(jti) <= _MAX_JTI:
        raise InvalidToken("token_claims", detail="jti is not a string of 1 to 256 characters")
    return token_id(issuer, jti)
