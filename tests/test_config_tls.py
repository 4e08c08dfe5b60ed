"""What the settings of TLS may be."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sidecar.config import Config, ConfigError, load, settings, warnings
from tests.certificates import Authority

AUTHORITY = Authority("Our authority")
ONE, OTHER = AUTHORITY.certify("one"), AUTHORITY.certify("other")
WEAK = AUTHORITY.certify("weak", rsa_bits=1024)
FILES: Mapping[str, bytes] = {
    "one.crt": ONE.cert,
    "one.key": ONE.key,
    "other.key": OTHER.key,
    "ca.crt": AUTHORITY.cert,
    "chain.crt": ONE.cert + AUTHORITY.cert,
    "weak.crt": WEAK.cert,
    "weak.key": WEAK.key,
    "weak-chain.crt": ONE.cert + WEAK.cert,
    "both.pem": ONE.key + ONE.cert,
    "text": b"hello",
    "empty": b" \n",
}


def loaded(text: str) -> Config:
    def read_file(path: str) -> bytes:
        if path not in FILES:
            raise FileNotFoundError(2, "No such file or directory", path)
        return FILES[path]

    return load(text, {}, read_file)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - text of a setting
@pytest.mark.parametrize(("public_url", "is_told"), [("http://mcp.test", True), ("https://mcp.test", False)])
def test_tls_with_a_public_url_of_plain_http_is_a_warning(host: str, public_url: str, is_told: bool) -> None:
    listen = f"listen: {{host: {host}, tls: {{cert_file: one.crt, key_file: one.key}}}}\n"
    told = [warning for warning in warnings(loaded(f"public_url: {public_url}\n{listen}")) if "public_url" in warning]
    assert [warning.startswith("listen.tls is set and public_url is plain http") for warning in told] == [
        True
    ] * is_told


@pytest.mark.parametrize("section", ["listen", "upstream", "store"])
@pytest.mark.parametrize("cert", ["one.crt", "chain.crt", "both.pem"])
def test_a_certificate_with_its_chain_and_its_key_are_read(section: str, cert: str) -> None:
    tls = getattr(loaded(f"{section}: {{tls: {{cert_file: {cert}, key_file: one.key}}}}"), section).tls
    assert (tls.cert, tls.key) == (FILES[cert], ONE.key)


def test_they_are_listed_by_whose_they_are_and_until_when_and_keys_are_hidden() -> None:
    config = loaded("listen: {tls: {cert_file: chain.crt, key_file: one.key}}\nupstream: {tls: {ca_file: ca.crt}}\n")
    shown = settings(config)
    served = shown["listen"]["tls"]
    assert served["cert_file"].startswith("CN=one until 2")
    assert ", CN=Our authority until 2" in served["cert_file"]
    assert served["key_file"] == "(hidden)"
    assert shown["upstream"]["tls"]["ca_file"].startswith("CN=Our authority until 2")
    assert ONE.key.decode() not in repr(config)


@pytest.mark.parametrize(
    ("tls", "key", "told"),
    [
        ("cert_file: one.crt", "listen.tls.key_file", "must be set too"),
        ("key_file: one.key", "listen.tls.cert_file", "must be set too"),
        (
            "cert_file: one.crt, key_file: other.key",
            "listen.tls.key_file",
            "must hold the key of the first certificate",
        ),
        ("cert_file: text, key_file: one.key", "listen.tls.cert_file", "certificates in PEM"),
        ("cert_file: one.crt, key_file: one.crt", "listen.tls.key_file", "a private key in PEM"),
        ("cert_file: one.crt, key_file: empty", "listen.tls.key_file", "is empty"),
        ("cert_file: nowhere, key_file: one.key", "listen.tls.cert_file", "does not exist"),
        ("cert_file: weak.crt, key_file: weak.key", "listen.tls.cert_file", "EE_KEY_TOO_SMALL"),
        ("cert_file: weak-chain.crt, key_file: one.key", "listen.tls.cert_file", "CA_KEY_TOO_SMALL"),
        ("ca_file: ca.crt", "listen.tls.ca_file", "is not a known key"),
    ],
)
def test_what_can_not_be_served_is_refused_by_key_and_line(tls: str, key: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(f"max_body_bytes: 5\nlisten: {{tls: {{{tls}}}}}\n")
    [problem] = refused.value.problems
    assert (problem.key, problem.line) == (key, 2)
    assert told in problem.message
