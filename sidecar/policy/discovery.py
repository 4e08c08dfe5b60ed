"""What does a refused client need to know to find its way to a credential?"""

from __future__ import annotations

from sidecar.denials import Denial, InsufficientScope
from sidecar.model import SCOPES, CredentialKind


def challenge(denial: Denial, accepts: tuple[CredentialKind, ...]) -> str | None:
    """Return the `WWW-Authenticate` value for a refusal, or None where none belongs.

    RFC 6750 section 3: no `error` when no credential came. A route that takes JWTs sends Bearer and nothing else,
    because client libraries read the first challenge only; a route for keys alone sends a scheme that starts no login.
    """
    if "jwt" not in accepts:
        return 'ApiKey realm="mcp"' if denial.status == 401 else None
    if isinstance(denial, InsufficientScope):
        wanted = {*denial.granted, *denial.required.split()}
        scopes = " ".join((*(scope for scope in SCOPES if scope in wanted), *sorted(wanted.difference(SCOPES))))
        return f'Bearer error="insufficient_scope", scope="{scopes}"'
    if denial.status != 401:
        return None
    return "Bearer" if denial.reason == "credential_missing" else 'Bearer error="invalid_token"'
