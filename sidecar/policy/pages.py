"""Which page is at a path, and what may it do in a browser?"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterable
from typing import Final

Headers = tuple[tuple[str, str], ...]

KEYS: Final = "/keys"
APPROVALS: Final = "/approvals"
SIGN_IN_PATH: Final = "/keys/sign-in.json"
FILES: Final = "/keys/files/"
"""Below it are the scripts and the style of the pages."""

PAGES: Final = {KEYS: "keys.html", f"{KEYS}/callback": "keys.html", f"{APPROVALS}/callback": "approval.html"}
"""The pages by their paths; below `APPROVALS` there is one for each approval."""
_APPROVAL: Final = re.compile(re.escape(APPROVALS) + r"/[0-9a-f]{32}")
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_REFUSAL: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{title}</title>
<link rel="stylesheet" href="/keys/files/page.css">
</head>
<body>
<header>
<h1>{title}</h1>
</header>
<main>
{text}
<p><a href="/keys">API keys</a></p>
</main>
</body>
</html>
"""
_SAFE: Final[Headers] = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-cache"),
)
"""On all that belongs to the pages. Kept, and asked for anew each time: replicas of two versions serve side by side."""


def file_at(path: str) -> str:
    """Return the name of the file at this path: a page, or what is named below `FILES`, which may not exist.

    Empty when there can be none.
    """
    if path.startswith(FILES) and not path.endswith(".html"):
        return path.removeprefix(FILES)
    return "approval.html" if _APPROVAL.fullmatch(path) else PAGES.get(path, "")


def label(path: str) -> str:
    """Return under which name a path of the pages is counted."""
    return APPROVALS if path.startswith(APPROVALS) else KEYS


def content_type(name: str) -> str:
    """Return the type of a file of the pages."""
    return _TYPES["." + name.rpartition(".")[2]]


def file_headers(body: bytes) -> Headers:
    """Return what goes with a file that is the same for everyone."""
    return (*_SAFE, ("ETag", etag(body)))


def page_headers(body: bytes, asks: Iterable[str]) -> Headers:
    """Return what goes with a page: it may run our scripts, ask us and the origins in `asks`, and be framed by nobody.

    The policy is part of the ``ETag``, because browsers do not take a new one from a 304.
    """
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            " ".join(("connect-src 'self'", *asks)),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    return (
        *_SAFE,
        ("ETag", etag(policy.encode() + body)),
        ("Content-Security-Policy", policy),
        ("X-Frame-Options", "DENY"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    )


def is_read_by_people(path: str, accept: str | None) -> bool:
    """Tell whether who asks for this path is a browser that shows the answer: near our pages, and it names HTML."""
    is_near = any(path == page or path.startswith(f"{page}/") for page in (KEYS, APPROVALS))
    kinds = (accept or "").split(",")
    return is_near and any(kind.partition(";")[0].strip(" \t").lower() == "text/html" for kind in kinds)


def refusal(title: str, text: str, retry_after_s: int | None) -> bytes:
    """Return a page that says why there is none."""
    sentences = [text] if retry_after_s is None else [text, f"Try again in {retry_after_s} seconds."]
    paragraphs = "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    return _REFUSAL.format(title=html.escape(title), text=paragraphs).encode()


def refusal_headers(body: bytes) -> Headers:
    """Return what goes with it: as with a page, but nobody keeps it."""
    kept = ("Cache-Control", "ETag")
    return (*[each for each in page_headers(body, ()) if each[0] not in kept], ("Cache-Control", "no-store"))


def etag(content: bytes) -> str:
    """Return a strong validator (RFC 9110 section 8.8.3)."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_unchanged(validator: str, if_none_match: str | None) -> bool:
    """Tell whether the client has it already (RFC 9110 section 13.1.2, weak comparison)."""
    if if_none_match is None:
        return False
    held = [tag.strip(" \t").removeprefix("W/") for tag in if_none_match.split(",")]
    return validator in held or held == ["*"]
