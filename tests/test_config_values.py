"""What each single value and each list of the settings may be."""

from __future__ import annotations

import ipaddress
import operator
from typing import Any

import pytest
import yaml

from sidecar.policy.identity import usable_account
from tests.config_files import loaded, refused


def value_of(text: str, key: str) -> Any:
    """Follow a dotted key into the loaded settings."""
    return operator.attrgetter(key)(loaded(text))


def nested_yaml(key: str, value: str) -> str:
    """Write one dotted key as YAML, with the value on the last line."""
    names = key.split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(names)]
    return "\n".join(lines) + f" {value}\n"


ALLOWED = [
    ("public_url", ["https://mcp.example", "http://127.0.0.1:8080", "http://[::1]:8080", "http://a_b:1"]),
    ("listen.host", ["0.0.0.0", "'::'", "localhost", "fe80::1", "a.b-c"]),  # noqa: S104 - text of a setting
    ("listen.port", ["0", "65535"]),
    ("admin.port", ["0", "65535"]),
    ("max_body_bytes", ["1", "1073741824"]),
    ("upstream.url", ["https://a.example", "http://a:1/b/c?d=e&f=%20", "http://[::1]/", "http://10.0.0.1:65535/x"]),
    ("upstream.connect_timeout_s", ["0.001", "86400"]),
    ("upstream.response_timeout_s", ["0.001", "86400"]),
    ("upstream.stream_idle_timeout_s", ["0.001", "86400"]),
    ("api_keys.bcrypt_cost", ["4", "16"]),
    ("api_keys.default_expiry_days", ["1", "3650"]),
    ("api_keys.rotation_grace_s", ["0", "604800"]),
    ("api_keys.max_per_account", ["1", "1000000"]),
    ("api_keys.offline_grace_s", ["0", "86400"]),
    ("api_keys.management.scope", ["null", "keys:manage"]),
    ("access.trust_annotations", ["true", "false"]),
    ("confirmation.tools", ["declared", "writes", "never"]),
    ("confirmation.approver", ["caller", "other"]),
    ("confirmation.hold_s", ["1", "3600"]),
    ("confirmation.ttl_s", ["1", "86400"]),
    ("catalogue.refresh_s", ["1", "86400"]),
    ("catalogue.account", ["null", "a|b:c@d+e/f=-._9"]),
    ("limits.on_store_failure", ["local", "deny", "allow"]),
    ("limits.local_share", ["0.01", "1", "1.0"]),
    ("limits.failed_auth.requests", ["1", "1000000"]),
    ("limits.failed_auth.window_s", ["1", "2592000"]),
    ("identity.algorithm", ["ed25519", "hmac-sha256"]),
    ("identity.ttl_s", ["1", "3600"]),
    ("store.url", ["sqlite:///a.db", "sqlite:////var/lib/a.db"]),
    ("workers", ["1"]),
    ("log.level", ["debug", "info", "warning", "error"]),
    ("audit.file", ["audit.log", "/var/lib/sidecar/audit.log"]),
    ("audit.arguments", ["none", "digest", "full"]),
    ("key_page.client_id", ["null"]),
    ("tracing.otlp_endpoint", ["null", "http://collector:4318/v1/traces", "https://[::1]/a/v1/traces"]),
    ("log.access", ["true", "false"]),
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ALLOWED for value in values])
def test_what_is_allowed_is_taken_as_it_is_written(key: str, value: str) -> None:
    found = value_of(nested_yaml(key, value), key)
    assert found == yaml.safe_load(value)


REFUSED = [
    (
        "public_url",
        [
            *("mcp.example", "ftp://a.example", "http://", "http://a.example/", "https://a.example/mcp", "''"),
            *("https://A.example", "HTTPS://a.example", "https://u@a.example", "https://a.example?x", "https://:8"),
            *("https://a.example#x", "https://a.example:443", "http://a.example:80", "https://a.example:0", "null"),
            *(
                "'https://a.example:'",
                "https://a.example:65536",
                "https://a b",
                "https://1.2.3",
                "'https://a.example '",
            ),
        ],
    ),
    ("listen.host", ["''", "null", "a b", "'[::1]'", "1.2.3", "300.1.1.1", "a/b", "-a"]),
    ("listen.port", ["-1", "65536"]),
    ("admin.port", ["-1", "65536"]),
    ("max_body_bytes", ["0", "-1", "1073741825", "4MiB"]),
    (
        "upstream.url",
        [
            *("a.example", "ws://a.example", "http:///mcp", "http://u:p@a.example", "http://a.example/#f", "null"),
            *(
                "http://a.example:x",
                "http://a.example/a b",
                "http://a.example\\@b",
                '"http://a.exa\\tmple"',
                "http://[::1",
            ),
        ],
    ),
    ("upstream.connect_timeout_s", ["0", "-1", "86401"]),
    ("upstream.response_timeout_s", ["0", "-1", "86401"]),
    ("upstream.stream_idle_timeout_s", ["0", "null", "86401"]),
    ("api_keys.bcrypt_cost", ["3", "17"]),
    ("api_keys.default_expiry_days", ["0", "3651"]),
    ("api_keys.rotation_grace_s", ["-1", "604801", "1.5"]),
    ("api_keys.max_per_account", ["0"]),
    ("api_keys.offline_grace_s", ["-1"]),
    ("api_keys.management.scope", ["'a b'", "''", "'a\"'"]),
    ("key_page.client_id", ["''", "17"]),
    ("confirmation.tools", ["inherit", "null", "true"]),
    ("confirmation.approver", ["null", "both"]),
    ("confirmation.hold_s", ["0", "3601", "1.5"]),
    ("confirmation.ttl_s", ["0", "86401"]),
    ("confirmation.webhook.url", ["''", "chat.example", "https://u:p@chat.example/"]),
    ("catalogue.refresh_s", ["0"]),
    ("catalogue.account", ["''", "a b", "'ä'", "a" * 129, "'a*'"]),
    ("limits.on_store_failure", ["LOCAL", "null", "fail"]),
    ("limits.local_share", ["0", "1.01", "-1", "null"]),
    ("limits.failed_auth.requests", ["0", "1000001"]),
    ("limits.failed_auth.window_s", ["0", "2592001", "60.0"]),
    ("identity.algorithm", ["rsa", "Ed25519"]),
    ("identity.ttl_s", ["0", "3601"]),
    (
        "store.url",
        [
            *(
                "sqlite://a.db",
                "sqlite:///",
                "sqlite:////",
                "sqlite:///a/",
                "'sqlite:///:memory:'",
                "sqlite:///a?b",
                "x",
            ),
            *("redis://", "redis://h:0", "redis://h/x", "redis://h?ssl_cert_reqs=none", "redis://h/0/1", "redis://h#a"),
            *("unix://", "unix:///a?password=b", "postgres://h", "null", "'redis://a b'", "unix+cluster://h"),
            *("redis+sentinel://h", "redis+sentinel://h/", "redis+sentinel:///m", "redis+sentinel://h,/m"),
            *("redis+sentinel://h:0/m", "redis+sentinel://h:x/m", "redis+sentinel://h/m/x", "redis+sentinel://h/m/0/1"),
            *(
                "redis+sentinel://h/m?a=b",
                "redis+sentinel://h/a b",
                "redis+sentinel://u@v@h/m",
                "redis+sentinel://h/m#x",
            ),
            *("redis+sentinel://h:1:2/m", "redis+sentinel://u:p:q@h/m", "redis+sentinel://u%zz@h/m"),
            *("redis+cluster://", "redis+cluster://h/0", "redis+cluster://h,,i", "redis+cluster://h?a"),
            *("redis+cluster://h\\i", "redis+cluster://300.1.1.1", "redis+ring://h", "http+cluster://h"),
        ],
    ),
    ("workers", ["0", "257", "auto"]),
    ("log.level", ["INFO", "trace", "30"]),
    ("audit.file", ["''", "17", "true"]),
    ("audit.arguments", ["Digest", "null", "redacted", "all"]),
    ("audit.redact", ["password"]),
    (
        "tracing.otlp_endpoint",
        [
            *("collector:4318", "grpc://collector:4317", "http://", "http://u:p@collector:4318", "''", "17"),
            *("http://collector:4318?a", "http://collector:4318#a", "http://collector:x", "'http://a b:4318'"),
            *("'http://c:4318/\r\nX: y'", '"http://c:4318/\\r\\nX: y"', "http://c:4318/ä"),
        ],
    ),
]


@pytest.mark.parametrize("value", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"])
def test_a_collector_may_be_named_with_or_without_the_path_of_traces(value: str) -> None:
    found = value_of(nested_yaml("tracing.otlp_endpoint", value), "tracing.otlp_endpoint")
    assert found == "http://c:4318/v1/traces"


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED for value in values])
def test_what_is_not_allowed_is_refused_by_key_and_line(key: str, value: str) -> None:
    assert refused(nested_yaml(key, value)) == [(key, key.count(".") + 1)]


LISTS_REFUSED = [
    ("trusted_proxies", ["10.0.0.1/8", "a.example", "10.0.0.0/33", "''", "10.0.0.0 - 10.0.0.9"]),
    (
        "allowed_hosts",
        [
            *(
                "''",
                "null",
                "'a b'",
                "https://a.example",
                "a.example/",
                "a.example:0",
                "a.example:65536",
                "'a.example:'",
            ),
            *("a.example:x", "'*.'", "'*:80'", "'a.*'", "'**'", "'*a'", "'::1'", "'[::1'", "'[zz]'", "300.1.1.1"),
            *("'*.127.0.0.1'", "'*.[::1]'", "'a@b'", "'ä.example'", "a" * 256, "17"),
        ],
    ),
    (
        "allowed_origins",
        [
            *(
                "''",
                "null",
                "'*'",
                "a.example",
                "a.example:80",
                "https://",
                "https://a.example/",
                "https://a.example/b",
            ),
            *("'https://*.example'", "https://a.example:0", "https://a.example:65536", "https://u@a.example"),
            *("'https://a.example:'", "'https://a.example https://b.example'", "https://a.example?x", "file://"),
            *("'https://[zz]'", "https://1.2.3", "'https://ä.example'", "'//a.example'", "'1http://a'"),
        ],
    ),
    ("jwt.advertised_scopes", ["mcp:all", "offline_access", "''", "'mcp:full '", "17"]),
    (
        "upstream.pass_headers",
        [
            *("X_Tenant", "''", "'a b'", "'a:'", "Authorization", "X-API-Key", "x_api_key", "Cookie", "Proxy-Anything"),
            *("Proxy-Authorization", "Host", "Content-Length", "Content_Length", "Content-Encoding", "TE", "Trailer"),
            *("Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "Expect", "Forwarded", "X-Forwarded-For"),
            *("X-Real-IP", "X-Account-Id", "X_ACCOUNT_ID", "X-Account-Other", "X-Auth-Subject", "X-Request-Id"),
            *("Content-Digest", "Signature", "Signature-Input", "Origin", "Accept-Encoding"),
        ],
    ),
    ("api_keys.default_scopes", ["mcp:all", "''", "'mcp:full '", "17"]),
    ("api_keys.management.client_ids", ["''", "null"]),
    ("confirmation.approver_clients", ["''", "null"]),
    ("access.tools.read", ["''", "'" + "a" * 257 + "'", '"a\\nb"', '"\\u0085"', "null", "17"]),
    ("access.tools.write", ["''", '"\\x7f"']),
    ("access.tools.destructive", ["''", "[]"]),
    ("audit.redact", ["''", "17", "null"]),
    ("key_page.scopes", ["''", "'a b'", "null"]),
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in LISTS_REFUSED for value in values])
def test_one_bad_value_of_a_list_is_refused_by_its_index(key: str, value: str) -> None:
    assert refused(f"{nested_yaml(key, '')}  - {value}\n".replace("\n  -", f"\n{'  ' * key.count('.')}  -")) == [
        (f"{key}[0]", key.count(".") + 2)
    ]


def test_keys_are_made_with_one_scope_at_least() -> None:
    assert refused("api_keys:\n  default_scopes: []\n") == [("api_keys.default_scopes", 2)]
    assert refused("api_keys:\n  default_scopes: null\n") == [("api_keys.default_scopes", 2)]


def test_lists_keep_what_they_are_given() -> None:
    config = loaded(
        "trusted_proxies: [10.0.0.0/8, 'fd00::/8', 192.0.2.1]\n"
        "upstream: {pass_headers: [X-Tenant, accept-charset]}\n"
        "access: {tools: {read: ['get_*', 'list'], destructive: ['löschen*']}}\n"
        "api_keys: {default_scopes: ['mcp:tools:list', 'mcp:read'], management: {client_ids: [a, b c]}}\n"
    )
    assert config.trusted_proxies == tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "fd00::/8", "192.0.2.1/32")))
    assert config.upstream.pass_headers == ("x-tenant", "accept-charset")
    assert config.access.tools.read == ("get_*", "list")
    assert config.access.tools.destructive == ("löschen*",)
    assert config.api_keys.default_scopes == ("mcp:read", "mcp:tools:list")
    assert config.api_keys.management.client_ids == ("a", "b c")


def test_hosts_origins_and_scopes_may_be_written_in_any_case_and_order() -> None:
    hosts = ["MCP.example", "mcp.internal:8080", "*.Example", "[::1]:8080", "10.0.0.1", "*"]
    origins = ["https://App.example", "http://localhost:6274", "http://[::1]:8080", "chrome-extension://abc", "null"]
    scopes = ["mcp:tools:list", "mcp:read"]
    config = loaded(
        yaml.safe_dump(
            {"allowed_hosts": hosts, "allowed_origins": origins, "jwt": {"advertised_scopes": scopes, "issuers": []}}
        )
    )
    assert config.allowed_hosts == tuple(host.lower() for host in hosts)
    assert config.allowed_origins == tuple(origin.lower() for origin in origins)
    assert config.jwt.advertised_scopes == ("mcp:read", "mcp:tools:list")


def test_a_list_refuses_the_same_value_twice() -> None:
    assert refused("upstream: {pass_headers: [X-Tenant, x-tenant]}") == [("upstream.pass_headers[1]", 1)]


@pytest.mark.parametrize("account", ["a", "A|b:c@d.e+f/g=h_i-9", "a" * 128, "a b", "ä", "", "a" * 129, "a,b"])
def test_accounts_of_the_settings_are_those_that_the_upstream_can_be_told(account: str) -> None:
    text = f"catalogue: {{account: '{account}'}}"
    if usable_account(account):
        assert loaded(text).catalogue.account == account
    else:
        assert refused(text) == [("catalogue.account", 1)]
