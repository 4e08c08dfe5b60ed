"""API keys as presented: nothing but the one canonical text of a key is one.

An input begins with a letter: `r`, and the rest is a text as it comes in a header; or `c`, and the rest makes a key
with a good checksum, of which a part is then changed: where (one byte), how much of it (one byte), and by what.
"""

from __future__ import annotations

import zlib
from typing import Final

from sidecar.denials import Denial, InvalidApiKey
from sidecar.model import BearerToken, PresentedKey
from sidecar.policy import apikeys, credentials
from tests.fuzz.target import Target
from tests.policy.facts import facts

DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BODY: Final = 40


def check(data: bytes) -> bool:
    text = text_of(data)
    passed = is_taken(text)
    assert passed == is_canonical(text)
    if passed:
        for place in range(len(text)):
            assert not is_taken(text[:place] + text[place].swapcase() + text[place + 1 :]) or not text[place].isalpha()
            assert not is_taken(text[:place] + text[place + 1 :])
        for other in (text + "\n", text + " ", "\0" + text, text + text, "Bearer " + text):
            assert not is_taken(other)
    judge_credential("X-API-Key", text, text)
    judge_credential("Authorization", f"Bearer {text}", text.strip(" "))
    return passed


def text_of(data: bytes) -> str:
    form, rest = data[:1], data[1:]
    if form != b"c":
        return rest.decode("latin-1")
    body = "".join(DIGITS[byte % 62] for byte in rest[:BODY].ljust(BODY, b"\0"))
    text = f"mcp_{body}{checksum(f'mcp_{body}')}"
    if len(rest) < BODY + 2:
        return text
    place, length, other = rest[BODY] % 51, rest[BODY + 1] % 8, rest[BODY + 2 :]
    return text[:place] + other.decode("latin-1") + text[place + length :]


def checksum(unsigned: str) -> str:
    number, digits = zlib.crc32(unsigned.encode("ascii")), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = DIGITS[digit] + digits
    return digits


def is_canonical(text: str) -> bool:
    """Tell, in other words than the code's, whether this is the text of a key."""
    plain = len(text) == 50 and text.startswith("mcp_") and all(char in DIGITS for char in text[4:])
    return plain and text == text[:44] + checksum(text[:44])


def is_taken(text: str) -> bool:
    try:
        key = apikeys.parse(text)
    except InvalidApiKey:
        return False
    assert key.text == text
    assert (key.id, key.secret) == ("key_" + text[4:16], text[16:44])
    assert apikeys.is_key_id(key.id)
    assert text not in repr(key)
    assert key.secret not in repr(key)
    return True


def judge_credential(name: str, value: str, expected: str) -> None:
    """A key comes out of its header as it went in, or not at all."""
    try:
        found = credentials.extract(facts((name, value)), ("jwt", "api_key"))
    except Denial:
        return
    if isinstance(found, PresentedKey):
        assert found.text == expected
    else:
        assert isinstance(found, BearerToken)
        assert name == "Authorization"
        assert found.token == expected
        assert not expected.startswith("mcp_")
        assert not is_taken(found.token)


WORDS: Final = (b"mcp_", b"rmcp_", b"MCP_", b"\n", b" ", b"\0", b"0" * 40, b"zzzzzz", b"\xb2", b"key_", b"Bearer ")
KEYS: Final = Target("keys", check, WORDS)
