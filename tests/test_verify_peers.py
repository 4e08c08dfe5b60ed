from __future__ import annotations

import base64
import contextlib
import datetime
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver
from http_message_signatures.algorithms import ED25519, HMAC_SHA256
from hypothesis import given
from hypothesis import strategies as st

from sidecar import verify as verifier
from sidecar.model import IdentityKey
from sidecar.verify import InvalidSignature, verify
from tests.signed import ANNE, ED, JWKS, MAC, NOW, SECRETS, Sent, refused, sent


@dataclass
class Message:
    """A request as the independent library wants it."""

    method: str
    url: str
    headers: dict[str, str]


COVERED = (
    "@method", "@path", "@authority", "@query", "content-digest", "x-account-scopes", "x-account-id", "x-auth-method",
    "x-auth-subject", "x-request-id", "mcp-session-id",
)  # fmt: skip


def signed_by_the_library(
    key: IdentityKey = MAC, target: str = "/mcp?a=1", covered: tuple[str, ...] = COVERED, **changes: Any
) -> Sent:
    original = sent()
    headers = dict(original.without("Signature").without("Signature-Input").headers)
    message = Message("POST", f"http://up.example:3000{target}", headers)
    arguments = {
        "created": datetime.datetime.fromtimestamp(NOW, datetime.UTC),
        "expires": datetime.datetime.fromtimestamp(NOW + 60, datetime.UTC),
        "nonce": "bm9uY2U",
        "label": "sidecar",
        "tag": "mcp-sidecar",
        **changes,
    }
    is_public = key.algorithm == "ed25519"
    private = Ed25519PrivateKey.from_private_bytes(key.secret) if is_public else key.secret
    signer = HTTPMessageSigner(
        signature_algorithm=ED25519 if is_public else HMAC_SHA256,
        key_resolver=MappingKeyResolver(public_keys={}, private_keys={key.id: private}),
    )
    signer.sign(message, key_id=key.id, covered_component_ids=covered, use_existing_digest=True, **arguments)
    return Sent("POST", target, tuple(message.headers.items()), original.body)


@pytest.mark.parametrize(("key", "keys"), [(ED, JWKS), (MAC, SECRETS)], ids=["ed25519", "hmac"])
@pytest.mark.parametrize("target", ["/mcp", "/mcp?a=1&b=%20", "/a%2Fb//c;d?"])
def test_an_independent_library_signs_what_we_believe(key: IdentityKey, keys: Any, target: str) -> None:
    request = signed_by_the_library(key, target)
    assert request.verify(keys) == ANNE
    assert refused(replace(request, body=b""), keys)


@pytest.mark.parametrize("dropped", COVERED)
def test_a_good_signature_that_covers_less_than_all_is_refused(dropped: str) -> None:
    request = signed_by_the_library(covered=tuple(name for name in COVERED if name != dropped))
    assert "cover" in refused(request)


def test_a_good_signature_that_covers_what_we_cannot_judge_is_refused() -> None:
    assert "cover" in refused(signed_by_the_library(covered=(*COVERED, "@scheme")))


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": None},
        {"nonce": ""},
        {"nonce": "n" * 129},
        {"nonce": 'a"b'},
        {"tag": None},
        {"tag": "else"},
        {"label": "else"},
        {"expires": None},
        {"expires": datetime.datetime.fromtimestamp(NOW - 1, datetime.UTC)},
        {"created": datetime.datetime.fromtimestamp(NOW + 59, datetime.UTC)},
        {"include_alg": False},
    ],
    ids=str,
)
def test_a_good_signature_without_the_sidecars_parameters_is_refused(changes: dict[str, Any]) -> None:
    assert refused(signed_by_the_library(**changes))


@pytest.mark.parametrize("secret", [b"", b"x" * 31])
def test_a_good_signature_by_a_short_secret_is_refused(secret: bytes) -> None:
    assert refused(signed_by_the_library(IdentityKey("short", "hmac-sha256", secret)), {"short": secret})


def test_the_base_of_rfc_9421_comes_out() -> None:
    """Appendix B.2.6."""
    values = {
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "@method": "POST",
        "@path": "/foo",
        "@authority": "example.com",
        "content-type": "application/json",
        "content-length": "18",
    }
    params = f'({" ".join(f"{chr(34)}{name}{chr(34)}" for name in values)});created=1618884473;keyid="test-key-ed25519"'
    base = verifier._signature_base(values, list(values), params)
    jwk = {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}
    key = verifier._public_key([jwk], "k")
    signature = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    assert key is not None
    assert verifier._is_genuine(key, base64.b64decode(signature), base)


NAMES = st.sampled_from([name for name, _ in sent().headers] + ["signature", "x_account_id", "X-Other"])
FRAGMENTS = st.sampled_from(
    [
        "sidecar=",
        "(",
        ")",
        '"@method"',
        ";created=1",
        ';tag="mcp-sidecar"',
        ":AAAA:",
        '"',
        "\\",
        ",",
        " ",
        "\n",
        "é",
        "\0",
    ]
)
VALUES = st.one_of(st.text(), st.lists(FRAGMENTS).map("".join))


@given(st.text(), st.text(), st.lists(st.tuples(NAMES | st.text(), VALUES)), st.binary())
def test_whatever_comes_there_is_an_identity_or_one_error(
    method: str, target: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    with pytest.raises(InvalidSignature):
        verify(method, target, headers, body, SECRETS, NOW, {})


@given(st.data())
def test_whatever_is_done_to_a_good_request_either_changes_nothing_or_is_refused(data: st.DataObject) -> None:
    key, keys = data.draw(st.sampled_from([(MAC, SECRETS), (ED, JWKS)]))
    good = sent(key)
    name = data.draw(st.sampled_from([name for name, _ in good.headers if name != "Accept"]))
    value = good.header(name)
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, len(value)))
    edited = value[:start] + data.draw(VALUES) + value[end:]
    lines = tuple((key, edited if key == name else text) for key, text in good.headers)
    with contextlib.suppress(InvalidSignature):
        assert replace(good, headers=lines).verify(keys) == ANNE
