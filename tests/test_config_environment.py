"""Values from the environment and the command line, and what problems must not repeat of them."""

from __future__ import annotations

import pytest

from sidecar.config import ConfigError, load
from tests.config_files import loaded, problems, read_file, refused


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("listen:\n  port: ${PORT}\n", 8443),
        ('listen: {port: "${PORT}"}', 8443),
        ("listen:\n  port: 1${PORT}\n", 18443),
        ("listen:\n  port: ${A}${B}\n", 12),
    ],
)
def test_a_number_may_come_from_the_environment(text: str, port: int) -> None:
    assert loaded(text, {"PORT": "8443", "A": "1", "B": "2"}).listen.port == port


def test_a_boolean_and_null_may_come_from_the_environment() -> None:
    environ = {"ACCESS": "false", "NOBODY": ""}
    config = loaded("log:\n  access: ${ACCESS}\ncatalogue:\n  account: ${NOBODY}\n", environ)
    assert config.log.access is False
    assert config.catalogue.account is None


@pytest.mark.parametrize(
    ("written", "account"),
    [
        ("a-${WHO}", "a-mary"),
        ("'${WHO}.${WHO}'", "mary.mary"),
        ("${NUMBER}", "17"),
        ("'${NUMBER}'", "17"),
        ("${TRUTH}", "true"),
    ],
)
def test_text_may_come_from_the_environment_whatever_it_looks_like(written: str, account: str) -> None:
    environ = {"WHO": "mary", "NUMBER": "17", "TRUTH": "true"}
    assert loaded(f"catalogue:\n  account: {written}\n", environ).catalogue.account == account


def test_two_dollars_write_a_literal_reference_and_values_are_not_read_again() -> None:
    text = "access:\n  tools:\n    read: ['$${NAME}', 'v${VALUE}', 'a$b', '$$x', '$$$${NAME}']\n"
    assert loaded(text, {"VALUE": "${NAME}"}).access.tools.read == ("${NAME}", "v${NAME}", "a$b", "$$x", "$$${NAME}")


def test_a_variable_that_is_not_set_is_a_problem_that_names_it() -> None:
    (problem,) = problems("log: {}\nstore:\n  url: redis://:${REDIS_PASSWORD}@${REDIS_HOST}/0\n")
    assert (problem.key, problem.line) == ("store.url", 3)
    assert "REDIS_HOST, REDIS_PASSWORD" in problem.message


@pytest.mark.parametrize("written", ["${", "${}", "${A B}", "${A:-x}", "${1}", "${A}${", "${A-}"])
def test_any_other_form_of_reference_is_refused(written: str) -> None:
    assert refused(f"catalogue:\n  account: '{written}'\n", {"A": "a"}) == [("catalogue.account", 2)]


def test_an_unquoted_reference_between_braces_is_explained() -> None:
    (problem,) = problems("listen: {port: ${PORT}}", {"PORT": "1"})
    assert "in quotes" in problem.message


def test_names_are_never_filled_in() -> None:
    (problem,) = problems("'${NAME}': 1", {"NAME": "workers"})
    assert "workers:" not in problem.key


@pytest.mark.parametrize(
    "text",
    [
        "listen:\n  port: ${S}\n",
        "listen:\n  host: ${S}\n",
        "log:\n  level: ${S}\n",
        "log:\n  access: ${S}\n",
        "catalogue:\n  account: ${S}\n",
        "public_url: ${S}\n",
        "store:\n  url: ${S}\n",
        "store: redis://:s3kr!t@host\n",
        "store:\n  url: redis://:s3kr!t@host/x\n",
        "store:\n  url: redis+sentinel://:s3kr!t@host,i/\n",
        "store:\n  url: redis+cluster://u:s3kr!t@host,i/x\n",
        "upstream:\n  url: http://user:s3kr!t@host\n",
        "jwt:\n  issuers:\n  - issuer: https://user:s3kr!t@host\n",
        "jwt:\n  issuers:\n  - {issuer: 'https://a.example', secret_file: '${S}', jwks_file: '${S}'}\n",
        "identity:\n  keys:\n  - {id: a, secret_file: '${S}'}\n",
        "upstream:\n  pass_headers: ['${S}']\n",
        "trusted_proxies: ['${S}']\n",
        "limits:\n  policies:\n  - {name: '${S}', requests: '${S}', window_s: '${S}', effect: '${S}'}\n",
        "routes:\n  - {path: '${S}', credentials: ['${S}']}\n",
    ],
)
def test_no_problem_repeats_a_secret(text: str) -> None:
    found = problems(text, {"S": "s3kr!t {}"})
    assert "s3kr!t" not in "".join(str(problem) for problem in found)


@pytest.mark.parametrize(
    "text",
    [
        "jwt: {issuers: [{issuer: 'https://a.test', jwks_file: '%s'}]}",
        "jwt: {issuers: [{issuer: 'https://a.test', secret_file: '%s'}]}",
        "identity: {keys: [{id: a, private_key_file: '%s'}]}",
        "identity: {algorithm: hmac-sha256, keys: [{id: a, secret_file: '%s'}]}",
    ],
)
@pytest.mark.parametrize("path", ["/var/run/secrets/mcp.example/sidecar/with-a-rather-long-path/hs256", "${DIR}/hs256"])
def test_a_file_that_does_not_exist_is_named_as_it_is_written(text: str, path: str) -> None:
    (problem,) = problems(text % path, {"DIR": "/secrets"})
    assert f'"{path}"' in problem.message


def test_the_command_line_comes_before_the_file_and_is_held_to_its_rules() -> None:
    text = "upstream: {url: 'http://a.example'}\nlisten:\n  host: ::1\n"
    overrides = {"upstream.url": "http://b.example/mcp", "listen.port": "8081"}
    config = load(text, {}, read_file, overrides)
    assert (config.upstream.url, config.listen.host, config.listen.port) == ("http://b.example/mcp", "::1", 8081)
    assert load("listen:\n", {}, read_file, overrides).listen.port == 8081
    assert load("", {}, read_file, overrides).upstream.url == "http://b.example/mcp"


def test_a_refused_option_of_the_command_line_has_no_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load("workers: 1\nlisten: {port: 1}", {}, read_file, {"listen.port": "x", "upstream.url": "ftp://a"})
    assert [(problem.key, problem.line) for problem in caught.value.problems] == [
        ("listen.port", None),
        ("upstream.url", None),
    ]
