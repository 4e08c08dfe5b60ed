"""What does a client of 2026-07-28 carry from one try of a call to the next, and what of it is the upstream's?

MCP 2026-07-28, multi round-trip requests: an answer may ask for input, and the client repeats the call with the answers
and with a `requestState`, which is the caller's to forge: ours is sealed.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sidecar.denials import InvalidParams
from sidecar.model import IdentityKey
from sidecar.policy import jsonparts
from sidecar.policy.confirmation import ANSWER_KEY

ENTROPY_BYTES: Final = 28
"""A nonce of AES-GCM, and an id."""
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_PREFIX: Final = "sc1."
_CONTEXT: Final = b"mcp-sidecar confirmation"


Stage = Literal["asked", "confirmed", "approved"]
"""*asked*: a person is being asked by us. Said yes has, and the upstream asked for something more: *confirmed*, the
caller's own client; *approved*, somebody else."""


@dataclass(frozen=True, slots=True)
class State:
    """What we give a client to come back with."""

    stage: Stage
    id: str
    """For using it once."""
    binding: str
    """See `confirmation.call_binding`."""
    expires_at: float
    upstream: str | None
    """The upstream's own state, None where it has none."""


class StateSealer:
    """Seals and opens states, by keys made of the identity keys: the first seals, any opens."""

    def __init__(self, keys: tuple[IdentityKey, ...], *, ttl_s: float) -> None:
        self._ciphers = [AESGCM(HKDF(SHA256(), _KEY_BYTES, None, _CONTEXT).derive(key.secret)) for key in keys]
        self._ttl_s = ttl_s

    def seal(
        self,
        stage: Stage,
        binding: str,
        upstream: str | None,
        *,
        now: float,
        entropy: bytes,
    ) -> str:
        """Return a new state as the client carries it. `entropy` is `ENTROPY_BYTES` that were never used before."""
        nonce, state_id = entropy[:_NONCE_BYTES], entropy[_NONCE_BYTES:].hex()
        content = orjson.dumps([stage, state_id, binding, now + self._ttl_s, upstream])
        sealed = nonce + self._ciphers[0].encrypt(nonce, content, _CONTEXT)
        return _PREFIX + base64.urlsafe_b64encode(sealed).decode()

    def is_ours(self, text: object) -> bool:
        """Tell whether this was sealed here, for whatever call; of what a sidecar behind us has sealed it was not."""
        return isinstance(text, str) and text.startswith(_PREFIX) and self._opened(text) is not None

    def open(self, text: object, binding: str, now: float) -> State | None:
        """Return what a client came back with; None for what is not ours, and is for the upstream to judge.

        Raises:
            InvalidParams: it looks like ours and is not, is over, or is for another call or caller.
        """
        if not isinstance(text, str) or not text.startswith(_PREFIX):
            return None
        state = self._opened(text)
        if state is None or state.binding != binding:
            raise InvalidParams("state_invalid", "requestState does not belong to this call; call again without it")
        if state.expires_at <= now:
            raise InvalidParams("state_expired", "requestState has expired; call again without it")
        return state

    def _opened(self, text: str) -> State | None:
        try:
            sealed = base64.b64decode(text[len(_PREFIX) :], altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        for cipher in self._ciphers:
            try:
                content = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _CONTEXT)
            except (InvalidTag, ValueError):
                continue
            return State(*orjson.loads(content))
        return None


def without_ours(body: bytes, state: State) -> bytes:
    """Return a call without our question's answer and with the upstream's own state in place of ours, or without any.

    Once we have asked, whatever answer comes again is the upstream's: it may ask by the same name, as a sidecar does.
    Every value that stays keeps its bytes.
    """
    ours = {ANSWER_KEY} if state.stage == "asked" else set()
    text = body.decode()
    params = jsonparts.read(text, 2).value["params"]
    members: dict[str, str] = {}
    for name, part in params.value.items():
        member = text[part.begin : part.end]
        if name == "inputResponses" and isinstance(part.value, dict):
            responses = jsonparts.read(member, 1).value
            kept = {key: member[one.begin : one.end] for key, one in responses.items() if key not in ours}
            if kept:
                members[name] = _object(kept)
        elif name != "requestState":
            members[name] = member
    if state.upstream is not None:
        members["requestState"] = json.dumps(state.upstream)
    return jsonparts.edited(text, [(params.begin, params.end, _object(members))]).encode()


def with_state(message: bytes, state: str) -> bytes:
    """Return an answer that asks for input with this state in place of its own."""
    text = message.decode()
    result = jsonparts.read(text, 2).value["result"]
    members = {name: text[part.begin : part.end] for name, part in result.value.items() if name != "requestState"}
    members["requestState"] = json.dumps(state)
    return jsonparts.edited(text, [(result.begin, result.end, _object(members))]).encode()


def asks_for_input(document: Any) -> bool:
    """Tell whether this message is an answer that asks for input."""
    result = document.get("result") if isinstance(document, dict) else None
    return isinstance(result, dict) and result.get("resultType") == "input_required"


def _object(members: dict[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in members.items()) + "}"
