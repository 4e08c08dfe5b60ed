"""What a chat tool is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from sidecar.policy import webhooks
from tests.policy.confirming import NOW, confirmation

SECRET = b"s" * 32


def test_it_is_told_what_waits_and_where() -> None:
    told = json.loads(webhooks.message(confirmation(arguments="{}"), "https://mcp.example", NOW))
    assert (told["type"], told["timestamp"]) == ("approval.waiting", "2026-09-21T14:13:20Z")
    assert told["data"]["url"] == "https://mcp.example/approvals/" + "a" * 32
    assert (told["data"]["tool"], told["data"]["arguments"], told["data"]["state"]) == ("drop", "{}", "waiting")


def test_the_signature_is_over_id_time_and_body() -> None:
    given = webhooks.headers(SECRET, "a", b"{}", NOW + 0.9)
    digest = hmac.new(SECRET, f"a.{NOW:.0f}.{{}}".encode(), hashlib.sha256).digest()
    assert given == {
        "Content-Type": "application/json",
        "webhook-id": "a",
        "webhook-timestamp": f"{NOW:.0f}",
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, "delivered") for status in (200, 204, 299)),
        *((status, "again") for status in (500, 503, 408, 425, 429)),
        *((status, "refused") for status in (199, 301, 400, 404, 410)),
    ],
)
def test_an_answer_means(status: int, verdict: str) -> None:
    assert webhooks.verdict(status) == verdict


def test_it_is_tried_again_ever_later_while_the_call_waits() -> None:
    waits = [webhooks.next_attempt(attempts, NOW, NOW + 1000) for attempts in range(1, 7)]
    assert waits == [1, 5, 30, 120, 300, None]
    assert webhooks.next_attempt(1, NOW, NOW + 1) is None
