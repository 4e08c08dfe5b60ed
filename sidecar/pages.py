"""How are the pages for people put together? What they are told, whom they ask, and how often they may be asked for."""

from __future__ import annotations

import time
from typing import Any

from sidecar.config import Config
from sidecar.edge import key_page
from sidecar.edge.embedded import MemoryLimits
from sidecar.edge.http.pages import Find, Pages
from sidecar.edge.jwks.sign_in import SignIn
from sidecar.edge.telemetry import Telemetry
from sidecar.policy import key_requests, sign_in


def pages(config: Config, telemetry: Telemetry) -> Pages:
    """Return the pages, as these settings have them."""
    return Pages(key_page.contents(), told(config), _find(config, telemetry), MemoryLimits(time.time).spend)


def told(config: Config) -> dict[str, Any]:
    """Return what the pages have to know. It is told to everyone, and nothing of it is secret.

    People sign in at the first of the issuers: one, so that nobody has to know which is theirs.
    """
    issuer = config.jwt.issuers[0] if config.jwt.issuers else None
    by_token = [config.public_url + route.path for route in config.routes if "jwt" in route.credentials]
    by_key = [config.public_url + route.path for route in config.routes if "api_key" in route.credentials]
    return {
        "publicUrl": config.public_url,
        "issuer": None if issuer is None else issuer.issuer,
        "clientId": config.key_page.client_id,
        "scopes": " ".join(config.key_page.scopes),
        "resource": None if issuer is None else sign_in.resource(by_token, issuer.audiences),
        "keyUrl": by_key[0] if by_key else None,
        "defaultScopes": list(config.api_keys.default_scopes),
        "defaultExpiryDays": config.api_keys.default_expiry_days,
        "maxExpiryDays": key_requests.MAX_EXPIRY_DAYS,
        "rotationGraceSeconds": config.api_keys.rotation_grace_s,
    }


def _find(config: Config, telemetry: Telemetry) -> Find:
    if config.key_page.client_id is None or not config.jwt.issuers:
        return _nowhere

    def report(issuer: str, problem: str) -> None:
        telemetry.event("sign_in_unavailable", level="warning", issuer=issuer, problem=problem)

    return SignIn(config.jwt.issuers[0].issuer, report=report, clock=time.monotonic).endpoints


async def _nowhere() -> None:
    return None
