"""The settings of who may do what, and of whether it holds already."""
# ruff: noqa: RUF009 - `setting` and `nested` declare fields, they make no values

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.config import files, urls
from sidecar.config import values as v
from sidecar.config.reader import listed, nested, optional, setting


@dataclass(frozen=True, slots=True)
class ModeConfig:
    """Which guards only take note of what they would refuse."""

    scopes: Literal["enforce", "shadow"] = setting(v.one_of(("enforce", "shadow")), "enforce")
    limits: Literal["enforce", "shadow"] = setting(v.one_of(("enforce", "shadow")), "enforce")
    confirmation: Literal["enforce", "shadow"] = setting(v.one_of(("enforce", "shadow")), "enforce")


@dataclass(frozen=True, slots=True)
class ToolsConfig:
    """What tools do, by exact name or glob; stronger than what the upstream says of them."""

    read: tuple[str, ...] = setting(listed(v.glob), ())
    write: tuple[str, ...] = setting(listed(v.glob), ())
    destructive: tuple[str, ...] = setting(listed(v.glob), ())


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """How a tool's class is known."""

    trust_annotations: bool = setting(v.flag, True)
    filter_lists: Literal["keys", "all", "none"] = setting(v.one_of(("keys", "all", "none")), "keys")
    tools: ToolsConfig = nested(ToolsConfig)


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Who is told of calls that wait for an approval; null is nobody. The query of the URL may be secret."""

    url: str | None = setting(optional(urls.plain_url), None, shown=urls.without_credentials)
    secret: bytes | None = setting(optional(files.shared_secret_file), None, key="secret_file", secret=True)


@dataclass(frozen=True, slots=True)
class ConfirmationConfig:
    """Which calls a person has to confirm, and how long is waited for them."""

    tools: Literal["declared", "writes", "never"] = setting(v.one_of(("declared", "writes", "never")), "declared")
    approver: Literal["caller", "other"] = setting(v.one_of(("caller", "other")), "caller")
    approver_clients: tuple[str, ...] = setting(listed(v.text(255, "a client's id")), ())
    hold_s: int = setting(v.whole(1, 3600, of="seconds"), 50)
    ttl_s: int = setting(v.whole(1, 86_400, of="seconds"), 900)
    webhook: WebhookConfig = nested(WebhookConfig)
