"""What is asked, and what has to come back: the same for every contender."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

AnswerKind = Literal["small", "large", "events", "slow", "gigabyte"]
UpstreamKind = Literal["static", "streaming"]

TOOL: Final = "look"
EVENTS: Final = 100
LARGE_BYTES: Final = 65_536
_ARGUMENTS: Final = {"city": "Lisbon", "days": 3, "units": "metric"}


def _message(arguments: dict[str, object], tool: str = TOOL) -> bytes:
    params = {"name": tool, "arguments": arguments}
    document = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return json.dumps(document, separators=(",", ":")).encode()


def _padded(size: int) -> bytes:
    empty = len(_message({"text": ""}))
    return _message({"text": "x" * (size - empty)})


def _answer(text: str) -> bytes:
    result = {"content": [{"type": "text", "text": text}], "isError": False}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}, separators=(",", ":")).encode()


SMALL_ANSWER: Final = _answer("Sunny for three days, 24 to 27 degrees")
LARGE_ANSWER: Final = _answer("x" * (LARGE_BYTES - len(_answer(""))))


def event(number: int) -> bytes:
    """Return one server-sent event of an answer: progress, and at last the result."""
    if number == EVENTS - 1:
        return b"event: message\ndata: " + SMALL_ANSWER + b"\n\n"
    progress = {"progressToken": 1, "progress": number, "total": EVENTS}
    message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}
    return b"event: message\ndata: " + json.dumps(message, separators=(",", ":")).encode() + b"\n\n"


@dataclass(frozen=True, slots=True)
class Call:
    """A `tools/call`, and what its answer is."""

    body: bytes
    answer: AnswerKind = "small"
    upstream: UpstreamKind = "static"

    @property
    def query(self) -> str:
        """What the request line says behind the path: by it the upstream knows which answer is meant."""
        return "" if self.answer == "small" else f"?answer={self.answer}"

    @property
    def expected(self) -> bytes:
        """The body that must come back, byte by byte."""
        match self.answer:
            case "small":
                return SMALL_ANSWER
            case "large":
                return LARGE_ANSWER
            case "events":
                return b"".join(event(number) for number in range(EVENTS))
            case "slow":
                return event(0) + event(EVENTS - 1)
            case "gigabyte":
                raise ValueError("an answer of this size is compared by its reader, piece by piece")


SMALL_CALL: Final = Call(_message(dict(_ARGUMENTS)))
LARGE_CALL: Final = Call(_padded(LARGE_BYTES))
LARGE_ANSWER_CALL: Final = Call(SMALL_CALL.body, "large")
EVENTS_CALL: Final = Call(SMALL_CALL.body, "events", "streaming")
SLOW_CALL: Final = Call(SMALL_CALL.body, "slow", "streaming")
GIGABYTE_CALL: Final = Call(SMALL_CALL.body, "gigabyte")


def call_of(tool: str) -> Call:
    """Return a small call of this tool."""
    return Call(_message(dict(_ARGUMENTS), tool))
