"""What each setting may be, and what must hold between them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from sidecar.config import defaults, settings
from sidecar.model import SCOPES, IdentityKey, Limit, Route
from sidecar.policy.identity import usable_account
from tests.config_files import ED25519, FILES, SECRET, loaded, problems, refused

ISSUER = "https://idp.test"


def issuers(*bodies: str) -> str:
    """One issuer on each line from line 3 on."""
    return "jwt:\n  issuers:\n" + "".join(f"  - {{{body}}}\n" for body in bodies)


def issuer(body: str = "") -> str:
    return issuers(f"issuer: '{ISSUER}'" + (f", {body}" if body else ""))


def value_of(text: str, key: str) -> Any:
    """Follow a dotted key into the settings in effect."""
    value: Any = settings(loaded(text))
    for name in key.split("."):
        value = value[name]
    return value


def nested_yaml(key: str, value: str) -> str:
    """Write one dotted key as YAML, with the value on the last line."""
    names = key.split(".")
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(names)]
    return "\n".join(lines) + f" {value}\n"


ALLOWED = [
    ("public_url", ["https://mcp.example", "http://127.0.0.1:0080", "http://[::1]:8080", "http://a_b:1"]),
    ("listen.host", ["0.0.0.0", "'::'", "localhost", "fe80::1", "a.b-c"]),
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
    ("log.access", ["true", "false"]),
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ALLOWED for value in values])
def test_what_is_allowed_is_taken_as_it_is_written(key: str, value: str) -> None:
    found = value_of(nested_yaml(key, value), key)
    written = {"null": None, "true": True, "false": False}.get(value, value.strip("'"))
    assert found == written or found == float(value)


REFUSED = [
    (
        "public_url",
        [
            *("mcp.example", "ftp://a.example", "http://", "http://a.example/", "https://a.example/mcp", "''"),
            *("https://A.example", "HTTPS://a.example", "https://u@a.example", "https://a.example?x", "https://:8"),
            *("https://a.example#x", "https://a.example:443", "http://a.example:80", "https://a.example:0", "null"),
            *("https://a.example:", "https://a.example:65536", "https://a b", "https://1.2.3", "'https://a.example '"),
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
            *("redis+sentinel://h", "unix://", "unix:///a?password=b", "postgres://h", "null", "'redis://a b'"),
        ],
    ),
    ("workers", ["0", "257", "auto"]),
    ("log.level", ["INFO", "trace", "30"]),
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in REFUSED for value in values])
def test_what_is_not_allowed_is_refused_by_key_and_line(key: str, value: str) -> None:
    assert refused(nested_yaml(key, value)) == [(key, key.count(".") + 1)]


LISTS_REFUSED = [
    ("trusted_proxies", ["10.0.0.1/8", "a.example", "10.0.0.0/33", "''", "10.0.0.0 - 10.0.0.9"]),
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
    ("access.tools.read", ["''", "'" + "a" * 257 + "'", '"a\\nb"', '"\\u0085"', "null", "17"]),
    ("access.tools.write", ["''", '"\\x7f"']),
    ("access.tools.destructive", ["''", "[]"]),
]


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in LISTS_REFUSED for value in values])
def test_one_bad_value_of_a_list_is_refused_by_its_index(key: str, value: str) -> None:
    assert refused(f"{nested_yaml(key, '')}  - {value}\n".replace("\n  -", f"\n{'  ' * key.count('.')}  -")) == [
        (f"{key}[0]", key.count(".") + 2)
    ]


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


def test_a_list_refuses_the_same_value_twice() -> None:
    assert refused("upstream: {pass_headers: [X-Tenant, x-tenant]}") == [("upstream.pass_headers[1]", 1)]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "",
            "mcp",
            "/",
            "/mcp/",
            "//mcp",
            "/a//b",
            "/a?b",
            "/a#b",
            "/a%20b",
            "/a;b",
            "/a\\b",
            "/a b",
            "/.a",
            "/a/..",
            "/ä",
        ),
        *(
            "/api/api-keys",
            "/api/api-keys/x",
            "/.well-known/x",
            "/keys",
            "/keys/callback",
            "/approvals",
            "/approvals/1",
        ),
        *('/a"b', "/<a>", "/a\tb"),
    ],
)
def test_a_path_that_could_be_spelled_twice_or_is_taken_is_no_route(path: str) -> None:
    quoted = path.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    assert refused(f'routes:\n- {{path: "{quoted}", credentials: [jwt]}}\n') == [("routes[0].path", 2)]


@pytest.mark.parametrize("path", ["/mcp", "/api", "/api/api-keys2", "/keys-of-mine", "/a.b/c_d~e", "/v1/mcp@2", "/a:b"])
def test_any_other_path_is_a_route(path: str) -> None:
    assert loaded(f"routes: [{{path: '{path}', credentials: [api_key, jwt], denials: in_band}}]").routes == (
        Route(path, ("api_key", "jwt"), "in_band"),
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("routes: []", ("routes", 1)),
        ("routes: [{path: /a}]", ("routes[0].credentials", 1)),
        ("routes: [{credentials: [jwt]}]", ("routes[0].path", 1)),
        ("routes: [null]", None),
        ("routes: [{path: /a, credentials: []}]", ("routes[0].credentials", 1)),
        ("routes: [{path: /a, credentials: jwt}]", ("routes[0].credentials", 1)),
        ("routes: [{path: /a, credentials: [jwt, jwt]}]", ("routes[0].credentials[1]", 1)),
        ("routes: [{path: /a, credentials: [none]}]", ("routes[0].credentials[0]", 1)),
        ("routes: [{path: /a, credentials: [jwt], denials: quiet}]", ("routes[0].denials", 1)),
        ("routes:\n- {path: /a, credentials: [jwt]}\n- path: /a\n  credentials: [api_key]", ("routes[1].path", 3)),
    ],
)
def test_a_route_names_its_path_once_and_who_may_come_in(text: str, place: tuple[str, int] | None) -> None:
    assert refused(text) == ([place] if place else [("routes[0].credentials", 1), ("routes[0].path", 1)])


def test_an_issuer_has_the_defaults_of_the_code() -> None:
    (one,) = loaded(issuer()).jwt.issuers
    assert one.issuer == ISSUER
    assert (one.jwks_url, one.jwks_file, one.secret) == (None, None, None)
    assert one.algorithms == ("RS256", "ES256", "EdDSA")
    assert (one.account_claim, one.account_prefix, one.scope_claim) == ("sub", "", ("scope", "scp"))
    assert one.default_scopes == ()
    assert one.leeway_s == 30


@pytest.mark.parametrize("audiences", ["", "audiences: null"])
def test_audiences_left_out_are_the_urls_of_the_jwt_routes(audiences: str) -> None:
    text = (
        "public_url: https://mcp.test\n"
        "routes: [{path: /a, credentials: [jwt]}, {path: /b, credentials: [api_key]}, {path: /c, credentials: [api_key, jwt]}]\n"
    )
    assert loaded(text + issuer(audiences)).jwt.issuers[0].audiences == ("https://mcp.test/a", "https://mcp.test/c")


def test_audiences_are_never_empty() -> None:
    assert refused(issuer("audiences: []")) == [("jwt.issuers[0].audiences", 3)]
    assert refused("routes: [{path: /b, credentials: [api_key]}]\n" + issuer()) == [("jwt.issuers[0].audiences", 4)]
    assert loaded(issuer("audiences: [a, 'urn:b']")).jwt.issuers[0].audiences == ("a", "urn:b")


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "idp.test",
            "ftp://idp.test",
            "https://",
            "https://u@idp.test",
            "https://idp.test#a",
            "https://a b",
            "",
            "urn:a",
        ),
    ],
)
def test_an_issuer_is_a_url(bad: str) -> None:
    assert refused(issuers(f"issuer: '{bad}'")) == [("jwt.issuers[0].issuer", 3)]


@pytest.mark.parametrize(
    "url", ["https://idp.test/", "https://IDP.test/a/", "http://127.0.0.1:9000", "https://idp.test/?a"]
)
def test_an_issuer_is_kept_character_by_character(url: str) -> None:
    assert loaded(issuers(f"issuer: '{url}'")).jwt.issuers[0].issuer == url


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("jwks_url: ftp://a", "jwks_url"),
        ("jwks_url: 'https://a', jwks_file: jwks.json", "jwks_file"),
        ("jwks_file: jwks.json, secret_file: hs256", "jwks_file"),
        ("jwks_url: 'https://a', secret_file: hs256", "jwks_url"),
        ("jwks_file: nowhere", "jwks_file"),
        ("jwks_file: locked", "jwks_file"),
        ("jwks_file: empty", "jwks_file"),
        ("jwks_file: ''", "jwks_file"),
        ("jwks_file: jwks-empty.json", "jwks_file"),
        ("jwks_file: jwks-list.json", "jwks_file"),
        ("jwks_file: jwks-nested.json", "jwks_file"),
        ("jwks_file: jwks-binary.json", "jwks_file"),
        ("secret_file: nowhere", "secret_file"),
        ("secret_file: locked", "secret_file"),
        ("secret_file: empty", "secret_file"),
        ("secret_file: hs256-31", "secret_file"),
        ("secret_file: hs256, algorithms: [RS256]", "algorithms"),
        ("secret_file: hs256, algorithms: [HS256, RS256]", "algorithms"),
        ("algorithms: [HS256]", "algorithms"),
        ("algorithms: [RS256, HS256]", "algorithms"),
        ("algorithms: []", "algorithms"),
        ("algorithms: [none]", "algorithms[0]"),
        ("algorithms: [HS512]", "algorithms[0]"),
        ("algorithms: [RS256, RS256]", "algorithms[1]"),
        ("algorithms: null", "algorithms"),
        ("account_claim: ''", "account_claim"),
        ("account_prefix: 'a b'", "account_prefix"),
        ("account_prefix: " + "a" * 128, "account_prefix"),
        ("scope_claim: []", "scope_claim"),
        ("scope_claim: ''", "scope_claim"),
        ("scope_claim: null", "scope_claim"),
        ("scope_claim: {a: b}", "scope_claim"),
        ("scope_claim: [a, '']", "scope_claim[1]"),
        ("scope_claim: [a, a]", "scope_claim[1]"),
        ("default_scopes: ['mcp:everything']", "default_scopes[0]"),
        ("default_scopes: 'mcp:full'", "default_scopes"),
        ("leeway_s: 301", "leeway_s"),
        ("leeway_s: -1", "leeway_s"),
        ("secret: hs256", "secret"),
    ],
)
def test_an_issuer_that_could_not_be_checked_as_written_is_refused(body: str, key: str) -> None:
    assert refused(issuer(body)) == [(f"jwt.issuers[0].{key}", 3)]


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
@pytest.mark.parametrize("other", ["ES256", "ES256K", "ES384", "ES512", "EdDSA"])
def test_every_asymmetric_algorithm_may_be_named(algorithm: str, other: str) -> None:
    assert loaded(issuer(f"algorithms: [{algorithm}, {other}]")).jwt.issuers[0].algorithms == (algorithm, other)


@pytest.mark.parametrize(
    ("file", "secret"),
    [
        ("hs256", SECRET),
        ("hs256-line", SECRET),
        ("hs256-crlf", SECRET),
        ("hs256-lines", SECRET + b"\n"),
        ("hs256-32", b"x" * 32),
    ],
)
def test_a_shared_secret_is_its_file_without_one_line_end(file: str, secret: bytes) -> None:
    (one,) = loaded(issuer(f"secret_file: {file}")).jwt.issuers
    assert one.secret == secret
    assert one.algorithms == ("HS256",)
    assert loaded(issuer(f"secret_file: {file}, algorithms: [HS256]")).jwt.issuers == (one,)


def test_a_key_set_file_is_kept_by_its_path() -> None:
    assert loaded(issuer("jwks_file: jwks.json")).jwt.issuers[0].jwks_file == "jwks.json"


def test_scope_claims_are_one_name_or_several() -> None:
    assert loaded(issuer("scope_claim: permissions")).jwt.issuers[0].scope_claim == ("permissions",)
    assert loaded(issuer("scope_claim: [a, b]")).jwt.issuers[0].scope_claim == ("a", "b")


def test_default_scopes_come_in_table_order() -> None:
    (one,) = loaded(issuer(f"default_scopes: [{', '.join(repr(scope) for scope in reversed(SCOPES))}]")).jwt.issuers
    assert one.default_scopes == SCOPES


@pytest.mark.parametrize(
    ("prefixes", "lines"),
    [
        (("", "b-"), [3]),
        (("", ""), [3, 4]),
        (("a-", "a-"), [3, 4]),
        (("a", "ab"), [3]),
        (("ab", "a"), [4]),
        (("a:", "b:", "b:c:"), [4]),
    ],
)
def test_several_issuers_can_never_name_the_same_account(prefixes: tuple[str, ...], lines: list[int]) -> None:
    bodies = [f"issuer: 'https://{n}.test', account_prefix: '{prefix}'" for n, prefix in enumerate(prefixes)]
    assert [line for _, line in refused(issuers(*bodies))] == lines


def test_several_issuers_with_prefixes_of_their_own_are_fine() -> None:
    text = issuers("issuer: 'https://a.test', account_prefix: 'a:'", "issuer: 'https://b.test', account_prefix: 'b:'")
    assert [one.account_prefix for one in loaded(text).jwt.issuers] == ["a:", "b:"]


def test_an_issuer_is_configured_once() -> None:
    text = issuers("issuer: 'https://a.test', account_prefix: a", "issuer: 'https://a.test', account_prefix: b")
    assert refused(text) == [("jwt.issuers[1].issuer", 4)]


@pytest.mark.parametrize("account", ["a", "A|b:c@d.e+f/g=h_i-9", "a" * 128, "a b", "ä", "", "a" * 129, "a,b"])
def test_accounts_of_the_settings_are_those_that_the_upstream_can_be_told(account: str) -> None:
    text = f"catalogue: {{account: '{account}'}}"
    if usable_account(account):
        assert loaded(text).catalogue.account == account
    else:
        assert refused(text) == [("catalogue.account", 1)]


def policies(*bodies: str) -> str:
    """One limit policy on each line from line 3 on."""
    return "limits:\n  policies:\n" + "".join(f"  - {{{body}}}\n" for body in bodies)


def test_limit_policies_are_limits() -> None:
    text = policies(
        "name: a, requests: 1, window_s: 2592000",
        "name: b_-9, per: credential, effect: write, requests: 1000000, window_s: 1, tools: ['x*'], "
        "routes: [/mcp, /api/api-keys]",
    )
    assert loaded(text).limits.policies == (
        Limit("a", 1, 2592000),
        Limit("b_-9", 1000000, 1, "credential", "write", ("x*",), ("/mcp", "/api/api-keys")),
    )


def test_no_limit_policies_means_none_and_silence_means_the_default_ones() -> None:
    assert loaded("limits: {policies: []}").limits.policies == ()
    assert [limit.name for limit in defaults().limits.policies] == ["account", "burst", "writes"]


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("name: A", "name"),
        ("name: ''", "name"),
        ("name: " + "a" * 33, "name"),
        ("name: failed_auth", "name"),
        ("name: a, per: address", "per"),
        ("name: a, per: client", "per"),
        ("name: a, requests: 0", "requests"),
        ("name: a, requests: 1000001", "requests"),
        ("name: a, window_s: 0", "window_s"),
        ("name: a, window_s: 2592001", "window_s"),
        ("name: a, window_s: 1.5", "window_s"),
        ("name: a, effect: read", "effect"),
        ("name: a, tools: ['']", "tools[0]"),
        ("name: a, tools: x", "tools"),
        ("name: a, routes: [/nope]", "routes[0]"),
        ("name: a, routes: [/mcp, /mcp]", "routes[1]"),
        ("name: a, routes: [/keys]", "routes[0]"),
    ],
)
def test_a_limit_policy_that_could_not_be_kept_is_refused(body: str, key: str) -> None:
    filled = "".join(f", {name}: 5" for name in ("requests", "window_s") if name not in body)
    assert refused(policies(body + filled)) == [(f"limits.policies[0].{key}", 3)]


def test_limit_policies_have_names_of_their_own() -> None:
    text = policies("name: a, requests: 1, window_s: 1", "name: a, requests: 2, window_s: 2")
    assert refused(text) == [("limits.policies[1].name", 4)]


def identity(algorithm: str, *keys: str) -> str:
    """One key on each line from line 4 on."""
    return f"identity:\n  algorithm: {algorithm}\n  keys:\n" + "".join(f"  - {{{key}}}\n" for key in keys)


def test_ed25519_keys_are_32_raw_bytes_and_keep_their_order() -> None:
    text = identity("ed25519", "id: k2, private_key_file: identity.pem", "id: k1, private_key_file: other.pem")
    assert loaded(text).identity.keys == (
        IdentityKey("k2", "ed25519", ED25519.private_bytes_raw()),
        IdentityKey("k1", "ed25519", bytes(32)),
    )


def test_hmac_keys_are_what_the_base64_says() -> None:
    text = identity("hmac-sha256", "id: a.b_c-9, secret_file: identity.secret")
    assert loaded(text).identity.keys == (IdentityKey("a.b_c-9", "hmac-sha256", SECRET * 3),)


@pytest.mark.parametrize(
    ("algorithm", "body", "key"),
    [
        ("ed25519", "id: a", ""),
        ("ed25519", "id: a, private_key_file: null", ""),
        ("ed25519", "id: a, private_key_file: identity.pem, secret_file: identity.secret", ""),
        ("ed25519", "id: a, secret_file: identity.secret", ""),
        ("hmac-sha256", "id: a, private_key_file: identity.pem", ""),
        ("ed25519", "private_key_file: identity.pem", ".id"),
        ("ed25519", "id: 'a b', private_key_file: identity.pem", ".id"),
        ("ed25519", "id: '', private_key_file: identity.pem", ".id"),
        ("ed25519", f"id: {'a' * 65}, private_key_file: identity.pem", ".id"),
        ("ed25519", "id: a, private_key_file: p256.pem", ".private_key_file"),
        ("ed25519", "id: a, private_key_file: locked.pem", ".private_key_file"),
        ("ed25519", "id: a, private_key_file: identity.secret", ".private_key_file"),
        ("ed25519", "id: a, private_key_file: nowhere", ".private_key_file"),
        ("ed25519", "id: a, private_key_file: empty", ".private_key_file"),
        ("ed25519", "id: a, private_key_file: locked", ".private_key_file"),
        ("hmac-sha256", "id: a, secret_file: short.secret", ".secret_file"),
        ("hmac-sha256", "id: a, secret_file: not.base64", ".secret_file"),
        ("hmac-sha256", "id: a, secret_file: identity.pem", ".secret_file"),
        ("hmac-sha256", "id: a, secret_file: empty", ".secret_file"),
    ],
)
def test_an_identity_key_that_can_not_sign_as_asked_is_refused(algorithm: str, body: str, key: str) -> None:
    assert refused(identity(algorithm, body)) == [(f"identity.keys[0]{key}", 4)]


def test_identity_keys_have_ids_of_their_own() -> None:
    text = identity("ed25519", "id: a, private_key_file: identity.pem", "id: a, private_key_file: other.pem")
    assert refused(text) == [("identity.keys[1].id", 5)]


SHARED = [
    *("redis://h", "redis://u:p@h:6380/3", "rediss://h:6379/0", "redis://:p@[::1]:6379", "redis://h/"),
    *("unix:///run/redis.sock", "unix:///run/redis.sock?db=2"),
]


@pytest.mark.parametrize("url", SHARED)
def test_a_shared_store_allows_several_workers_and_needs_an_identity_key(url: str) -> None:
    text = f"store:\n  url: '{url}'\nworkers: 4\n"
    config = loaded(text + identity("ed25519", "id: a, private_key_file: identity.pem"))
    assert (config.store.url, config.store.sqlite_path, config.workers) == (url, None, 4)
    (problem,) = problems(text)
    assert (problem.key, problem.line) == ("identity.keys", 2)
    assert "openssl genpkey" in problem.message
    assert "openssl rand" in problems(text + "identity: {algorithm: hmac-sha256}")[0].message


@pytest.mark.parametrize(("url", "path"), [("sqlite:///data/a.db", "data/a.db"), ("sqlite:////var/a.db", "/var/a.db")])
def test_the_embedded_store_is_a_file_and_has_one_worker(url: str, path: str) -> None:
    assert loaded(f"store: {{url: '{url}'}}").store.sqlite_path == path
    assert refused(f"workers: 2\nstore: {{url: '{url}'}}") == [("workers", 1)]


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("listen: {port: 9090}", True),
        ("admin: {port: 8080, host: 0.0.0.0}", True),
        ("admin: {port: 8080, host: 127.0.0.2}", False),
        ("admin: {port: 0}\nlisten: {port: 0}", False),
    ],
)
def test_the_two_listeners_do_not_share_a_port(text: str, refuses: bool) -> None:
    if refuses:
        assert [key for key, _ in refused(text)] == ["admin.port"]
    else:
        assert loaded(text)


def test_no_repr_and_no_listing_has_a_secret() -> None:
    config = loaded(
        "upstream: {url: 'http://a.test/mcp?token=query-secret'}\n"
        "store: {url: 'redis://user:store-secret@redis.test:6379/1'}\n"
        + issuer("secret_file: hs256")
        + identity("hmac-sha256", "id: a, secret_file: identity.secret")
    )
    shown = settings(config)
    for text in (repr(config), str(shown)):
        assert not any(word in text for word in ("query-secret", "store-secret", "battery"))
    assert shown["store"] == {"url": "redis://(hidden)@redis.test:6379/1"}
    assert shown["upstream"]["url"] == "http://a.test/mcp?(hidden)"
    assert shown["jwt"]["issuers"][0]["secret_file"] == "(hidden)"
    assert shown["identity"]["keys"] == [{"id": "a", "algorithm": "hmac-sha256", "secret": "(hidden)"}]


def test_files_are_asked_for_by_the_name_that_is_written() -> None:
    assert "identity.pem" in FILES
    assert loaded(identity("ed25519", "id: a, private_key_file: '${DIR}.pem'").replace("${DIR}", "identity"))
