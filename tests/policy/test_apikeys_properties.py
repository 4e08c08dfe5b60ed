"""A key has one spelling, and nothing near it is another key."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import InvalidApiKey
from sidecar.policy import apikeys

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
keys = st.binary(min_size=apikeys.ENTROPY_BYTES, max_size=apikeys.ENTROPY_BYTES).map(lambda b: apikeys.mint(b).text)
bodies = st.text(ALPHABET, min_size=40, max_size=40)


def is_key(text: str) -> bool:
    try:
        key = apikeys.parse(text)
    except InvalidApiKey:
        return False
    assert key.text == text
    assert (key.id, key.secret) == (f"key_{text[4:16]}", text[16:44])
    return True


def value_of(digits: str) -> int:
    return sum(ALPHABET.index(digit) * 62**place for place, digit in enumerate(reversed(digits)))


@given(st.binary(min_size=apikeys.ENTROPY_BYTES, max_size=70))
def test_a_key_is_its_random_number_and_nothing_else(entropy: bytes) -> None:
    text = apikeys.mint(entropy).text

    assert value_of(text[4:44]) == int.from_bytes(entropy, "big") % 62**40
    assert value_of(text[44:]) == zlib.crc32(text[:44].encode())


@given(bodies, st.integers(0, 62**6 - 1))
def test_of_all_checksums_one_makes_a_key(body: str, number: int) -> None:
    right = zlib.crc32(f"mcp_{body}".encode())
    digits = "".join(ALPHABET[number // 62**place % 62] for place in reversed(range(6)))

    assert is_key(f"mcp_{body}{digits}") == (number == right)
    assert is_key(f"mcp_{body}{apikeys.checksum(f'mcp_{body}')}")


@given(keys, st.integers(4, 43), st.text(ALPHABET, min_size=1, max_size=4))
def test_up_to_four_changed_characters_in_a_row_are_always_noticed(key: str, place: int, other: str) -> None:
    """Errors of up to 32 bits in a row change a CRC-32 for certain."""
    other = other[: 44 - place]
    changed = key[:place] + other + key[place + len(other) :]

    assert is_key(changed) == (changed == key)


@given(keys, st.integers(4, 48))
def test_neighbours_that_were_exchanged_are_noticed(key: str, place: int) -> None:
    changed = key[:place] + key[place + 1] + key[place] + key[place + 2 :]

    assert is_key(changed) == (changed == key)


@given(keys, st.integers(0, 50), st.text(min_size=1, max_size=3))
def test_nothing_can_be_added_to_a_key(key: str, place: int, more: str) -> None:
    assert not is_key(key[:place] + more + key[place:])


@given(keys, st.data())
def test_no_other_letter_of_any_alphabet_stands_for_one_of_a_key(key: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, 49))
    other = data.draw(
        st.sampled_from([key[place].swapcase(), chr(ord(key[place]) + 0xFEE0), chr(ord(key[place]) | 0x100)])
    )
    changed = key[:place] + other + key[place + 1 :]

    assert is_key(changed) == (changed == key)
