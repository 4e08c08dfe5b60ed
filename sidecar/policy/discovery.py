"""What does a client without the right credential need to know to find its way to one?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from sidecar.denials import Denial, InsufficientScope
from sidecar.model import SCOPES, CredentialKind, Route

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_NO_CREDENTIAL: Final = ("credential_missing", "credential_scheme")
"""RFC 6750 section 3.1: neither nothing at all nor another scheme is an invalid token."""

Parameters = tuple[tuple[str, str], ...]


class Discovery:
    """RFC 9728 metadata of each route that takes JWTs, and the challenges that lead there.

    Everything is built from `public_url`, never from a request: a `Host` header would let an attacker choose where
    clients look. Without an issuer there is nowhere to lead, and nothing is published (MCP 2026-07-28, authorization
    server discovery: `authorization_servers` has at least one entry).
    """

    def __init__(
        self, *, public_url: str, routes: Iterable[Route], issuers: Iterable[str], advertised_scopes: tuple[str, ...]
    ) -> None:
        servers = list(issuers)
        self._advertised = " ".join(advertised_scopes)
        self._documents: dict[str, Mapping[str, Any]] = {}
        self._urls: dict[str, str] = {}
        for route in routes:
            if "jwt" in route.credentials and servers:
                document: dict[str, Any] = {"resource": public_url + route.path, "authorization_servers": servers}
                if advertised_scopes:
                    document["scopes_supported"] = list(advertised_scopes)
                document["bearer_methods_supported"] = ["header"]
                self._documents[WELL_KNOWN + route.path] = MappingProxyType(document)
                self._urls[route.path] = public_url + WELL_KNOWN + route.path

    @property
    def documents(self) -> Mapping[str, Mapping[str, Any]]:
        """The metadata by the path where it is served (RFC 9728 section 3.1: the resource's path comes last)."""
        return self._documents

    def challenge(self, denial: Denial, accepts: tuple[CredentialKind, ...], path: str | None) -> str | None:
        """Return the `WWW-Authenticate` value for a refusal, or None where none belongs.

        A route that takes JWTs sends Bearer and nothing else, because client libraries read the first challenge only;
        a route for keys alone sends a scheme that starts no login. Without a `path`, as for the REST interface, which
        is no MCP resource, the challenge leads nowhere.
        """
        if "jwt" not in accepts:
            return 'ApiKey realm="mcp"' if denial.status == 401 else None
        metadata = ("resource_metadata", self._urls.get(path or "", ""))
        advertised = ("scope", "" if path is None else self._advertised)
        parameters: Parameters
        if isinstance(denial, InsufficientScope):
            scope, about = ("scope", _union(denial)), ("error_description", denial.message)
            parameters = (("error", "insufficient_scope"), scope, metadata, about)
        elif denial.status != 401:
            return None
        elif denial.reason in _NO_CREDENTIAL:
            parameters = (metadata, advertised)
        else:
            about = ("error_description", denial.message)
            parameters = (("error", "invalid_token"), about, metadata, advertised)
        return _written(parameters)


def _written(parameters: Parameters) -> str:
    quotable = ((name, _quotable(value)) for name, value in parameters)
    pairs = ", ".join(f'{name}="{value}"' for name, value in quotable if value)
    return f"Bearer {pairs}" if pairs else "Bearer"


def _quotable(value: str) -> str:
    """Leave out what no parameter of a challenge may hold (RFC 6750 section 3)."""
    return "".join(c for c in value if " " <= c <= "~" and c not in '"\\')


def _union(denial: InsufficientScope) -> str:
    """Name what is granted and what is missing: older clients replace their scopes by what a challenge names."""
    wanted = {*denial.granted, *denial.required.split()}
    return " ".join((*(scope for scope in SCOPES if scope in wanted), *sorted(wanted.difference(SCOPES))))
