"""What an API key looks like, how it stands, and how it is shown."""

from binascii import crc32
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.denials import InvalidApiKey
from sidecar.policy import apikeys
from sidecar.records import KeyAct, KeyRecord, StoredKey, Usage, UsageCount

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ENTROPY = st.binary(min_size=apikeys.ENTROPY_BYTES, max_size=64)

RECORD = KeyRecord(
    id="key_0123456789AB",
    account="acme",
    name="report",
    prefix="mcp_0123456789AB",
    scopes=("mcp:read",),
    secret_hash="$2b$04$hash",
    created_at=1_000.75,
    created_by="u1",
    origin="rest",
    lifetime_s=86_400.0,
    expires_at=87_400.75,
)


def from_base62(digits: str) -> int:
    number = 0
    for digit in digits:
        number = number * 62 + ALPHABET.index(digit)
    return number


def reason_of(text: str) -> str:
    with pytest.raises(InvalidApiKey) as caught:
        apikeys.parse(text)
    return caught.value.reason


def test_a_known_key_has_its_known_parts() -> None:
    key = apikeys.mint(bytes(47) + b"\x3e")  # 62 is "10" in base62
    assert key.text == "mcp_" + "0" * 38 + "10" + apikeys.checksum("mcp_" + "0" * 38 + "10")
    assert key.id == "key_000000000000"
    assert key.secret == "0" * 26 + "10"
    assert apikeys.prefix(key) == "mcp_000000000000"


def test_the_checksum_is_the_crc_32_of_all_before_it() -> None:
    """CRC-32 of the nine ASCII digits is the check value of the standard: 0xCBF43926."""
    assert from_base62(apikeys.checksum("123456789")) == 0xCBF43926
    unsigned = "mcp_" + ALPHABET[:40]
    assert from_base62(apikeys.checksum(unsigned)) == crc32(unsigned.encode())


def test_the_checksum_is_padded_to_six_digits() -> None:
    assert apikeys.checksum("") == "000000"


@given(ENTROPY)
def test_what_is_minted_can_be_parsed(entropy: bytes) -> None:
    key = apikeys.mint(entropy)
    assert apikeys.parse(key.text) == key
    assert len(key.text) == 50
    assert (len(key.id), len(key.secret)) == (16, 28)
    assert apikeys.is_key_id(key.id)
    assert (apikeys.id_of_key(key.text), apikeys.id_of_key(key.id)) == (key.id, None)
    assert crc32(key.text[:44].encode()) == from_base62(key.text[44:])


@given(ENTROPY, st.integers(0, 49), st.sampled_from(ALPHABET + "_-+/ \n"))
def test_any_single_changed_character_is_refused(entropy: bytes, place: int, character: str) -> None:
    text = apikeys.mint(entropy).text
    assume(text[place] != character)
    assert reason_of(text[:place] + character + text[place + 1 :]) == "key_malformed"


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    assert reason_of(text) == "key_malformed"


def test_every_truncation_is_refused() -> None:
    text = apikeys.mint(bytes(range(48))).text
    for length in range(len(text)):
        assert reason_of(text[:length]) == "key_malformed"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text + "0",
        lambda text: text.upper(),
        lambda text: text.replace("mcp_", "MCP_"),
        lambda text: text[:4] + "\u0661" + text[5:],
        lambda text: text[:4] + "\uff11" + text[5:],
        lambda text: text[:4] + "\ud800" + text[5:],
        lambda text: text + text,
    ],
)
def test_what_only_looks_like_a_key_is_refused(spoil) -> None:  # type: ignore[no-untyped-def] # a lambda has no types
    assert reason_of(spoil(apikeys.mint(bytes(range(48))).text)) == "key_malformed"


def test_a_checksum_beyond_32_bits_is_refused() -> None:
    assert reason_of("mcp_" + "0" * 40 + "zzzzzz") == "key_malformed"


def test_minting_needs_enough_entropy() -> None:
    with pytest.raises(ValueError, match="48"):
        apikeys.mint(bytes(47))


@given(ENTROPY, ENTROPY)
def test_other_entropy_makes_another_key(one: bytes, other: bytes) -> None:
    assume(int.from_bytes(one, "big") % 62**40 != int.from_bytes(other, "big") % 62**40)
    assert apikeys.mint(one).text != apikeys.mint(other).text


def test_a_key_shows_its_secret_in_no_repr() -> None:
    key = apikeys.mint(bytes(range(48)))
    assert key.secret not in repr(key)
    assert RECORD.secret_hash not in repr(RECORD)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("key_0123456789AB", True),
        ("key_0123456789A", False),
        ("key_0123456789ABC", False),
        ("key_0123456789A_", False),
        ("key_0123456789A\n", False),
        ("key_0123456789AB\n", False),
        ("mcp_0123456789AB", False),
        ("key_0123456789A\u0661", False),
        ("", False),
    ],
)
def test_an_id_is_known_by_its_form(text: str, is_one: bool) -> None:
    assert apikeys.is_key_id(text) is is_one


@pytest.mark.parametrize(
    ("record", "now", "status"),
    [
        (RECORD, 87_400.74, "active"),
        (RECORD, 87_400.75, "expired"),
        (RECORD, 90_000.0, "expired"),
        (RECORD, float("nan"), "expired"),
        (replace(RECORD, expires_at=float("nan")), 1_001.0, "expired"),
        (replace(RECORD, revoked_at=0.0), 1_001.0, "revoked"),
        (replace(RECORD, revoked_at=2_000.0), 90_000.0, "revoked"),
        (replace(RECORD, revoked_at=2_000.0), 1_001.0, "revoked"),
        (replace(RECORD, replaced_by="key_0123456789AC"), 1_001.0, "active"),
    ],
)
def test_a_key_stands_as_its_record_says(record: KeyRecord, now: float, status: str) -> None:
    assert apikeys.status(record, now) == status


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "key_unknown"),
        (replace(RECORD, revoked_at=1_000.0), "key_revoked"),
        (replace(RECORD, expires_at=1_001.0), "key_expired"),
    ],
)
def test_every_bad_key_gets_the_same_answer_and_its_own_reason(record: KeyRecord | None, reason: str) -> None:
    with pytest.raises(InvalidApiKey) as caught:
        apikeys.judge(record, 1_001.0)
    assert (caught.value.reason, caught.value.status, caught.value.message) == (reason, 401, InvalidApiKey.text)


def test_an_active_key_passes_and_is_its_own_principal() -> None:
    apikeys.judge(RECORD, 1_001.0)
    who = apikeys.principal(RECORD)
    assert (who.account, who.subject, who.credential_id, who.kind) == ("acme", RECORD.id, RECORD.id, "api_key")
    assert (who.scopes, who.issued_at, who.expires_at, who.key) == (("mcp:read",), 1_000.75, 87_400.75, RECORD)
    assert (who.client_id, who.token_id) == (None, None)


def test_a_key_is_shown_without_its_hash() -> None:
    assert apikeys.describe(StoredKey(RECORD, 1_500.9), 1_501.0) == {
        "id": "key_0123456789AB",
        "name": "report",
        "prefix": "mcp_0123456789AB",
        "scopes": ["mcp:read"],
        "status": "active",
        "createdAt": "1970-01-01T00:16:40Z",
        "expiresAt": "1970-01-02T00:16:40Z",
        "lastUsedAt": "1970-01-01T00:25:00Z",
        "createdBy": "u1",
        "replacedBy": None,
    }


def test_a_key_never_used_says_so() -> None:
    assert apikeys.describe(StoredKey(RECORD, None), 1_501.0)["lastUsedAt"] is None


def test_a_new_key_is_shown_whole() -> None:
    key = apikeys.mint(bytes(range(48)))
    assert apikeys.describe_new(RECORD, key) == {
        "id": "key_0123456789AB",
        "key": key.text,
        "name": "report",
        "scopes": ["mcp:read"],
        "expiresAt": "1970-01-02T00:16:40Z",
        "createdAt": "1970-01-01T00:16:40Z",
        "warning": "Save this key now - it will not be shown again!",
    }


def test_usage_is_shown_in_order() -> None:
    usage = Usage((UsageCount(0, 1, 2, 3), UsageCount(3_600)), (UsageCount(86_400, 4),))
    assert apikeys.describe_usage("key_0123456789AB", usage) == {
        "id": "key_0123456789AB",
        "hours": [
            {"start": "1970-01-01T00:00:00Z", "requests": 1, "refused": 2, "writes": 3},
            {"start": "1970-01-01T01:00:00Z", "requests": 0, "refused": 0, "writes": 0},
        ],
        "days": [{"start": "1970-01-02T00:00:00Z", "requests": 4, "refused": 0, "writes": 0}],
    }


def test_times_are_whole_seconds_rounded_down() -> None:
    assert apikeys.rfc3339(1_795_442_399.999_999) == "2026-11-23T13:59:59Z"
    assert apikeys.rfc3339(1_795_442_400) == "2026-11-23T14:00:00Z"


def test_the_audit_hears_what_a_new_key_may_do_and_until_when() -> None:
    assert apikeys.audited(apikeys.made(RECORD)) == {
        "act": "create_key",
        "key": "key_0123456789AB",
        "scopes": ["mcp:read"],
        "expires_at": "1970-01-02T00:16:40Z",
    }


def test_the_audit_hears_which_key_a_new_one_succeeds_and_which_one_was_revoked() -> None:
    successor = replace(RECORD, replaces="key_BA9876543210")
    assert apikeys.audited(apikeys.made(successor)) == {
        **apikeys.audited(apikeys.made(RECORD)),
        "act": "rotate_key",
        "replaces": "key_BA9876543210",
    }
    revoked = KeyAct("revoke_key", "key_0123456789AB")
    assert apikeys.audited(revoked) == {"act": "revoke_key", "key": "key_0123456789AB"}
