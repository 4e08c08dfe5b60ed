"""Which one credential does this request carry?"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

from sidecar.denials import Denial, InvalidApiKey, InvalidRequest, InvalidToken
from sidecar.model import BearerToken, Credential, CredentialKind, PresentedKey, RequestFacts

_KEY_PREFIX: Final = "mcp_"
_PAIR: Final = re.compile(r"[&;]")


def extract(facts: RequestFacts, accepts: tuple[CredentialKind, ...]) -> Credential:
    """Return the request's only credential, of a kind that the route accepts.

    Raises:
        InvalidRequest: two credentials, whatever their values, or one in the query (RFC 6750 section 2: one
            method of transmission at most; MCP 2025-11-25, authorization: never in the query).
        InvalidToken, InvalidApiKey: none, or not a kind that the route takes, in the route's own words.
    """
    headers = facts.headers
    authorization, api_key = headers.get("authorization"), headers.get("x-api-key")
    if facts.query is not None and _names_access_token(facts.query):
        raise InvalidRequest("credential_in_query", "Send the credential in a header, never in the query")
    doubled = facts.repeated and not facts.repeated.isdisjoint(("authorization", "x-api-key"))
    if doubled or not (authorization is None or api_key is None):
        raise InvalidRequest("credential_repeated", "Send exactly one credential, in exactly one header")
    if authorization is None and api_key is None:
        raise refusal(accepts, "credential_missing")
    credential = _from_authorization(authorization) if authorization is not None else PresentedKey(api_key or "")
    if credential is None:
        raise refusal(accepts, "credential_scheme")
    if ("jwt" if isinstance(credential, BearerToken) else "api_key") not in accepts:
        raise refusal(accepts, "credential_kind")
    return credential


def refusal(accepts: tuple[CredentialKind, ...], reason: str) -> Denial:
    """Return the 401 of a route that accepts these kinds."""
    return InvalidToken(reason) if "jwt" in accepts else InvalidApiKey(reason)


def _from_authorization(value: str) -> Credential | None:
    scheme, _, token = value.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        return None
    return PresentedKey(token) if token.startswith(_KEY_PREFIX) else BearerToken(token)


def _names_access_token(query: str) -> bool:
    return any(unquote_plus(pair.partition("=")[0]).casefold() == "access_token" for pair in _PAIR.split(query))
