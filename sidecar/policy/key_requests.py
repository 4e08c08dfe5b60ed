"""What may be asked for when keys are made, listed and rotated. Pure decisions; every reader is total."""

from __future__ import annotations

import binascii
import unicodedata
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterable
from typing import Final

from sidecar.denials import ClientNotAllowed, InsufficientScope, InvalidRequest, InvalidToken
from sidecar.model import SCOPES, Principal
from sidecar.policy.access import expand
from sidecar.policy.apikeys import is_key_id

MAX_NAME_LENGTH: Final = 100
MAX_EXPIRY_DAYS: Final = 3650
MAX_GRACE_S: Final = 604_800
MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 50

_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, lone surrogates (which no UTF-8 can hold), line and paragraph separators."""


def read_name(value: object) -> str:
    """Read a key's name.

    Raises:
        InvalidRequest: unless it is a string of 1 to 100 characters, not all blank, without control characters.
    """
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME_LENGTH:
        raise InvalidRequest("key_name", f"name: must be a string of 1 to {MAX_NAME_LENGTH} characters, not blank")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in value):
        raise InvalidRequest("key_name", "name: must not contain control characters")
    return value


def read_scopes(value: object) -> tuple[str, ...]:
    """Read the scopes asked for; the answer has each once, in the order of `SCOPES`.

    Raises:
        InvalidRequest: unless it is a list of one or more known scopes.
    """
    if not isinstance(value, list | tuple) or not value or any(scope not in SCOPES for scope in value):
        raise InvalidRequest("key_scopes", f"scopes: must be a list of one or more of {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in value)


def read_expiry_days(value: object) -> int:
    """Read after how many days a key shall expire.

    Raises:
        InvalidRequest: unless it is a whole number from 1 to 3650.
    """
    return _whole_number(value, "expiresInDays", "key_expiry", 1, MAX_EXPIRY_DAYS)


def read_grace_s(value: object) -> int:
    """Read for how many seconds a rotated key shall still work.

    Raises:
        InvalidRequest: unless it is a whole number from 0 to 604800, which is a week.
    """
    return _whole_number(value, "graceSeconds", "key_grace", 0, MAX_GRACE_S)


def read_page_size(value: object) -> int:
    """Read how many keys a page shall have.

    Raises:
        InvalidRequest: unless it is a whole number from 1 to 100.
    """
    return _whole_number(value, "limit", "page_limit", 1, MAX_PAGE)


def require_granted(scopes: Iterable[str], granted: tuple[str, ...]) -> None:
    """Let nobody hand out more than they have.

    Raises:
        InsufficientScope: naming what is missing.
    """
    held = expand(granted)
    missing = [scope for scope in scopes if scope not in held]
    if missing:
        text = "Token does not have permission for this operation"
        raise InsufficientScope(text, required=" ".join(missing), granted=granted)


def require_manager(principal: Principal, scope: str | None, client_ids: Collection[str]) -> None:
    """Let those manage keys who may: by token only, with this scope if one is set, from these clients if any are.

    The scope may be one of ours, which a wider one covers, or any other name that the issuer writes into tokens.

    Raises:
        InvalidToken: for a key, which can't manage keys.
        InsufficientScope: naming the scope.
        ClientNotAllowed: also for a token that names no client.
    """
    if principal.kind != "jwt":
        raise InvalidToken("credential_kind")
    if scope is not None and scope not in principal.foreign_scopes:
        require_granted((scope,), principal.scopes)
    if client_ids and principal.client_id not in client_ids:
        raise ClientNotAllowed("client_not_allowed", detail=f"client {principal.client_id}")


def write_cursor(key_id: str) -> str:
    """Write where the next page starts: opaque to clients, the last id shown to us."""
    return urlsafe_b64encode(key_id.encode("ascii")).rstrip(b"=").decode("ascii")


def read_cursor(cursor: str) -> str:
    """Read the id that a page ended with.

    Raises:
        InvalidRequest: unless `write_cursor` can have written this.
    """
    try:
        key_id = urlsafe_b64decode(cursor.encode("ascii") + b"==").decode("ascii")
    except (UnicodeError, binascii.Error):
        key_id = ""
    # The decoder skips what is not of its alphabet; only the one spelling that we write may pass.
    if not is_key_id(key_id) or write_cursor(key_id) != cursor:
        raise InvalidRequest("page_cursor", "cursor: must be the nextCursor of an earlier answer")
    return key_id


def _whole_number(value: object, name: str, reason: str, least: int, most: int) -> int:
    # JSON's true is an int to Python.
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(reason, f"{name}: must be a whole number from {least} to {most}")
    return value
