"""The shipped ``config.yaml`` is the reference: complete, true to the code, and good to start with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config import JwtConfig, defaults, settings, warnings
from tests.config_files import loaded

FILE = Path(__file__).parent.parent / "config.yaml"


def keys(data: Any, prefix: str = "") -> set[str]:
    """Return every dotted key, items of a list taken together."""
    if isinstance(data, dict):
        below = {name: keys(value, f"{prefix}.{name}" if prefix else name) for name, value in data.items()}
        return set().union(*below.values(), *({f"{prefix}.{name}" if prefix else name} for name in data))
    if isinstance(data, list):
        return set().union(*(keys(item, f"{prefix}[]") for item in data))
    return set()


def test_the_shipped_file_loads_and_equals_the_defaults_but_for_the_example_issuer() -> None:
    config = loaded(FILE.read_text("utf-8"))
    assert replace(config, jwt=JwtConfig()) == defaults()
    (example,) = config.jwt.issuers
    assert example.audiences == ("https://mcp.example/mcp",)
    assert example.default_scopes == ("mcp:full",)
    (bare,) = loaded("jwt: {issuers: [{issuer: 'https://idp.example'}]}").jwt.issuers
    assert replace(example, audiences=bare.audiences, default_scopes=()) == bare


def test_the_shipped_file_names_every_known_key_and_no_other() -> None:
    text = FILE.read_text("utf-8")
    written = keys(yaml.safe_load(text))
    assert written == keys(settings(loaded(text)))
    assert all(f"{name}: " in text for name in ("private_key_file", "secret_file", "- id"))


def test_the_shipped_file_warns_of_what_is_not_configured() -> None:
    found = warnings(loaded(FILE.read_text("utf-8")))
    assert len(found) == 3
    assert all("idp.example" in warning for warning in found[:2])
    assert "identity.keys" in found[2]


def test_the_settings_for_a_container_by_itself_are_reached_from_outside_and_write_to_the_volume_alone() -> None:
    config = loaded((FILE.parent / "deploy" / "alone" / "config.yaml").read_text("utf-8"))
    assert (config.listen.host, config.admin.host, config.require_https) == ("0.0.0.0", "0.0.0.0", "never")  # noqa: S104 - text of settings
    assert config.store.sqlite_path == "/var/lib/sidecar/sidecar.db"
    assert not config.upstream.url.startswith("http://127.")


def test_settings_are_plain_data() -> None:
    shown = settings(loaded(FILE.read_text("utf-8")))
    assert json.loads(json.dumps(shown)) == shown


ANY = {"host": "0.0.0.0"}  # noqa: S104 - text of a setting
HTTPS, PROXY = {"public_url": "https://mcp.test"}, {"trusted_proxies": ["10.0.0.0/8"]}
PAGES: dict[str, Any] = {"key_page": {"client_id": "pages"}}
QUIET = {
    "jwt": {"issuers": [{"issuer": "https://idp.test"}]},
    "listen": {"host": "127.0.0.1"},
}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"jwt": {"issuers": []}}, "jwt.issuers is empty"),
        ({"jwt": {"issuers": [{"issuer": "https://idp.example/x"}]}}, "example"),
        ({"jwt": {"issuers": [{"issuer": "https://idp.test", "default_scopes": ["mcp:full"]}]}}, "mcp:full"),
        ({"jwt": {"issuers": [{"issuer": "https://idp.test", "default_scopes": ["mcp:read"]}]}}, None),
        ({"jwt": {"issuers": [{"issuer": "http://idp.test"}]}}, "plain http"),
        ({"jwt": {"issuers": [{"issuer": "https://idp.test", "jwks_url": "http://a.test/k"}]}}, "plain http"),
        ({"jwt": {"issuers": [{"issuer": "http://idp.test", "jwks_url": "https://a.test/k"}]}}, None),
        ({"jwt": {"issuers": [{"issuer": "http://idp.test", "secret_file": "hs256"}]}}, None),
        ({"jwt": {"issuers": [{"issuer": "http://localhost:9000"}]}}, None),
        ({"access": {"trust_annotations": False}}, "access.tools is empty"),
        ({"access": {"trust_annotations": False, "tools": {"read": ["get_*"]}}}, None),
        ({"listen": ANY, **PROXY}, "public_url is plain http"),
        ({"listen": ANY, **HTTPS}, "HTTPS_REQUIRED"),
        ({"listen": ANY, **HTTPS, **PROXY}, None),
        ({"listen": ANY, **HTTPS, "require_https": "never"}, "require_https is never"),
        ({"require_https": "never"}, None),
        ({"upstream": {"url": "http://mcp.internal/mcp"}}, "upstream.url"),
        ({"upstream": {"url": "https://mcp.internal/mcp"}}, None),
        ({"upstream": {"url": "http://[::1]:3000/mcp"}}, None),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "trusted_proxies"),
        ({"allowed_hosts": ["*"]}, "allowed_hosts"),
        ({"allowed_hosts": ["*.example", "mcp.internal"]}, None),
        ({"allowed_origins": ["null"]}, "allowed_origins"),
        ({"allowed_origins": ["https://app.example"]}, None),
        ({"identity": {"keys": []}}, "identity.keys"),
        ({"tracing": {"otlp_endpoint": "http://collector:4317"}}, "4318"),
        ({"tracing": {"otlp_endpoint": "http://collector:4318"}}, None),
        ({"access": {"tools": {"read": ["*"]}}}, "access.tools.read has *"),
        ({"access": {"tools": {"read": ["get_*", "**"]}}}, "access.tools.read has **"),
        ({"access": {"tools": {"write": ["*"], "destructive": ["***"]}}}, None),
        ({"access": {"tools": {"read": ["a", "b"], "write": ["a"]}}}, "access.tools: a stands in write and read"),
        ({"access": {"tools": {"read": ["a"], "destructive": ["a"]}}}, "destructive counts"),
        ({"access": {"tools": {"read": ["a"], "write": ["a"], "destructive": ["a"]}}}, "destructive counts"),
        ({"access": {"tools": {"write": ["a*"], "read": ["a"]}}}, None),
        ({"api_keys": {"default_scopes": ["mcp:read", "mcp:full"]}}, "api_keys.default_scopes"),
        ({"api_keys": {"default_scopes": ["mcp:read", "mcp:tools:call"]}}, None),
        ({"limits": {"policies": []}}, "limits.policies is empty"),
        ({"limits": {"policies": [{"name": "a", "requests": 1, "window_s": 1}]}}, None),
        ({"limits": {"on_store_failure": "allow"}}, "limits.on_store_failure"),
        ({"limits": {"on_store_failure": "deny"}}, None),
        ({"mode": {"scopes": "shadow"}}, "mode.scopes is shadow"),
        ({"mode": {"limits": "shadow"}}, "mode.limits is shadow"),
        ({"mode": {"scopes": "enforce"}}, None),
        ({"audit": {"file": "audit.log", "arguments": "full"}}, "audit.redact is empty"),
        ({"audit": {"file": "audit.log", "arguments": "full", "redact": ["password"]}}, None),
        ({"audit": {"file": "audit.log"}}, None),
        ({"audit": {"arguments": "full"}}, None),
        (PAGES, None),
        ({**PAGES, "public_url": "http://mcp.internal"}, "browsers sign nobody in"),
        ({**PAGES, **HTTPS}, None),
        ({"public_url": "http://mcp.internal"}, None),
        ({**PAGES, "api_keys": {"management": {"client_ids": ["cli"]}}}, "does not name pages"),
        ({**PAGES, "api_keys": {"management": {"client_ids": ["cli", "pages"]}}}, None),
        ({"api_keys": {"management": {"client_ids": ["cli"]}}}, None),
    ],
)
def test_what_is_legal_and_probably_not_wanted_is_a_warning(change: dict[str, Any], word: str | None) -> None:
    signing = {"identity": {"keys": [{"id": "a", "private_key_file": "identity.pem"}]}}
    found = warnings(loaded(yaml.safe_dump(QUIET | signing | change)))
    assert len(found) == (0 if word is None else 1)
    assert all(word is not None and word in warning for warning in found)
