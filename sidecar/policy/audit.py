"""What does the audit say, and how is each record bound to those before it? Pure: lines in the making.

A file of records is one chain of hashes, whoever wrote its lines: each names the SHA-256 of the line before it. Within
it, each process has a chain of its own, numbered from 1. Who can write to the file can make hashes, too; therefore a
process signs its first record, one each minute, and its last. `policy.audit_proof` reads what is made here.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from sidecar.model import Action, IdentityKey
from sidecar.policy.identity import sealer
from sidecar.policy.redaction import REDACTED, may_hold_credential, redacted

START: Final = "start"
CHECKPOINT: Final = "checkpoint"
END: Final = "end"
DROPPED: Final = "dropped"
REFUSAL: Final = "refusal"
SHADOW: Final = "shadow"
"""What a rule in shadow mode would have refused, and let through."""
WRITE: Final = "write"
MANAGEMENT: Final = "management"
CATALOGUE: Final = "catalogue"
"""What became of the definitions of the upstream's tools."""
ACTIVITY: Final = "activity"
"""What was unusual about the use of keys."""
CONFIRMATION: Final = "confirmation"
"""A call that a person was asked about, has confirmed, or has not."""
SIGNED: Final = frozenset({START, CHECKPOINT, END})
"""What a record of another kind says is up to who makes it: these are all that matter here."""

SIGNATURE: Final = b',"signature":"'
CONTEXT: Final = b"mcp-sidecar audit\n"
"""Before what is signed, so that no signature of a request (RFC 9421) can be one of a record, nor the other way."""
MOST_ARGUMENT_BYTES: Final = 16_384

ArgumentsForm = Literal["none", "digest", "full"]


@dataclass(frozen=True, slots=True)
class Chain:
    """How far the records of one process have come."""

    id: str
    seq: int = 0
    """The number of the last record; 0 before the first."""
    hash: str | None = None
    """Of the last record's line."""


class Scribe:
    """Makes lines of records, and signs those that are to be signed by this key.

    Raises:
        ValueError: the key can't be used.
    """

    def __init__(self, key: IdentityKey) -> None:
        self._seal = sealer(key)
        self._signer = {"keyid": key.id, "alg": key.algorithm}

    def write(self, chain: Chain, before: str | None, records: Iterable[Mapping[str, Any]]) -> tuple[bytes, Chain]:
        """Return the lines of these records, and where the chain is then.

        `before` is the hash of the line that they come after in the file, None in an empty one. Each record has its
        ``kind`` and ``time``, and nothing that is named as what is added here.
        """
        lines = []
        for record in records:
            links: dict[str, Any] = {"chain": chain.id, "seq": chain.seq + 1, "prev": chain.hash}
            if not chain.seq or chain.hash != before:
                links["follows"] = before
            line = self._line(links, record)
            before = digest(line)
            chain = Chain(chain.id, chain.seq + 1, before)
            lines.append(line + b"\n")
        return b"".join(lines), chain

    def _line(self, links: Mapping[str, Any], record: Mapping[str, Any]) -> bytes:
        if record["kind"] not in SIGNED:
            return orjson.dumps({**links, **record})
        statement = orjson.dumps({**links, **record, **self._signer})
        return statement[:-1] + SIGNATURE + b64encode(self._seal(CONTEXT + statement)) + b'"}'


class Recorder:
    """Says what a record holds of the arguments: nothing, their digest, or both digest and text.

    `redact` are names or globs, in any case; what stands under such a name at any depth is replaced before it is
    hashed or written, so that a short secret can't be guessed from its digest. So is what looks like a credential.
    """

    def __init__(self, form: ArgumentsForm, redact: Sequence[str]) -> None:
        self.form = form
        self._redact = re.compile("|".join(fnmatch.translate(name.casefold()) for name in redact)) if redact else None

    def render(self, arguments: Any) -> bytes | None:
        """Return what is to wait of these arguments, which are a JSON value: their text, names sorted, or nothing.

        Parsed, they take up to thirty times as much memory. Nothing of them is looked at here, only in `about`.
        """
        return None if self.form == "none" else orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)

    def about(self, text: bytes | None) -> dict[str, Any]:
        """Return the members that speak of the arguments that were rendered so, the text as an `orjson.Fragment`."""
        if text is None:
            return {}
        if self._redact is not None or may_hold_credential(text):
            text = orjson.dumps(self._redacted(orjson.loads(text)), option=orjson.OPT_SORT_KEYS)
        members: dict[str, Any] = {"arguments_digest": f"sha-256:{digest(text)}"}
        if self.form == "full":
            too_long = len(text) > MOST_ARGUMENT_BYTES
            members["arguments"] = f"[{len(text)} bytes, too long to be kept]" if too_long else orjson.Fragment(text)
        return members

    def _redacted(self, value: Any) -> Any:
        if isinstance(value, str):
            return redacted(value)
        if isinstance(value, list):
            return [self._redacted(item) for item in value]
        if isinstance(value, dict):
            return {
                redacted(name): REDACTED if self._hides(name) else self._redacted(item) for name, item in value.items()
            }
        return value

    def _hides(self, name: str) -> bool:
        return self._redact is not None and self._redact.match(name.casefold()) is not None


def arguments_of(action: Action | None) -> Any:
    """Return what was asked with: a tool's arguments, or the parameters but `_meta`; None where there are none."""
    if action is None or action.kind not in ("request", "notification"):
        return None
    if action.method == "tools/call":
        arguments = action.params.get("arguments")
        return {} if arguments is None else arguments
    return {name: value for name, value in action.params.items() if name != "_meta"}


def digest(line: bytes) -> str:
    """Return the SHA-256 by which a line is named: of its bytes, without its end."""
    return hashlib.sha256(line).hexdigest()


def moment(seconds: float) -> str:
    """Write Unix seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
