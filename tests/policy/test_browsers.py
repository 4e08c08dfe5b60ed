"""DNS rebinding, foreign pages, and what a browser is told."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.denials import Denial, HostNotAllowed, InvalidRequest, OriginNotAllowed
from sidecar.policy.browsers import Browsers, host_pattern, is_preflight, origin_of
from tests.policy.facts import facts

LOCAL = "http://127.0.0.1:8080"
FAR = "https://mcp.example"


def browsers(public_url: str = LOCAL, *, hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()) -> Browsers:
    return Browsers(public_url=public_url, allowed_hosts=hosts, allowed_origins=origins)


def refused_by(guard: Browsers, *lines: tuple[str, str]) -> type[Denial] | None:
    try:
        guard.require_allowed(facts(*lines))
    except Denial as denial:
        return type(denial)
    return None


LOOPBACK = ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "localhost.:80", "[::1]:8080", "[0:0::1]"]


@pytest.mark.parametrize("public_url", [LOCAL, "http://localhost:8080", "http://[::1]:8080", "http://127.1.2.3"])
@pytest.mark.parametrize("host", [*LOOPBACK, "127.255.0.1", "127.0.0.1:", "localhost:65535"])
def test_the_loopback_names_are_one_at_any_port(public_url: str, host: str) -> None:
    assert refused_by(browsers(public_url), ("Host", host)) is None


@pytest.mark.parametrize("host", ["mcp.example", "MCP.Example", "mcp.example.", "mcp.example:443", "mcp.example.:8443"])
def test_the_name_of_the_public_url_is_ours_in_any_spelling(host: str) -> None:
    assert refused_by(browsers(FAR), ("Host", host)) is None
    assert refused_by(browsers("https://mcp.example.:8443"), ("Host", host)) is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "mcp.example.evil.test", "evil-mcp.example", "a.mcp.example", "example", "", ".", ":443"),
        *("mcp.example..", "mcp.example:x", "mcp.example:443:443", "mcp.example:000000", "mcp.example:65536"),
        *("mcp.example, mcp.example", "user@mcp.example", "mcp.example/", " mcp.example", "mcp.example\x00", "m\xe4p"),
        *("127.1", "2130706433", "0x7f.0.0.1", "127.0.0.1.", "[127.0.0.1]", "[::1", "::1", "[::1%lo]", "1.1.1.1"),
        *LOOPBACK,
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    assert refused_by(browsers(FAR), ("Host", host)) is HostNotAllowed


def test_a_loopback_address_is_served_only_where_the_public_url_or_the_operator_says_so() -> None:
    assert refused_by(browsers(FAR, hosts=("localhost",)), ("Host", "127.0.0.1:8080")) is None


@pytest.mark.parametrize("lines", [(), (("Host", "localhost"), ("Host", "localhost")), (("Host", ""), ("host", ""))])
def test_a_request_has_exactly_one_host(lines: tuple[tuple[str, str], ...]) -> None:
    """RFC 9112 section 3.2."""
    for guard in (browsers(), browsers(hosts=("*",))):
        assert refused_by(guard, *lines) is InvalidRequest


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("mcp.internal", ["mcp.internal", "MCP.internal.:1"], ["a.mcp.internal", "internal"]),
        ("MCP.internal.", ["mcp.internal"], []),
        ("mcp.internal:8080", ["mcp.internal:8080"], ["mcp.internal", "mcp.internal:80", "mcp.internal:443"]),
        ("mcp.internal:443", ["mcp.internal:443", "mcp.internal"], ["mcp.internal:80"]),
        ("*.example", ["a.example", "mcp.example:1", "a.b.example"], ["example", "aexample", "a.example.test"]),
        ("*.b.example:81", ["a.b.example:81"], ["a.b.example", "b.example:81", "b.example"]),
        ("*.localhost", ["a.localhost:1"], ["localhost"]),
        ("10.0.0.1", ["10.0.0.1:8080"], ["10.0.0.2", "10.0.0.1.example"]),
        ("[fd00::1]:8080", ["[FD00:0::1]:8080"], ["[fd00::1]"]),
        ("*", ["anything.test", "10.0.0.1:5", "[fd00::1]"], ["", "a b", "x:y"]),
    ],
)
def test_the_operator_lists_further_hosts(pattern: str, taken: list[str], left: list[str]) -> None:
    guard = browsers("https://own.test", hosts=("first.test", pattern))
    assert {host: refused_by(guard, ("Host", host)) for host in taken} == dict.fromkeys(taken)
    assert {host: refused_by(guard, ("Host", host)) for host in left} == dict.fromkeys(left, HostNotAllowed)


@pytest.mark.parametrize(
    ("public_url", "origin"),
    [
        (LOCAL, LOCAL),
        (LOCAL, "http://localhost:8080"),
        ("http://localhost:8080", "http://[::1]:8080"),
        ("http://localhost", "http://127.0.0.1"),
        (FAR, FAR),
        (FAR, "HTTPS://MCP.example:443"),
    ],
)
def test_our_own_pages_may_ask(public_url: str, origin: str) -> None:
    guard = browsers(public_url, hosts=("*",))
    assert refused_by(guard, ("Host", "x"), ("Origin", origin)) is None


@pytest.mark.parametrize(
    ("public_url", "origin"),
    [
        *((LOCAL, text) for text in ("http://localhost", "https://localhost:8080", "http://127.0.0.1:8081", FAR)),
        *(
            (FAR, text)
            for text in (
                *("https://evil.example", "http://mcp.example", "https://mcp.example:8443", "https://a.mcp.example"),
                *("https://mcp.example.", "https://mcp.example/", "https://mcp.example, https://mcp.example", ""),
                *("https://mcp.example https://evil.example", "null", "NULL", "*", "mcp.example", "//mcp.example"),
                *(
                    "https://user@mcp.example",
                    "https://mcp.example:",
                    "https://mcp.example\x00",
                    "https://[::1",
                    "\xff",
                ),
                *(
                    "http://127.0.0.1:8080",
                    "https://mcp.example:65536",
                    "https://1.2.3.400",
                    "https://mcp.example.evil",
                ),
            )
        ),
    ],
)
def test_a_page_of_any_other_origin_may_not_ask(public_url: str, origin: str) -> None:
    guard = browsers(public_url, hosts=("*",))
    assert refused_by(guard, ("Host", "x"), ("Origin", origin)) is OriginNotAllowed
    assert guard.cors_headers(origin) == (("Vary", "Origin"),)


@pytest.mark.parametrize(
    "origin", ["https://app.example", "http://localhost:6274", "chrome-extension://abcdef", "null", "tauri://localhost"]
)
def test_the_operator_lists_further_origins(origin: str) -> None:
    guard = browsers(FAR, origins=("https://first.test", origin))
    assert refused_by(guard, ("Host", "mcp.example"), ("Origin", origin)) is None
    assert refused_by(guard, ("Host", "mcp.example"), ("Origin", FAR)) is None
    assert refused_by(guard, ("Host", "evil.example"), ("Origin", origin)) is HostNotAllowed
    assert refused_by(browsers(FAR), ("Host", "mcp.example"), ("Origin", origin)) is OriginNotAllowed


def test_two_origins_are_not_one_even_when_both_are_ours() -> None:
    guard = browsers(FAR, origins=("null",))
    lines = (("Host", "mcp.example"), ("Origin", FAR), ("Origin", FAR))
    assert refused_by(guard, *lines) is OriginNotAllowed


def test_a_list_that_holds_nonsense_allows_nothing() -> None:
    guard = browsers(FAR, hosts=("a b",), origins=("nonsense", "*"))
    assert refused_by(guard, ("Host", "c d")) is HostNotAllowed
    assert refused_by(guard, ("Host", "mcp.example"), ("Origin", "more nonsense")) is OriginNotAllowed
    assert refused_by(guard, ("Host", "mcp.example"), ("Origin", "*")) is OriginNotAllowed


def test_a_public_url_that_is_no_origin_guards_nothing_and_is_refused() -> None:
    with pytest.raises(ValueError, match="not an origin"):
        browsers("https://mcp.example/mcp")


def test_the_origin_is_echoed_and_the_answers_own_headers_can_be_read() -> None:
    headers = dict(browsers(FAR).cors_headers(FAR))
    assert headers["Access-Control-Allow-Origin"] == FAR
    assert headers["Vary"] == "Origin"
    exposed = headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Mcp-Session-Id", "MCP-Protocol-Version", "WWW-Authenticate", "Retry-After", "X-Request-Id"} <= {*exposed}
    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= {*exposed}
    assert {"RateLimit", "RateLimit-Policy"} <= {*exposed}
    assert "Access-Control-Allow-Credentials" not in headers


def test_an_answer_to_no_page_says_that_it_would_differ_for_one() -> None:
    assert browsers().cors_headers(None) == (("Vary", "Origin"),)


def test_a_preflight_names_methods_and_headers_without_wildcards() -> None:
    guard = Browsers(public_url=FAR, allowed_hosts=(), allowed_origins=(), pass_headers=("x-tenant",))
    headers = dict(guard.preflight(("GET", "POST", "DELETE"), None))
    assert headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE, OPTIONS"
    assert 600 <= int(headers["Access-Control-Max-Age"]) <= 86400
    allowed = headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type", "accept", "x-api-key", "mcp-session-id", "mcp-protocol-version"} <= {
        *allowed
    }
    assert {"last-event-id", "mcp-method", "mcp-name", "x-custom-auth-headers", "x-tenant"} <= {*allowed}
    assert "*" not in headers["Access-Control-Allow-Headers"]
    assert headers.keys() == {
        *("Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Max-Age")
    }


@pytest.mark.parametrize(
    ("requested", "added"),
    [
        (None, []),
        ("", []),
        ("content-type,mcp-param-region", ["mcp-param-region"]),
        ("Mcp-Param-A,\t mcp-param-b , x-evil", ["Mcp-Param-A", "mcp-param-b"]),
        ("mcp-param-, mcp-parameter, x-mcp-param-a, mcp-param-a b, mcp-param-a\r\nx: y, mcp-param-\xe4", []),
        ("mcp-param-" + "a" * 101, []),
    ],
)
def test_tool_parameters_are_allowed_by_the_name_that_was_asked_for(requested: str | None, added: list[str]) -> None:
    def allowed(requested: str | None) -> list[str]:
        return dict(browsers().preflight(("GET",), requested))["Access-Control-Allow-Headers"].split(", ")

    assert allowed(requested) == [*allowed(None), *added]


@pytest.mark.parametrize(
    ("method", "lines", "expected"),
    [
        ("OPTIONS", (("Origin", FAR), ("Access-Control-Request-Method", "POST")), True),
        ("OPTIONS", (("Origin", FAR),), False),
        ("OPTIONS", (("Access-Control-Request-Method", "POST"),), False),
        ("POST", (("Origin", FAR), ("Access-Control-Request-Method", "POST")), False),
    ],
)
def test_a_preflight_is_options_with_an_origin_and_the_method_to_come(
    method: str, lines: tuple[tuple[str, str], ...], expected: bool
) -> None:
    assert is_preflight(facts(*lines, method=method)) is expected


ANYTHING = st.one_of(
    st.text(alphabet=st.characters(max_codepoint=255)),
    st.from_regex(r"\A(https?|app|null)?:?/?/?\*?\[?[0-9a-z.:*]{0,12}\]?(:[0-9]{0,7})?\Z"),
)


@given(host=ANYTHING, origin=ANYTHING, requested=ANYTHING)
def test_any_header_is_judged_and_nothing_of_it_breaks_an_answer(host: str, origin: str, requested: str) -> None:
    guard = browsers(origins=("null",), hosts=("*.example",))
    assert refused_by(guard, ("Host", host), ("Origin", origin)) in (None, HostNotAllowed, OriginNotAllowed)
    for _, value in (*guard.cors_headers(origin), *guard.preflight(("GET",), requested)):
        assert re.fullmatch(r"[ -~]+", value)


@given(pattern=st.one_of(ANYTHING, st.text()))
def test_any_text_is_read_as_a_pattern_or_refused(pattern: str) -> None:
    named = host_pattern(pattern)
    assert named is None or named[1] is None or 0 < named[1] < 65536
    origin = origin_of(pattern)
    assert origin is None or origin[2] is None or 0 < origin[2] < 65536
