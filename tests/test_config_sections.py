"""Routes, limits, identity keys, the store and the listeners: what each needs, and what they need of each other."""

from __future__ import annotations

import pytest

from sidecar.config import defaults, settings
from sidecar.model import IdentityKey, Limit, Route
from tests.config_files import ED25519, SECRET, identity, issuer, loaded, problems, refused


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
    *("redis+sentinel://h/main", "redis+sentinel://u:p%40%2F@h:1,[::1]:2,127.0.0.1/my-master.1_a/15"),
    *(
        "rediss+sentinel://:p@h/m",
        "redis+cluster://h",
        "redis+cluster://u:p@h:7000,i:7001",
        "rediss+cluster://u@[::1]:7",
    ),
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


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("{}", "http://127.0.0.1:8080/mcp"),
        ("{}", "http://localhost:8080"),
        ("{}", "http://0.0.0.0:8080/"),
        ("{port: 80}", "http://127.0.0.1/mcp"),
        ("{port: 443}", "https://127.0.0.1/mcp"),
        ("{host: localhost}", "http://127.0.0.1:8080/mcp"),
        ("{host: localhost}", "http://[::1]:8080/mcp"),
        ("{host: 0.0.0.0}", "http://127.0.0.1:8080/mcp"),
        ("{host: '::'}", "http://localhost:8080/mcp"),
        ("{host: '::1'}", "http://[0:0::1]:8080/mcp"),
        ("{host: sidecar.test}", "http://Sidecar.test.:8080/mcp"),
    ],
)
def test_the_upstream_is_not_the_sidecar_itself(listen: str, url: str) -> None:
    assert refused(f"listen: {listen}\nupstream:\n  url: '{url}'\n") == [("upstream.url", 3)]


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("{}", "http://127.0.0.1:8081/mcp"),
        ("{}", "http://127.0.0.1/mcp"),
        ("{}", "http://mcp.internal:8080/mcp"),
        ("{}", "http://[::1]:8080/mcp"),
        ("{host: 0.0.0.0}", "http://mcp.internal:8080/mcp"),
        ("{host: 127.0.0.2}", "http://127.0.0.1:8080/mcp"),
        ("{port: 0}", "http://127.0.0.1:8080/mcp"),
    ],
)
def test_an_upstream_elsewhere_may_have_the_same_port_or_the_same_host(listen: str, url: str) -> None:
    assert loaded(f"listen: {listen}\nupstream:\n  url: '{url}'\n").upstream.url == url


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
    assert shown["store"]["url"] == "redis://(hidden)@redis.test:6379/1"
    assert shown["upstream"]["url"] == "http://a.test/mcp?(hidden)"
    assert shown["jwt"]["issuers"][0]["secret_file"] == "(hidden)"
    assert shown["identity"]["keys"] == [{"id": "a", "algorithm": "hmac-sha256", "secret": "(hidden)"}]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+sentinel://u:store-secret@h:1,i:2/main/3", "redis+sentinel://(hidden)@h:1,i:2/main/3"),
        ("rediss+cluster://:store-secret@h,i:7001", "rediss+cluster://(hidden)@h,i:7001"),
    ],
)
def test_of_a_store_on_several_hosts_all_are_listed_and_no_password(url: str, shown: str) -> None:
    text = f"store: {{url: '{url}'}}\n" + identity("ed25519", "id: a, private_key_file: identity.pem")
    assert settings(loaded(text))["store"]["url"] == shown


def test_a_webhook_has_a_url_and_a_secret_or_neither() -> None:
    assert refused("confirmation:\n  webhook: {url: 'https://chat.test/hook'}\n") == [
        ("confirmation.webhook.secret_file", 2)
    ]
    assert refused("confirmation:\n  webhook: {secret_file: hs256}\n") == [("confirmation.webhook.url", 2)]
    config = loaded("confirmation: {webhook: {url: 'https://chat.test/hook?key=query-secret', secret_file: hs256}}\n")
    assert config.confirmation.webhook.secret
    shown = settings(config)["confirmation"]["webhook"]
    assert shown == {"url": "https://chat.test/hook?(hidden)", "secret_file": "(hidden)"}
