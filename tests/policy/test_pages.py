"""Which page is at a path, and what it may do."""

from __future__ import annotations

import pytest

from sidecar.policy import pages

ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/keys", "keys.html"),
        ("/keys/callback", "keys.html"),
        ("/approvals/callback", "approval.html"),
        (f"/approvals/{ID}", "approval.html"),
        ("/approvals", ""),
        (f"/approvals/{ID}0", ""),
        (f"/approvals/{ID.upper()}", ""),
        (f"/approvals/{ID}/callback", ""),
        (f"/approvals/{ID}\n", ""),
        ("/keys/", ""),
        ("/mcp", ""),
        ("/keys/files/keys.js", "keys.js"),
        ("/keys/files/keys.html", ""),
        ("/keys/files/", ""),
    ],
)
def test_a_page_is_at_its_own_path_and_nowhere_else(path: str, page: str) -> None:
    assert pages.file_at(path) == page


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/keys", "/keys"),
        ("/keys/files/whatever", "/keys"),
        ("/keys/sign-in.json", "/keys"),
        (f"/approvals/{ID}", "/approvals"),
        ("/approvals/callback", "/approvals"),
    ],
)
def test_paths_are_counted_under_few_names_whatever_strangers_ask_for(path: str, label: str) -> None:
    assert pages.label(path) == label


def test_a_page_may_run_our_scripts_ask_us_and_the_issuer_and_be_framed_by_nobody() -> None:
    headers = dict(pages.page_headers(b"<html>", ["https://idp.example", "https://tokens.example:8443"]))
    policy = dict(part.partition(" ")[::2] for part in headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self' https://idp.example https://tokens.example:8443",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-cache"


def test_another_policy_is_another_page_because_browsers_take_none_from_a_304() -> None:
    """Fetch and RFC 9111 section 3.2 aside, Chromium keeps the stored headers that begin with Content-."""
    assert dict(pages.page_headers(b"x", []))["ETag"] != dict(pages.page_headers(b"x", ["https://a.example"]))["ETag"]
    assert dict(pages.page_headers(b"x", []))["ETag"] != dict(pages.page_headers(b"y", []))["ETag"]


def test_a_file_has_a_type_that_no_browser_guesses_another_for() -> None:
    assert pages.content_type("keys.html") == "text/html; charset=utf-8"
    assert pages.content_type("a.b.js") == "text/javascript; charset=utf-8"
    assert pages.content_type("page.css") == "text/css; charset=utf-8"
    assert dict(pages.file_headers(b"x"))["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("sent", "unchanged"),
    [
        (None, False),
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ("a", False),
        ('"b"', False),
        ('"a', False),
    ],
)
def test_what_a_client_has_already_is_recognised_by_its_tag(sent: str | None, unchanged: bool) -> None:
    assert pages.is_unchanged('"a"', sent) is unchanged


@pytest.mark.parametrize(
    ("path", "accept", "reads"),
    [
        ("/keys", "text/html", True),
        ("/keys/x", "application/json, Text/HTML;q=0.9", True),
        ("/approvals/x", "text/html,*/*;q=0.8", True),
        ("/approvals", "text/html", True),
        ("/keys", None, False),
        ("/keys", "*/*", False),
        ("/keys", "text/htmlx", False),
        ("/keysx", "text/html", False),
        ("/api/api-keys", "text/html", False),
        ("/mcp", "text/html", False),
    ],
)
def test_who_reads_html_near_a_page_is_refused_in_html(path: str, accept: str | None, reads: bool) -> None:
    assert pages.is_read_by_people(path, accept) is reads


def test_what_a_refusal_says_is_text() -> None:
    body = pages.refusal("Not <Found>", "a & b", 7).decode()
    assert "<h1>Not &lt;Found&gt;</h1>" in body
    assert "<p>a &amp; b</p>" in body
    assert "Try again in 7 seconds." in body
    assert "Try again" not in pages.refusal("Not Found", "", None).decode()


def test_a_refusal_may_do_no_more_than_a_page_and_is_not_kept() -> None:
    body = pages.refusal("Not Found", "", None)
    found, of_a_page = dict(pages.refusal_headers(body)), dict(pages.page_headers(body, ()))
    assert found == {
        name: value for name, value in {**of_a_page, "Cache-Control": "no-store"}.items() if name != "ETag"
    }
