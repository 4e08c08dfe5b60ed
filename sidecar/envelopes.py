"""What a client carries when an upstream asks for more after a confirmation, so that nobody is asked twice."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from sidecar.policy import retries
from sidecar.policy.retries import StateSealer
from sidecar.records import Confirmed


class Envelopes:
    """Puts the state of an upstream that asks for more after a confirmation into one of ours, which says so."""

    def __init__(self, sealer: StateSealer, clock: Callable[[], float], entropy: Callable[[int], bytes]) -> None:
        self._sealer = sealer
        self._clock = clock
        self._entropy = entropy

    def put(self, confirmed: Confirmed, message: bytes) -> bytes:
        """Return the answer as the client gets it; the very same one when it asks for nothing."""
        try:
            document = orjson.loads(message)
        except orjson.JSONDecodeError:
            return message
        if not retries.asks_for_input(document):
            return message
        theirs = document["result"].get("requestState")
        state = self._sealer.seal(
            "confirmed" if confirmed.by == "client" else "approved",
            confirmed.binding,
            theirs if isinstance(theirs, str) else None,
            now=self._clock(),
            entropy=self._entropy(retries.ENTROPY_BYTES),
        )
        return retries.with_state(message, state)
