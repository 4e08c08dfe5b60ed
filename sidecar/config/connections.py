"""The settings of what connects: clients and orchestrators to us, and we to the upstream and the store."""
# ruff: noqa: RUF009 - `setting` declares fields, it makes no values

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from sidecar.config import urls
from sidecar.config import values as v
from sidecar.config.certificates import ClientTlsConfig, ServerTlsConfig, client_tls, server_tls
from sidecar.config.reader import listed, optional, setting

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Where clients connect. Port 0 takes any free one."""

    host: str = setting(urls.host, "127.0.0.1")
    port: int = setting(v.whole(0, 65535), 8080)
    tls: ServerTlsConfig = server_tls()


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """Where the orchestrator and Prometheus connect."""

    host: str = setting(urls.host, "127.0.0.1")
    port: int = setting(v.whole(0, 65535), 9090)


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """The MCP server behind us."""

    url: str = setting(urls.upstream_url, "http://127.0.0.1:3000/mcp", shown=urls.without_credentials)
    socket: str | None = setting(optional(v.socket_path), None)
    tls: ClientTlsConfig = client_tls()
    sharing: Literal["shared", "per_account"] = setting(v.one_of(("shared", "per_account")), "shared")
    pass_headers: tuple[str, ...] = setting(listed(v.pass_header), ())
    """In lower case."""
    connect_timeout_s: float = setting(v.above_zero(_DAY_S, of="seconds"), 5)
    response_timeout_s: float = setting(v.above_zero(_DAY_S, of="seconds"), 300)
    stream_idle_timeout_s: float = setting(v.above_zero(_DAY_S, of="seconds"), 600)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where keys, limits and revocations are kept."""

    url: str = setting(urls.store_url, "sqlite:///data/sidecar.db", shown=urls.without_credentials)
    tls: ClientTlsConfig = client_tls()

    @property
    def sqlite_path(self) -> str | None:
        """The file of the embedded store; None when the store is shared."""
        return self.url.removeprefix("sqlite:///") if self.url.startswith("sqlite:///") else None
