from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy import issuer_metadata
from sidecar.policy.keysets import KeySetError

ISSUER = "https://idp.example/realm"


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://idp.example",
            (
                "https://idp.example/.well-known/oauth-authorization-server",
                "https://idp.example/.well-known/openid-configuration",
            ),
        ),
        (
            "http://idp.example:8080/",
            (
                "http://idp.example:8080/.well-known/oauth-authorization-server",
                "http://idp.example:8080/.well-known/openid-configuration",
            ),
        ),
        (
            "https://idp.example/realms/one/",
            (
                "https://idp.example/.well-known/oauth-authorization-server/realms/one",
                "https://idp.example/realms/one/.well-known/openid-configuration",
            ),
        ),
    ],
)
def test_metadata_is_looked_for_where_the_standards_put_it(issuer: str, urls: tuple[str, str]) -> None:
    assert issuer_metadata.urls(issuer) == urls


def metadata(**members: Any) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example/jwks.json?v=1"} | members).encode()


def test_metadata_names_the_key_set() -> None:
    assert issuer_metadata.jwks_uri(metadata(), ISSUER) == "https://keys.example/jwks.json?v=1"


def test_plain_http_may_follow_plain_http() -> None:
    plain = metadata(issuer="http://127.0.0.1:9000", jwks_uri="http://127.0.0.1:9000/jwks")
    assert issuer_metadata.jwks_uri(plain, "http://127.0.0.1:9000") == "http://127.0.0.1:9000/jwks"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        metadata(issuer="https://idp.example"),
        metadata(issuer=ISSUER + "/"),
        metadata(issuer=None),
        metadata(jwks_uri=None),
        metadata(jwks_uri=["https://idp.example/jwks"]),
        metadata(jwks_uri=""),
        metadata(jwks_uri="/jwks"),
        metadata(jwks_uri="http://idp.example/jwks"),
        metadata(jwks_uri="file:///etc/passwd"),
        metadata(jwks_uri="https:///jwks"),
        metadata(jwks_uri="https://[::1/jwks"),
        metadata(jwks_uri="https://user:secret@idp.example/jwks"),
        metadata(jwks_uri="https://idp.example/jwks\r\nHost: evil.example"),
        metadata(jwks_uri="https://idp.example/é"),
        b'{"issuer":"https://idp.example/realm","jwks_uri":"https://a.example","jwks_uri":"https://b.example"}',
    ],
)
def test_metadata_of_another_issuer_or_with_a_doubtful_address_is_refused(document: bytes) -> None:
    with pytest.raises(KeySetError):
        issuer_metadata.jwks_uri(document, ISSUER)


def test_metadata_of_another_issuer_is_told_beside_the_right_one() -> None:
    with pytest.raises(KeySetError, match=r"issuer is 'https://idp\.example/realm/', and must be '.*/realm', char"):
        issuer_metadata.jwks_uri(metadata(issuer=ISSUER + "/"), ISSUER)


@given(st.text(max_size=30), st.sampled_from(["http://h", "https://h"]))
def test_any_address_is_accepted_or_refused(address: str, issuer: str) -> None:
    try:
        accepted = issuer_metadata.jwks_uri(metadata(issuer=issuer, jwks_uri=address), issuer)
    except KeySetError:
        return
    assert accepted.lower().startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("cache_control", "lifetime_s"),
    [
        (None, 300),
        ("", 300),
        ("public", 300),
        ("max-age=600", 600),
        ("public, max-age=600, must-revalidate", 600),
        ('Max-Age = "900"', 900),
        ("s-maxage=900", 300),
        ("max-age=0", 60),
        ("max-age=5", 60),
        ("max-age=86400", 3600),
        ("max-age=9999999999", 3600),
        ("max-age=99999999999999999999", 300),
        ("max-age=-1", 300),
        ("max-age=abc", 300),
        ("x-max-age=900", 300),
        ("no-store", 60),
        ("No-Cache, max-age=600", 60),
    ],
)
def test_a_key_set_lives_as_long_as_its_answer_says_within_a_minute_and_an_hour(
    cache_control: str | None, lifetime_s: float
) -> None:
    assert issuer_metadata.lifetime_s(cache_control) == lifetime_s
