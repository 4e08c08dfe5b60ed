"""Envoy: verifies tokens and keeps them in its cache, parses MCP, limits by itself, and writes an access log."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench import credentials
from tests.bench.contenders.contender import Contender
from tests.bench.credentials import Credentials
from tests.bench.processes import free_port, listens, running
from tests.bench.upstream import Upstream

_REQUESTS: Final = 1_000_000
_WINDOW_S: Final = 60
_CACHED_TOKENS: Final = 10_000
_MAX_BODY_BYTES: Final = 4_194_304
_TYPE: Final = "type.googleapis.com/envoy.extensions."
_FILTERS: Final = f"{_TYPE}filters.http."


class _Envoy(Contender):
    admin_port: int

    def counted(self) -> int | None:
        url = f"http://127.0.0.1:{self.admin_port}/stats?filter=http_local_rate_limit.ok$"
        with urllib.request.urlopen(url) as answer:
            return int(answer.read().rpartition(b":")[2] or 0)


@contextlib.contextmanager
def envoy(executable: str, directory: Path, upstream: Upstream, issuer: Credentials) -> Iterator[Contender]:
    """Run it with one worker thread."""
    home = directory / f"envoy-{time.monotonic_ns()}"
    home.mkdir()
    port, admin_port = free_port(), free_port()
    settings = home / "envoy.json"
    settings.write_text(json.dumps(_settings(port, admin_port, upstream, issuer)))
    command = [executable, "-c", str(settings), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    with running("envoy", command, directory, lambda: listens(port)) as process:
        credential = (("Authorization", f"Bearer {issuer.token()}"),)
        contender = _Envoy("envoy", port, process, upstream, credential, account=credentials.ACCOUNT)
        contender.admin_port = admin_port
        yield contender


def _settings(port: int, admin_port: int, upstream: Upstream, issuer: Credentials) -> dict[str, Any]:
    return {
        "admin": {"address": _address(admin_port)},
        "static_resources": {
            "listeners": [
                {
                    "name": "public",
                    "address": _address(port),
                    "filter_chains": [
                        {"filters": [_extension("filters.network.", "http_connection_manager", _hcm(issuer))]}
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "mcp",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "circuit_breakers": {"thresholds": [dict.fromkeys(_BREAKERS, 1_000_000)]},
                    "load_assignment": {
                        "cluster_name": "mcp",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream.port)}}]}],
                    },
                }
            ],
        },
    }


_BREAKERS: Final = ("max_connections", "max_pending_requests", "max_requests")


def _hcm(issuer: Credentials) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "mcp", "timeout": "0s"}}
    return {
        "stat_prefix": "public",
        "stream_idle_timeout": "0s",
        "preserve_external_request_id": True,
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": f"{_TYPE}access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/null",
                    "log_format": {"json_format": _LOGGED},
                },
            }
        ],
        "route_config": {"virtual_hosts": [{"name": "mcp", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            _extension("filters.http.", "jwt_authn", _jwt_authn(issuer), "JwtAuthentication"),
            _extension("filters.http.", "mcp", _MCP, "Mcp"),
            _extension("filters.http.", "local_ratelimit", _local_rate_limit(), "LocalRateLimit"),
            _extension("filters.http.", "router", {}, "Router"),
        ],
    }


_LOGGED: Final = {
    "ts": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "account": "%REQ(X-ACCOUNT-ID)%",
    "route": "%REQ(:PATH)%",
    "method": "%DYNAMIC_METADATA(envoy.filters.http.mcp:method)%",
    "tool": "%DYNAMIC_METADATA(envoy.filters.http.mcp:params:name)%",
    "status": "%RESPONSE_CODE%",
    "reason": "%RESPONSE_CODE_DETAILS%",
    "duration_ms": "%DURATION%",
    "upstream_ms": "%RESPONSE_DURATION%",
}
_MCP: Final = {"traffic_mode": "REJECT_NO_MCP", "max_request_body_size": _MAX_BODY_BYTES}


def _jwt_authn(issuer: Credentials) -> dict[str, Any]:
    provider = {
        "issuer": credentials.ISSUER,
        "audiences": [credentials.AUDIENCE],
        "local_jwks": {"inline_string": issuer.jwks},
        "jwt_cache_config": {"jwt_cache_size": _CACHED_TOKENS},
        "claim_to_headers": [{"header_name": "X-Account-Id", "claim_name": "sub"}],
    }
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}
    return {"providers": {"issuer": provider}, "rules": [rule]}


def _local_rate_limit() -> dict[str, Any]:
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "stat_prefix": "account",
        "token_bucket": {"max_tokens": _REQUESTS, "tokens_per_fill": _REQUESTS, "fill_interval": f"{_WINDOW_S}s"},
        "filter_enabled": always,
        "filter_enforced": always,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _extension(
    family: str, name: str, settings: dict[str, Any], message: str = "HttpConnectionManager"
) -> dict[str, Any]:
    full = f"envoy.{family}{name}"
    kind = f"type.googleapis.com/envoy.extensions.{family}{name}.v3.{message}"
    return {"name": full, "typed_config": {"@type": kind, **settings}}
