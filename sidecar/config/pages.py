"""The settings of the pages for people."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config import values as v
from sidecar.config.reader import listed, optional, setting


@dataclass(frozen=True, slots=True)
class KeyPageConfig:
    """How people sign in in the browser, at the first of `jwt.issuers`."""

    client_id: str | None = setting(optional(v.text(255, "a client's id")), None)
    scopes: tuple[str, ...] = setting(listed(v.token), ("openid",))
