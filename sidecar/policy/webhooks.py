"""What is told to a chat tool of a call that waits, how is it signed, and when is it told again?

Signed as by Standard Webhooks 1.0.0 (standardwebhooks.com): HMAC-SHA256 over id, time and body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final, Literal

import orjson

from sidecar.policy import approvals
from sidecar.policy.apikeys import rfc3339
from sidecar.records import Confirmation

RETRY_S: Final = (1.0, 5.0, 30.0, 120.0, 300.0)
"""After each attempt that failed, so long until the next one; then no more."""
_TRY_AGAIN: Final = (408, 425, 429)

Verdict = Literal["delivered", "again", "refused"]


def message(approval: Confirmation, public_url: str, now: float) -> bytes:
    """Return what is sent: the approval as REST shows it, and where people decide."""
    data = {**approvals.describe(approval, now), "url": f"{public_url}/approvals/{approval.id}"}
    return orjson.dumps({"type": "approval.waiting", "timestamp": rfc3339(now), "data": data})


def headers(secret: bytes, message_id: str, body: bytes, now: float) -> dict[str, str]:
    """Return the headers that go with the body. The id is the same for each attempt, the time is not."""
    sent_at = str(int(now))
    signed = b".".join((message_id.encode(), sent_at.encode(), body))
    signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{signature}",
    }


def verdict(status: int) -> Verdict:
    """Return what an answer means."""
    if 200 <= status < 300:
        return "delivered"
    return "again" if status >= 500 or status in _TRY_AGAIN else "refused"


def next_attempt(attempts: int, now: float, expires_at: float) -> float | None:
    """Return the seconds to wait after so many attempts; None for no more, as the call would wait no longer."""
    if attempts > len(RETRY_S) or now + RETRY_S[attempts - 1] >= expires_at:
        return None
    return RETRY_S[attempts - 1]
