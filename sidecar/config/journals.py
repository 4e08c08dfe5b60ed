"""The settings of what the sidecar writes down of itself and of its callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sidecar.config import urls
from sidecar.config import values as v
from sidecar.config.reader import listed, optional, setting

_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log on standard output."""

    level: str = setting(v.one_of(_LEVELS), "info")
    access: bool = setting(v.flag, True)


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """The signed record of refusals, writes and what is done with keys."""

    file: str | None = setting(optional(v.text(4096, "a path")), None)
    arguments: Literal["none", "digest", "full"] = setting(v.one_of(("none", "digest", "full")), "digest")
    redact: tuple[str, ...] = setting(listed(v.text(256, "a member's name or glob")), ())


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """Spans for a collector."""

    otlp_endpoint: str | None = setting(optional(urls.collector_url), None)
