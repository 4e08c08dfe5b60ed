from __future__ import annotations

import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.denials import Denial, InvalidJson, InvalidRequest
from sidecar.policy.strictjson import loads

CALL = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a:\\"b\\\\","arguments":{"x":[1,{"y":-2.5e3}]}}}'
)


@pytest.mark.parametrize(
    "document",
    [
        b"null",
        b'""',
        b"[]",
        b"{}",
        b" \t\r\n[1, 2]\n",
        b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}',
        b'{"a":"b:c","d:e":"\\":{\\\\","f\\\\":"\\\\\\\\"}',
        b'{"A":1,"a":2,"\\u00e9":3,"e\\u0301":4,"":5," ":6}',
        b'{"a\\u0000":1,"a":2}',
        b'{"k":"\\ud83d\\ude00 \xf0\x9f\x98\x80 \x7f"}',
        b"[0.1, -0.0, 1e308, 9223372036854775807, 18446744073709551615]",
        b'{"__proto__":{},"constructor":null}',
        CALL,
    ],
)
def test_a_document_with_one_reading_is_read_as_everybody_reads_it(document: bytes) -> None:
    assert loads(document) == json.loads(document)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "json_syntax"),
        (b" ", "json_syntax"),
        (b"{", "json_syntax"),
        (b"{}{}", "json_syntax"),
        (b"{} x", "json_syntax"),
        (b"[1,]", "json_syntax"),
        (b"{'a':1}", "json_syntax"),
        (b"// note\n{}", "json_syntax"),
        (b"NaN", "json_syntax"),
        (b"[-Infinity]", "json_syntax"),
        (b"1e400", "json_syntax"),
        (b"01", "json_syntax"),
        (b"+1", "json_syntax"),
        (b"1" * 5000, "json_syntax"),
        (b'"\x00"', "json_syntax"),
        (b"{}\x00", "json_syntax"),
        (b'"\n"', "json_syntax"),
        (b"\x0c{}", "json_syntax"),
        (b'"\\ud800"', "json_syntax"),
        (b'{"\\udc00":1}', "json_syntax"),
        (b'"\\x41"', "json_syntax"),
        ("{}\u00a0".encode(), "json_syntax"),
        (b"\xef\xbb\xbf{}", "json_encoding"),
        (b'"\xff"', "json_encoding"),
        (b'"\xc0\xaf"', "json_encoding"),
        (b'"\xed\xa0\x80"', "json_encoding"),
        ("{}".encode("utf-16"), "json_encoding"),
        ('{"a":1}'.encode("utf-16-le"), "json_syntax"),
        ('"é"'.encode("latin-1"), "json_encoding"),
        (b"[" * 100_000, "json_syntax"),
        (b'{"a":' * 100_000, "json_syntax"),
    ],
)
def test_what_parsers_read_differently_is_no_json(document: bytes, reason: str) -> None:
    with pytest.raises(InvalidJson) as refused:
        loads(document)
    assert (refused.value.reason, refused.value.rpc_code) == (reason, -32700)


@pytest.mark.parametrize(
    "document",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"a":3}',
        b'{"a":1,"\\u0061":2}',
        b'{"":1,"":2}',
        b'[{"x":{"a":null,"a":null}}]',
        b'{"a":{"b":1,"c":2},"a":[]}',
        b'{"a":"x:y","a":"z"}',
        b'{"a:":"\\":","a:":"\\\\"}',
        b'{"\\\\":1,"\\u005c":2}',
        b'{"/":1,"\\/":2}',
        b'{"\xc3\xa9":1,"\\u00e9":2}',
        b'{"\xf0\x9f\x98\x80":1,"\\ud83d\\ude00":2}',
    ],
)
def test_a_name_that_comes_twice_is_refused_however_it_is_written(document: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        loads(document)
    assert (refused.value.reason, refused.value.rpc_code) == ("json_duplicate_name", -32600)


@pytest.mark.parametrize(
    ("opening", "closing", "times"), [(b"[", b"]", 128), (b'{"a":', b"}", 128), (b'[{"a":', b"}]", 64)]
)
def test_nesting_is_counted_to_the_level(opening: bytes, closing: bytes, times: int) -> None:
    assert loads(opening * times + b"0" + closing * times) is not None
    with pytest.raises(InvalidJson) as refused:
        loads(opening * times + b"[]" + closing * times)
    assert refused.value.reason == "json_depth"


def test_the_caller_says_how_deep_is_too_deep() -> None:
    assert loads(b"1", max_depth=0) == 1
    assert loads(b'{"a":"[[["}', max_depth=1) == {"a": "[[["}
    with pytest.raises(InvalidJson):
        loads(b"[[]]", max_depth=1)


def test_a_body_of_many_levels_fills_no_stack() -> None:
    assert loads(b"[" * 1000 + b"]" * 1000, max_depth=2000) is not None


MOST = 200_000


@pytest.mark.parametrize("unit", [b"[]", b"{}", b'{"a":1}', b"[" * 100 + b"]" * 100])
def test_more_objects_and_arrays_than_a_parser_makes_in_a_moment_are_refused_unparsed(
    unit: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser lets nobody else run meanwhile: 4 MiB of nothing but brackets take it most of a second."""
    within = b"[" + b",".join([unit] * ((MOST - 1) // (unit.count(b"[") + unit.count(b"{")))) + b"]"
    assert loads(within)
    monkeypatch.setattr(orjson, "loads", None)
    for document in (within[:-1] + b"," + b"[]," * 100 + b"[]]", b"[" * (MOST + 1), b"\xff" + b"{" * (MOST + 1)):
        with pytest.raises(InvalidJson) as refused:
            loads(document)
        assert (refused.value.reason, refused.value.rpc_code) == ("json_too_many_parts", -32700)


def test_brackets_in_strings_are_text() -> None:
    text = "[{" * MOST + '"\\' + "{" * MOST
    assert loads(json.dumps({"code": text}).encode()) == {"code": text}


def test_four_mebibytes_of_coordinates_pass() -> None:
    pair = b"[12.345678,45.678901]"
    assert len(loads(b"[" + b",".join([pair] * 190_000) + b"]")) == 190_000


def test_every_truncation_of_a_document_is_refused() -> None:
    for end in range(len(CALL)):
        with pytest.raises(InvalidJson):
            loads(CALL[:end])


def test_mutations_give_a_value_or_a_denial_and_never_another_meaning() -> None:
    rng = random.Random(20261123)  # noqa: S311 - a seed makes the same mutations every time
    for _ in range(3000):
        mutated = bytearray(CALL)
        for _ in range(rng.randrange(1, 4)):
            position = rng.randrange(len(mutated))
            mutated[position : position + rng.randrange(2)] = rng.choice(
                [b"", b'"', b"\\", b":", b"{", b"}", b",", b"\x00", b"\xff", bytes([rng.randrange(256)])]
            )
        assert_no_other_meaning(bytes(mutated))


@given(st.binary(max_size=40) | st.text(alphabet='{}[]:,"\\aunbtrue01 .-e', max_size=40).map(str.encode))
def test_any_bytes_give_a_value_or_a_denial(document: bytes) -> None:
    assert_no_other_meaning(document)


class Members(tuple[tuple[str, Any], ...]):
    """An object as it is written: names may come twice."""

    __slots__ = ()


texts = st.text(alphabet='ab:"\\{}[]/\x7fé😀', max_size=4)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(texts, inner), max_size=4).map(Members),
    max_leaves=12,
)


def written(value: Any, escape: bool) -> str:
    if isinstance(value, Members):
        members = (f"{json.dumps(name, ensure_ascii=escape)} : {written(inner, not escape)}" for name, inner in value)
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(inner, escape) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=escape)


@settings(max_examples=300)
@given(values, st.booleans())
def test_documents_are_read_as_the_standard_library_reads_them_unless_a_name_is_doubled(
    value: Any, escape: bool
) -> None:
    document = written(value, escape).encode()
    assert verdict(document) == models_verdict(document)


class DoubledNameError(Exception):
    """What the model finds."""


def verdict(document: bytes) -> Any:
    try:
        return loads(document)
    except Denial as denial:
        return denial.reason


def models_verdict(document: bytes) -> Any:
    """Ask the standard library's parser, told to mind doubled names. It is kinder than ours about all else."""
    try:
        return model(document)
    except DoubledNameError:
        return "json_duplicate_name"


def assert_no_other_meaning(document: bytes) -> None:
    ours = verdict(document)
    assert ours in ("json_syntax", "json_encoding", "json_depth") or ours == models_verdict(document)


def model(document: bytes) -> Any:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise DoubledNameError
        return dict(pairs)

    def integer(digits: str) -> int | float:
        return int(digits) if -(2**63) <= int(digits) < 2**64 else float(digits)

    return json.loads(document.decode(), object_pairs_hook=members, parse_int=integer)
