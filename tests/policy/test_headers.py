"""What crosses the proxy, either way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import BadGateway, InvalidRequest, UnsupportedMediaType
from sidecar.policy import answers, headers
from tests.policy.facts import facts

NOTHING: frozenset[str] = frozenset()


def sent(*lines: tuple[str, str], pass_headers: frozenset[str] = NOTHING) -> dict[str, str]:
    passed = headers.to_upstream(facts(*lines), pass_headers, session=None)
    assert len({name.lower() for name, _ in passed}) == len(passed)
    return {name.decode().lower(): value.decode("latin-1") for name, value in passed}


def test_only_the_allowed_headers_reach_the_upstream() -> None:
    passed = sent(
        ("accept", "application/json"),
        ("ACCEPT-LANGUAGE", "de"),
        ("Content-Type", "application/json"),
        ("User-Agent", "test"),
        ("MCP-Protocol-Version", "2025-11-25"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "add"),
        ("Mcp-Param-Region", "eu"),
        ("Last-Event-ID", "7"),
        ("traceparent", "00-1"),
        ("tracestate", "a=b"),
        ("baggage", "k=v"),
        *(
            (name, "evil")
            for name in (
                *("Authorization", "X-API-Key", "Cookie", "Host", "Origin", "Forwarded", "X-Forwarded-For"),
                *("X-Account-Id", "X_Account_Id", "x-account-scopes", "Signature", "Signature-Input"),
                *("Content-Digest", "X-Request-Id", "Content-Length", "Transfer-Encoding", "Accept-Encoding"),
                *("Expect", "Upgrade", "TE", "Trailer", "Proxy-Authorization", "X-Custom", "Mcp-Param-A_B"),
            )
        ),
    )

    assert set(passed) == {
        *("accept", "accept-language", "content-type", "user-agent", "mcp-protocol-version"),
        *("mcp-method", "mcp-name", "mcp-param-region", "last-event-id", "traceparent", "tracestate", "baggage"),
    }


def test_the_session_that_was_judged_is_the_one_that_is_sent() -> None:
    asked = facts(("Mcp-Session-Id", "presented"))

    assert (b"Mcp-Session-Id", b"judged") in headers.to_upstream(asked, NOTHING, session="judged")
    assert headers.to_upstream(asked, NOTHING, session=None) == []


def test_the_operators_own_headers_pass_too_but_never_with_an_underscore() -> None:
    allowed = frozenset({"x-tenant", "x_tenant"})

    assert sent(("X-Tenant", "a"), ("X_Tenant", "b"), pass_headers=allowed) == {"x-tenant": "a"}


@pytest.mark.parametrize("connection", ["baggage", "Baggage, close", "close,BAGGAGE", "a, baggage ,b"])
def test_what_the_client_calls_hop_by_hop_ends_here(connection: str) -> None:
    assert "baggage" not in sent(("Baggage", "k=v"), ("Connection", connection))


@pytest.mark.parametrize("connection", ["mcp-name", "close, Mcp-Method", "content-type", "MCP-PROTOCOL-VERSION"])
def test_what_is_judged_cannot_be_called_hop_by_hop(connection: str) -> None:
    with pytest.raises(InvalidRequest):
        sent(("Connection", connection))


def test_values_cross_byte_by_byte() -> None:
    everything = "".join(map(chr, [*range(0x20, 0x7F), *range(0x80, 0x100)]))

    assert sent(("User-Agent", everything))["user-agent"] == everything


def test_repeated_lines_are_joined_in_their_order() -> None:
    assert sent(("Accept", "a"), ("X-Other", "x"), ("accept", "b")) == {"accept": "a, b"}


@pytest.mark.parametrize("session_id", ["", "a b", "a\tb", "é", "x" * 1025])
def test_a_session_id_that_no_server_gives_out_is_refused(session_id: str) -> None:
    with pytest.raises(InvalidRequest):
        sent(("Mcp-Session-Id", session_id))


@pytest.mark.parametrize(
    "version",
    [
        "",
        "2026-07-28\xa0",
        "\xa02026-07-28",
        "2026-07-28, 2026-07-28",
        "2026-07-28,",
        "2026 07 28",
        '"2026-07-28"',
        "\xb2",
    ],
)
def test_a_protocol_version_that_another_reader_could_take_for_a_known_one_is_refused(version: str) -> None:
    """It counts as a legacy one here. Others trim, or take the first of several."""
    with pytest.raises(InvalidRequest) as refused:
        sent(("MCP-Protocol-Version", version))
    assert refused.value.reason == "version_malformed"


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28", "DRAFT-2026-v1", "1.0_x"])
def test_a_protocol_version_of_any_name_passes(version: str) -> None:
    assert sent(("MCP-Protocol-Version", version)) == {"mcp-protocol-version": version}


@given(st.lists(st.tuples(st.text(st.characters(codec="ascii"), min_size=1), st.text(st.characters(codec="latin-1")))))
def test_no_header_but_an_allowed_one_ever_crosses(lines: Any) -> None:
    try:
        passed = sent(*lines)
    except InvalidRequest:
        return

    assert all(name.startswith("mcp-") or name in headers._PASSED for name in passed)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; charset=utf-8 ",
    ],
)
def test_json_in_utf_8_is_taken(content_type: str) -> None:
    headers.require_json({"content-type": content_type})
    headers.require_json({"content-type": content_type, "content-encoding": "identity"})


@pytest.mark.parametrize(
    "announced",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/json-rpc"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json, application/json"},
        {"content-type": "application/json\n"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "identity, gzip"},
        {"content-type": "application/json", "content-encoding": ""},
    ],
)
def test_any_other_body_is_refused_before_it_is_read(announced: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMediaType):
        headers.require_json(announced)


@pytest.mark.parametrize(
    ("own", "query", "expected"),
    [
        ("", None, None),
        ("", "", ""),
        ("", "a=%2F&&b", "a=%2F&&b"),
        ("v=1", None, "v=1"),
        ("v=1", "a=b", "v=1&a=b"),
        ("v=1", "", "v=1&"),
    ],
)
def test_the_upstreams_own_query_comes_first_and_the_clients_byte_for_byte(
    own: str, query: str | None, expected: str | None
) -> None:
    assert headers.target("/up", own, query) == ("/up", expected)


@pytest.mark.parametrize("query", ["a#b", "a b", "é", "a\x7f", "a\n"])
def test_a_query_that_cannot_be_signed_is_refused(query: str) -> None:
    with pytest.raises(InvalidRequest):
        headers.target("/up", "", query)


def test_the_upstreams_headers_reach_the_client_except_what_would_speak_for_us() -> None:
    lines = tuple(
        (name.encode(), value)
        for name, value in (
            ("Content-Type", b"text/event-stream"),
            ("Mcp-Session-Id", b"s-1"),
            ("X-Own", "é".encode()),
            ("X-Not-Utf8", b"\xff"),
            ("Date", b"now"),
            ("Retry-After", b"7"),
            ("Connection", b"X-Hop, keep-alive"),
            ("X-Hop", b"1"),
            ("Keep-Alive", b"timeout=5"),
            ("Transfer-Encoding", b"chunked"),
            ("Content-Length", b"3"),
            ("Set-Cookie", b"a=b"),
            ("Server", b"uvicorn"),
            ("Signature", b"x"),
            ("Signature-Input", b"x"),
            ("Access-Control-Allow-Origin", b"*"),
            ("WWW-Authenticate", b"Bearer"),
            ("X-RateLimit-Limit", b"1"),
            ("RateLimit", b"1"),
            ("RateLimit-Policy", b"1"),
            ("X-Request-Id", b"theirs"),
        )
    )

    assert answers.to_client(lines) == [
        (b"Content-Type", b"text/event-stream"),
        (b"Mcp-Session-Id", b"s-1"),
        (b"X-Own", "é".encode()),
        (b"X-Not-Utf8", b"\xff"),
        (b"Date", b"now"),
        (b"Retry-After", b"7"),
    ]


def test_an_answer_that_names_no_connection_options_keeps_what_is_its_own() -> None:
    assert answers.to_client(((b"Date", b"now"), (b"Server", b"x"))) == [(b"Date", b"now")]


def test_the_announced_length_is_found_whatever_its_case() -> None:
    assert answers.content_length(((b"CONTENT-length", b"12"),)) == b"12"
    assert answers.content_length(()) is None


@pytest.mark.parametrize("status", [301, 302, 304, 307, 401, 403, 199, 101, 600])
def test_an_answer_that_would_mislead_the_client_becomes_a_bad_gateway(status: int) -> None:
    with pytest.raises(BadGateway):
        answers.require_usable(status)


@pytest.mark.parametrize("status", [200, 202, 204, 400, 404, 405, 409, 429, 500, 503])
def test_other_answers_pass(status: int) -> None:
    answers.require_usable(status)


@pytest.mark.parametrize(("status", "may"), [(200, True), (203, True), (202, False), (204, False), (404, False)])
def test_clients_read_messages_from_a_success_that_has_a_body(status: int, may: bool) -> None:
    assert answers.may_hold_messages(status) is may


@pytest.mark.parametrize(
    ("lines", "version"),
    [
        ({"transfer-encoding": "gzip, chunked"}, (1, 1)),
        ({"transfer-encoding": ",chunked"}, (1, 1)),
        ({"transfer-encoding": "chunked, chunked"}, (1, 1)),
        ({"transfer-encoding": "chunked"}, (1, 0)),
        ({"content-length": "07"}, (1, 1)),
        ({"content-length": "+7"}, (1, 1)),
        ({"content-length": "7, 7"}, (1, 1)),
        ({"upgrade": "h2c"}, (1, 1)),
        ({}, (1, 2)),
        ({}, (2, 0)),
        ({}, (0, 9)),
    ],
)
def test_framing_that_another_parser_could_read_differently_is_refused(
    lines: dict[str, str], version: tuple[int, int]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        headers.require_plain_framing(lines, version)
    assert caught.value.reason == "framing"


@pytest.mark.parametrize(
    "lines", [{}, {"content-length": "0"}, {"content-length": "71"}, {"transfer-encoding": "Chunked"}]
)
def test_plain_framing_passes(lines: dict[str, str]) -> None:
    headers.require_plain_framing(lines, (1, 1))


def test_http_1_0_passes_without_a_transfer_coding() -> None:
    headers.require_plain_framing({"content-length": "71"}, (1, 0))
