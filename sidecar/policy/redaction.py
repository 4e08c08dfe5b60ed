"""What looks like a credential, and must stand in no log and no audit, whoever sent it as what."""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "[redacted]"

_SHORTEST: Final = 10
"""The length of the shortest text that the pattern below takes for a credential."""
_WORD: Final = "[0-9A-Za-z_-]"
# A search must take time in proportion to the text, whoever wrote it: a token is looked for at the beginning of a word
# alone, and nothing that was passed is looked at again (an atomic group, possessive quantifiers). What a token is glued
# to goes with it.
_CREDENTIAL: Final = re.compile(
    rf"(?<!{_WORD})(?>{_WORD}*?eyJ){_WORD}++\.eyJ{_WORD}++\.{_WORD}*+|mcp_[0-9A-Za-z]{{46}}"
)


def redacted(text: str) -> str:
    """Return the text with each API key and each JWT (RFC 7519, three parts) in it replaced by ``[redacted]``."""
    if len(text) < _SHORTEST or not ("mcp_" in text or ".eyJ" in text):
        return text
    return _CREDENTIAL.sub(REDACTED, text)


def may_hold_credential(document: bytes) -> bool:
    """Tell whether a string in this JSON document (of orjson, which escapes no letter) may have something to redact."""
    return b"mcp_" in document or b".eyJ" in document
