"""The settings: ``config.yaml`` and the environment as one frozen `Config`, read and checked once, at start.

Only `app` and `cli` see them; everything else is given values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from sidecar.config.access import AccessConfig, ModeConfig, ToolsConfig
from sidecar.config.advice import warnings
from sidecar.config.certificates import ClientTlsConfig, ServerTlsConfig
from sidecar.config.connections import AdminConfig, ListenConfig, StoreConfig, UpstreamConfig
from sidecar.config.crosscheck import CROSS_RULES
from sidecar.config.document import ConfigError, Problem, ReadFile
from sidecar.config.journals import AuditConfig, LogConfig, TracingConfig
from sidecar.config.pages import KeyPageConfig
from sidecar.config.reader import listing, read, section
from sidecar.config.restart import changed, settled
from sidecar.config.sections import (
    ApiKeysConfig,
    CatalogueConfig,
    Config,
    DrainConfig,
    FailedAuthConfig,
    IdentityConfig,
    IssuerConfig,
    JwtConfig,
    LimitsConfig,
    ManagementConfig,
    SessionsConfig,
    StreamsConfig,
)

__all__ = [
    "AccessConfig",
    "AdminConfig",
    "ApiKeysConfig",
    "AuditConfig",
    "CatalogueConfig",
    "ClientTlsConfig",
    "Config",
    "ConfigError",
    "DrainConfig",
    "FailedAuthConfig",
    "IdentityConfig",
    "IssuerConfig",
    "JwtConfig",
    "KeyPageConfig",
    "LimitsConfig",
    "ListenConfig",
    "LogConfig",
    "ManagementConfig",
    "ModeConfig",
    "Problem",
    "ReadFile",
    "ServerTlsConfig",
    "SessionsConfig",
    "StoreConfig",
    "StreamsConfig",
    "ToolsConfig",
    "TracingConfig",
    "UpstreamConfig",
    "changed",
    "defaults",
    "load",
    "settings",
    "settled",
    "warnings",
]

_CONFIG: Final = section(Config)
_NO_OVERRIDES: Final[Mapping[str, str]] = MappingProxyType({})


def load(
    text: str,
    environ: Mapping[str, str],
    read_file: ReadFile,
    overrides: Mapping[str, str] = _NO_OVERRIDES,
) -> Config:
    """Read the text of ``config.yaml``; empty text means all defaults.

    Args:
        text: one YAML document.
        environ: where ``${NAME}`` is looked up.
        read_file: returns the content of a file that a key names, raising `OSError` when it can't.
        overrides: values that come from the command line, by dotted key (``listen.port``), written as in the file
            and held to the same rules.

    Raises:
        ConfigError: with every problem at once.
    """
    config = read(text, environ, read_file, _CONFIG, CROSS_RULES, overrides)
    issuers = tuple(_with_audiences(issuer, config) for issuer in config.jwt.issuers)
    return replace(config, jwt=replace(config.jwt, issuers=issuers))


def defaults() -> Config:
    """Return what an empty file means."""
    return Config()


def settings(config: Config) -> dict[str, Any]:
    """Return the settings in effect as plain data in the shape of the file, secrets hidden."""
    plain: dict[str, Any] = listing(config)
    return plain


def _with_audiences(issuer: IssuerConfig, config: Config) -> IssuerConfig:
    if issuer.audiences:
        return issuer
    return replace(
        issuer, audiences=tuple(config.public_url + route.path for route in config.routes if "jwt" in route.credentials)
    )
