"""Is the answer right? One request by a client of our own, looked at on both sides of the proxy."""

from __future__ import annotations

import http.client
import secrets
from dataclasses import dataclass
from typing import Final

from tests.bench.calls import Call
from tests.bench.contenders.contender import Contender
from tests.bench.errors import WrongAnswer
from tests.bench.upstream import CHECKING
from tests.bench.wrk import Headers

CALL_HEADERS: Final[Headers] = (
    ("Content-Type", "application/json"),
    ("Accept", "application/json, text/event-stream"),
    ("MCP-Protocol-Version", "2025-11-25"),
)
"""What an MCP client sends with each call, beside its credential."""
_TIMEOUT_S: Final = 60
_ID_BYTES: Final = 13


@dataclass(frozen=True)
class Checked:
    """A right answer."""

    headers: dict[str, str]
    """In lower case."""
    body_bytes: int


def check(contender: Contender, call: Call, *, credential: Headers | None = None) -> Checked:
    """Make the call once.

    Raises:
        WrongAnswer: status, body, or what the upstream was told are not what they should be.
    """
    request_id = CHECKING + secrets.token_hex(_ID_BYTES)
    headers = {**dict(CALL_HEADERS), **dict(credential or contender.credential), "X-Request-Id": request_id}
    connection = http.client.HTTPConnection("127.0.0.1", contender.port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", contender.path + call.query, call.body, headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise WrongAnswer(f"no answer: {error!r}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise WrongAnswer(f"HTTP {answer.status}: {body[:200]!r}")
    problem = contender.answer_problem(body, call)
    if not problem:
        problem = contender.identity_problem(contender.upstream.seen(request_id), call)
    if problem:
        raise WrongAnswer(problem)
    return Checked({name.lower(): value for name, value in answer.getheaders()}, len(body))
