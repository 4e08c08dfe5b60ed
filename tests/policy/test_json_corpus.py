"""Documents of JSONTestSuite (https://github.com/nst/JSONTestSuite, MIT), under the names of its files.

`y_`: every parser must take them; `n_`: none may; `i_`: parsers differ, so that none of them may pass here unless all
that an upstream may use agree on it.
"""

from __future__ import annotations

import json

import pytest

from sidecar.denials import Denial, InvalidJson
from sidecar.policy.strictjson import loads

Y = {
    "array_empty": b"[]",
    "array_heterogeneous": b'[null, 1, "1", {}]',
    "number": b"[123e65]",
    "number_0e1": b"[0e1]",
    "number_after_space": b"[ 4]",
    "number_minus_zero": b"[-0]",
    "number_real_capital_e_neg_exp": b"[1E-2]",
    "number_real_fraction_exponent": b"[123.456e78]",
    "object_basic": b'{"asd":"sdf"}',
    "object_empty_key": b'{"":0}',
    "object_escaped_null_in_key": b'{"foo\\u0000bar": 42}',
    "object_extreme_numbers": b'{ "min": -1.0e+28, "max": 1.0e+28 }',
    "object_string_unicode": b'{"title":"\\u041f\\u043e\\u043b\\u0442\\u043e\\u0440\\u0430" }',
    "string_accepted_surrogate_pair": b'["\\uD801\\udc37"]',
    "string_allowed_escapes": b'["\\"\\\\\\/\\b\\f\\n\\r\\t"]',
    "string_backslash_and_u_escaped_zero": b'["\\\\u0000"]',
    "string_comments": b'["a/*b*/c/*d//e"]',
    "string_last_surrogates_1_and_2": b'["\\uDBFF\\uDFFF"]',
    "string_noncharacterInUTF-8_U+FFFF": b'["\xef\xbf\xbf"]',
    "string_null_escape": b'["\\u0000"]',
    "string_u+2028_line_sep": b'["\xe2\x80\xa8"]',
    "string_unescaped_char_delete": b'["\x7f"]',
    "string_unicode_U+10FFFE_nonchar": b'["\\uDBFF\\uDFFE"]',
    "string_unicode_U+FEFF_zero_width": b'["\\uFEFF"]',
    "structure_lonely_false": b"false",
    "structure_lonely_negative_real": b"-0.1",
    "structure_lonely_string": b'"asd"',
    "structure_whitespace_array": b" [] ",
}
Y_DOUBLED = {
    "object_duplicated_key": b'{"a":"b","a":"c"}',
    "object_duplicated_key_and_value": b'{"a":"b","a":"b"}',
}
"""The suite has every parser take them, which they do, each in its own way."""
N = {
    "array_a_invalid_utf8": b"[a\xe5]",
    "array_colon_instead_of_comma": b'["": 1]',
    "array_double_comma": b"[1,,2]",
    "array_extra_close": b'["x"]]',
    "array_star_inside": b"[*]",
    "incomplete_true": b"[tru]",
    "multidigit_number_then_00": b"123\x00",
    "number_++": b"[++1234]",
    "number_-01": b"[-01]",
    "number_-2.": b"[-2.]",
    "number_-NaN": b"[-NaN]",
    "number_0.e1": b"[0.e1]",
    "number_1_000": b"[1 000.0]",
    "number_infinity": b"[Infinity]",
    "number_NaN": b"[NaN]",
    "number_real_with_invalid_utf8_after_e": b"[1e\xe5]",
    "number_U+FF11_fullwidth_digit_one": b"[\xef\xbc\x91]",
    "number_with_leading_zero": b"[012]",
    "object_emoji": b"{\xf0\x9f\x87\xa8\xf0\x9f\x87\xad}",
    "object_lone_continuation_byte_in_key_and_trailing_comma": b'{"\xb9":"0",}',
    "object_non_string_key": b"{1:1}",
    "object_repeated_null_null": b"{null:null,null:null}",
    "object_single_quote": b"{'a':0}",
    "object_trailing_comment": b'{"a":"b"}/**/',
    "object_unquoted_key": b'{a: "b"}',
    "object_with_trailing_garbage": b'{"a": true} "x"',
    "string_1_surrogate_then_escape_u1x": b'["\\uD800\\u1x"]',
    "string_backslash_00": b'["\\\x00"]',
    "string_escape_x": b'["\\x00"]',
    "string_invalid-utf-8-in-escape": b'["\\u\xe5"]',
    "string_leading_uescaped_thinspace": b'[\\u0020"asd"]',
    "string_single_quote": b"['single quote']",
    "string_unescaped_ctrl_char": b'["a\x00a"]',
    "string_unescaped_tab": b'["\t"]',
    "string_unicode_CapitalU": b'"\\UA66D"',
    "structure_100000_opening_arrays": b"[" * 100_000,
    "structure_capitalized_True": b"[True]",
    "structure_double_array": b"[][]",
    "structure_incomplete_UTF8_BOM": b"\xef\xbb{}",
    "structure_no_data": b"",
    "structure_null-byte-outside-string": b"[\x00]",
    "structure_open_array_object": b'[{"":' * 50_000,
    "structure_UTF8_BOM_no_data": b"\xef\xbb\xbf",
    "structure_whitespace_formfeed": b"[\x0c]",
    "structure_whitespace_U+2060_word_joiner": b"[\xe2\x81\xa0]",
}
I_REFUSED = {
    "number_neg_int_huge_exp": b"[-1e+9999]",
    "number_real_pos_overflow": b"[123123e100000]",
    "object_key_lone_2nd_surrogate": b'{"\\uDFAA":0}',
    "string_1st_surrogate_but_2nd_missing": b'["\\uDADA"]',
    "string_incomplete_surrogates_escape_valid": b'["\\uD800\\uD800\\n"]',
    "string_inverted_surrogates_U+1D11E": b'["\\uDd1e\\uD834"]',
    "string_iso_latin_1": b'["\xe9"]',
    "string_not_in_unicode_range": b'["\xf4\xbf\xbf\xbf"]',
    "string_overlong_sequence_2_bytes": b'["\xc0\xaf"]',
    "string_truncated-utf-8": b'["\xe0\xff"]',
    "string_UTF-16LE_with_BOM": '\ufeff["\xe9"]'.encode("utf-16-le"),
    "string_utf16BE_no_BOM": '["\xe9"]'.encode("utf-16-be"),
    "string_UTF8_surrogate_U+D800": b'["\xed\xa0\x80"]',
    "structure_500_nested_arrays": b"[" * 500 + b"]" * 500,
    "structure_UTF-8_BOM_empty_object": b"\xef\xbb\xbf{}",
}
I_TAKEN = {
    "number_double_huge_neg_exp": b"[123.456e-789]",
    "number_real_neg_underflow": b"[123e-10000000]",
    "number_too_big_neg_int": b"[-123123123123123123123123123123]",
}
"""Numbers that every parser takes, some exactly and some not. The bytes go on as they came, and nobody judges them."""


def cases(documents: dict[str, bytes]) -> list[object]:
    return [pytest.param(document, id=name) for name, document in documents.items()]


@pytest.mark.parametrize("document", cases(Y))
def test_what_every_parser_must_take_is_taken(document: bytes) -> None:
    assert loads(document) == json.loads(document.decode())


@pytest.mark.parametrize("document", cases(I_TAKEN))
def test_numbers_beyond_what_is_exact_are_taken_as_nearly_as_can_be(document: bytes) -> None:
    assert loads(document) == [float(json.loads(document)[0])]


@pytest.mark.parametrize("document", cases(N | I_REFUSED))
def test_what_no_parser_may_take_or_not_all_take_alike_is_no_json(document: bytes) -> None:
    with pytest.raises(InvalidJson):
        loads(document)


@pytest.mark.parametrize("document", cases(Y_DOUBLED))
def test_what_every_parser_takes_in_its_own_way_is_refused(document: bytes) -> None:
    with pytest.raises(Denial):
        loads(document)
