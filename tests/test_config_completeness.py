"""Every problem at once: no mistake hides another one, unless the other can't be judged without it."""

from __future__ import annotations

import pytest

from tests.config_files import ISSUER, identity, issuer, issuers, refused

REDIS = "store: {url: 'redis://h'}\n"
NOWHERE = "limits: {policies: [{name: a, requests: 1, window_s: 1, routes: [/nope]}]}\n"


def policies(*bodies: str) -> str:
    """One limit policy on each line from line 3 on."""
    return "limits:\n  policies:\n" + "".join(f"  - {{{body}}}\n" for body in bodies)


def test_a_bad_entry_does_not_hide_a_doubled_one() -> None:
    text = policies("name: a, requests: 0, window_s: 1", "name: a, requests: 1, window_s: 1")
    assert refused(text) == [("limits.policies[0].requests", 3), ("limits.policies[1].name", 4)]


def test_identity_keys_with_one_id_are_named_though_neither_file_is_there() -> None:
    text = identity("ed25519", "id: a, private_key_file: no", "id: a, private_key_file: no", "id: a")
    assert refused(text) == [
        ("identity.keys[0].private_key_file", 4),
        ("identity.keys[1].id", 5),
        ("identity.keys[1].private_key_file", 5),
        ("identity.keys[2]", 6),
        ("identity.keys[2].id", 6),
    ]


def test_a_bad_value_of_a_list_does_not_hide_a_doubled_one() -> None:
    assert refused("upstream: {pass_headers: [x-a, 'x b', X-A]}") == [
        ("upstream.pass_headers[1]", 1),
        ("upstream.pass_headers[2]", 1),
    ]


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ("secret_file: nowhere, jwks_url: 'http://x/y'", ["jwks_url", "secret_file"]),
        ("secret_file: nowhere, algorithms: [RS256]", ["algorithms", "secret_file"]),
        ("secret_file: hs256, jwks_url: 'ftp://x'", ["jwks_url", "jwks_url"]),
        ("leeway_s: 999, algorithms: [HS256]", ["algorithms", "leeway_s"]),
        ("algorithms: [HS256, none]", ["algorithms", "algorithms[1]"]),
        ("jwks_url: 'https://a', jwks_file: nowhere", ["jwks_file", "jwks_file"]),
        (
            "secret_file: hs256, jwks_url: 'https://a', jwks_file: jwks.json, algorithms: [RS256]",
            ["algorithms", "jwks_file", "jwks_url"],
        ),
        ("jwks_uri: x, algorithms: [HS256]", ["algorithms", "jwks_uri"]),
    ],
)
def test_all_that_is_wrong_with_an_issuer_is_named(body: str, keys: list[str]) -> None:
    assert [key for key, _ in refused(issuer(body))] == [f"jwt.issuers[0].{key}" for key in keys]


def test_an_issuer_without_its_name_is_judged_all_the_same() -> None:
    assert refused(issuers("algorithms: [HS256]", f"issuer: '{ISSUER}', account_prefix: a")) == [
        ("jwt.issuers[0].account_prefix", 3),
        ("jwt.issuers[0].algorithms", 3),
        ("jwt.issuers[0].issuer", 3),
    ]


@pytest.mark.parametrize("other", ["requests: 0", "window_s: 1m", "effect: read", "tools: ['']"])
def test_an_unknown_route_of_a_limit_is_named_beside_anything_else(other: str) -> None:
    body = f"name: a, routes: [/nope, ''], {other}"
    filled = "".join(f", {name}: 5" for name in ("requests", "window_s") if name not in body)
    found = refused("workers: many\n" + policies(body + filled, "name: 5"))
    assert ("limits.policies[0].routes[0]", 4) in found
    assert ("limits.policies[0].routes[1]", 4) in found
    assert ("workers", 1) in found


def test_what_is_wrong_between_sections_is_named_though_parts_of_them_are_bad() -> None:
    text = (
        "listen: {host: 'a b', port: 9090}\nadmin: {port: 9090, host: 0.0.0.0}\n"
        "workers: 2\nstore: {url: 'sqlite:///a.db', pool: 3}\n"
        + identity("ed25519", "id: 'a b', secret_file: nowhere", "id: c, private_key_file: identity.pem")
        + issuers(
            "issuer: 'https://a.test', leeway_s: 999", "issuer: x, account_prefix: 'a:'", "issuer: y, account_prefix: a"
        )
    )
    assert refused(text) == [
        ("listen.host", 1),
        ("workers", 3),
        ("store.pool", 4),
        ("identity.keys[0]", 8),
        ("identity.keys[0].id", 8),
        ("identity.keys[0].secret_file", 8),
        ("jwt.issuers[0].account_prefix", 12),
        ("jwt.issuers[0].leeway_s", 12),
        ("jwt.issuers[1].issuer", 13),
        ("jwt.issuers[2].account_prefix", 14),
        ("jwt.issuers[2].issuer", 14),
    ]


def test_a_shared_store_asks_for_an_identity_key_whatever_else_is_wrong_with_identity() -> None:
    assert refused(REDIS + "identity: {algorithm: rsa, ttl_s: 0}") == [
        ("identity.algorithm", 2),
        ("identity.keys", 2),
        ("identity.ttl_s", 2),
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("routes: [{path: '/nope/', credentials: [jwt]}]\n" + NOWHERE, "routes[0].path"),
        ("routes: [{path: /a, credentials: [jtw]}]\n" + issuer(), "routes[0].credentials[0]"),
        ("routes: 5\n" + issuer() + NOWHERE, "routes"),
        ("listen: {port: http}\nadmin: {port: 8080}", "listen.port"),
        ("listen: 9090", "listen"),
        (REDIS + "identity: {keys: {}}", "identity.keys"),
        (REDIS + "identity: 5", "identity"),
        ("workers: 2\nstore: {url: 'rediss:/h'}", "store.url"),
        ("workers: many", "workers"),
        (identity("rsa", "id: a, private_key_file: identity.pem"), "identity.algorithm"),
        ("limits: {policies: [5]}", "limits.policies[0]"),
        ("limits: {policies: [{name: a, requests: 1, window_s: 1, routes: /nope}]}", "limits.policies[0].routes"),
        (
            issuers("issuer: 'https://a.test', account_prefix: ' '", f"issuer: '{ISSUER}', account_prefix: b"),
            "jwt.issuers[0].account_prefix",
        ),
        (issuer("secret_file: hs256, algorithms: [none]"), "jwt.issuers[0].algorithms[0]"),
        ("[]", ""),
    ],
)
def test_what_can_not_be_judged_without_a_bad_value_is_left_unsaid(text: str, key: str) -> None:
    assert [found for found, _ in refused(text)] == [key]
