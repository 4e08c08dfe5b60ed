"""Who may sign tokens: what is refused because it could not be checked as it is written."""

from __future__ import annotations

import pytest

from sidecar.model import SCOPES
from tests.config_files import ISSUER, SECRET, issuer, issuers, loaded, refused


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
        "routes: [{path: /a, credentials: [jwt]}, {path: /b, credentials: [api_key]},"
        " {path: /c, credentials: [api_key, jwt]}]\n"
    )
    assert loaded(text + issuer(audiences)).jwt.issuers[0].audiences == ("https://mcp.test/a", "https://mcp.test/c")


def test_advertised_scopes_stand_beside_the_issuers() -> None:
    text = "jwt:\n  advertised_scopes: ['mcp:read']\n  issuers: [{issuer: 'https://a.test'}]\n"
    jwt = loaded(text).jwt
    assert (jwt.advertised_scopes, [one.issuer for one in jwt.issuers]) == (("mcp:read",), ["https://a.test"])


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


def test_people_sign_in_at_the_first_issuer_so_a_client_without_one_is_refused() -> None:
    assert refused("key_page:\n  client_id: pages\n") == [("key_page.client_id", 2)]
    config = loaded(
        issuer() + "\nkey_page: {client_id: 'my pages', scopes: [openid, 'mcp:full', 'api://x/.default']}\n"
    )
    assert config.key_page.client_id == "my pages"
    assert config.key_page.scopes == ("openid", "mcp:full", "api://x/.default")
