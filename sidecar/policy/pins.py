"""Is this tool still what somebody approved? Definitions are compared by digest; approved is a digest, not a name.

What is hashed: of the entry in `tools/list`, the members of `HASHED` (and any that differ from them in case only, which
a careless reader takes for them), as JSON with sorted names, without white space, in UTF-8; SHA-256 in hex. Where one
name is listed several times and not alike, the other entries too. Not hashed: `icons`, `_meta` and whatever else.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Literal, get_args

from sidecar.policy.jsonrpc import is_name
from sidecar.policy.lookalikes import BLANK
from sidecar.policy.tools import class_of_annotations, least_trusted
from sidecar.records import Pin, Pinned, Sighting

State = Literal["approved", "new", "changed", "gone"]
Change = tuple[str, Pin | None, Pin | None]
"""A name, what was kept of it, and what is to be: None for nothing."""

HASHED: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
STATES: Final[tuple[State, ...]] = get_args(State)
WAITING: Final[tuple[State, ...]] = ("new", "changed")
"""These wait for somebody to approve them."""
_FOLDED: Final = frozenset(name.casefold() for name in HASHED)
_AGAIN: Final = "listed again"
"""Stands beside the members of a definition; no name of a member is folded to it."""
_LONGEST_MEMBER: Final = 4096
"""In bytes of JSON: so much of a member is kept for comparison."""
_MOST_MEMBERS: Final = 12
_DEEPEST_HASHED: Final = 200
_DEEPEST_SHOWN: Final = 40
_MOST_LINES: Final = 500
"""Of a member: comparing lines can take the square of their number."""
_MOST_DIFF_LINES: Final = 100
"""Of a member."""


def upstream_id(url: str, socket: str | None) -> str:
    """Return the short name under which an upstream's pins are kept: by its URL with path and query, and its socket."""
    return hashlib.sha256(canonical([url, socket])).hexdigest()[:32]


def sightings(tools: Iterable[Mapping[str, Any]]) -> dict[str, Sighting]:
    """Return what is to be compared of each tool that can be called, by name.

    Raises:
        ValueError: a definition nests too deeply.
    """
    found: dict[str, dict[bytes, dict[str, Any]]] = {}
    for tool in tools:
        if is_name(tool["name"]):
            definition = {member: value for member, value in tool.items() if member.casefold() in _FOLDED}
            if _nests_deeper(definition, _DEEPEST_HASHED):
                raise ValueError(f"a definition nests more than {_DEEPEST_HASHED} deep")
            found.setdefault(tool["name"], {})[canonical(definition)] = definition
    return {name: _sighting([*definitions.values()]) for name, definitions in found.items()}


def canonical(value: Any) -> bytes:
    """Write JSON in the one form that is hashed."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def state(pin: Pin) -> State:
    """Tell how a tool stands."""
    if pin.seen is None:
        return "gone"
    if pin.approved is None:
        return "new"
    return "approved" if pin.approved.digest == pin.seen.digest else "changed"


def since(pin: Pin) -> float:
    """Return since when it has stood so, in Unix seconds."""
    return pin.approved_at if state(pin) == "approved" and pin.approved_at is not None else pin.seen_at


def approved(pinned: Pinned) -> dict[str, str]:
    """Return the approved digest of each tool that has one."""
    return {name: pin.approved.digest for name, pin in pinned.pins.items() if pin.approved is not None}


def counts(pinned: Pinned) -> dict[State, int]:
    """Return how many tools stand how."""
    found = Counter(state(pin) for pin in pinned.pins.values())
    return {each: found[each] for each in STATES}


def changes(pinned: Pinned, seen: Mapping[str, Sighting], now: float) -> list[Change]:
    """Return what this list changes. The first one that is not empty approves what is in it: trust on first use.

    What nobody approved and is not listed any more is forgotten, so that an upstream that makes up names fills nothing.
    """
    if not pinned.is_complete and not seen:
        return []
    found: list[Change] = []
    for name, sighting in seen.items():
        pin = pinned.pins.get(name)
        if pin is None:
            first = None if pinned.is_complete else sighting
            by: Literal["first_use"] | None = None if first is None else "first_use"
            found.append((name, None, Pin(name, first, None if first is None else now, by, sighting, now)))
        elif pin.seen is None or pin.seen.digest != sighting.digest:
            found.append((name, pin, replace(pin, seen=sighting, seen_at=now)))
    for name, pin in pinned.pins.items():
        if name not in seen and pin.seen is not None:
            found.append((name, pin, None if pin.approved is None else replace(pin, seen=None, seen_at=now)))
    return found


def is_first(change: Change) -> bool:
    """Tell whether a definition was approved by this for being the first."""
    _, before, after = change
    return before is None and after is not None and after.approved is not None


def applied(pinned: Pinned, changed: Iterable[Change], *, version: int, is_complete: bool) -> Pinned:
    """Return the pins after these changes."""
    pins = dict(pinned.pins)
    for name, _, pin in changed:
        if pin is None:
            pins.pop(name, None)
        else:
            pins[name] = pin
    return Pinned(version, is_complete, pins)


def approve(pin: Pin, now: float) -> Pin | None:
    """Return the pin with what was seen as what is approved; of what is gone nothing is kept."""
    if pin.seen is None:
        return None
    return replace(pin, approved=pin.seen, approved_at=now, approved_by="cli")


def shown_digest(pins: Iterable[Pin]) -> str:
    """Return one digest for how all of these stand, by which somebody approves just what was shown."""
    shown = sorted((pin.name, "" if pin.seen is None else pin.seen.digest) for pin in pins)
    return hashlib.sha256(canonical(shown)).hexdigest()


def difference(pin: Pin) -> list[str]:
    """Return what was seen as against what was approved, as lines of a unified diff that any terminal may show.

    Each member has its share, so that none is hidden by the length of another.
    """
    before, after = _members(pin.approved), _members(pin.seen)
    lines = [f"--- approved {_short(pin.approved)}", f"+++ now {_short(pin.seen)}"]
    for member in _counting_first({**before, **after}):
        old, new = _lines(before, member), _lines(after, member)
        found = [*difflib.unified_diff(old, new, lineterm="")][2:]
        more = len(found) - _MOST_DIFF_LINES
        lines += [*found[:_MOST_DIFF_LINES], f"... {more} more lines"] if more > 0 else found
    return [inert(line) for line in lines]


def inert(text: str) -> str:
    """Escape what is not plainly shown: controls, terminal escapes, marks of direction, invisible characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join([char if char.isprintable() and char not in BLANK else _escaped(char) for char in text])


def digest_of(sighting: Sighting | None) -> str | None:
    """Return its digest, if there is one."""
    return None if sighting is None else sighting.digest


def told(changed: Sequence[Change]) -> list[dict[str, Any]]:
    """Return these changes as log and audit tell them."""
    return [
        {
            "tool": inert(name),
            "state": "gone" if after is None else state(after),
            "digest": None if after is None else digest_of(after.seen),
            "approved_digest": None if after is None else digest_of(after.approved),
        }
        for name, _, after in changed
    ]


def _sighting(definitions: list[dict[str, Any]]) -> Sighting:
    first, *more = definitions
    classes = [class_of_annotations(each.get("annotations")) for each in definitions]
    whole = {**first, _AGAIN: more} if more else first
    return Sighting(hashlib.sha256(canonical(whole)).hexdigest(), least_trusted(classes), _kept(whole))


def _kept(definition: Mapping[str, Any]) -> str:
    members = _counting_first(definition)
    kept = {member: _brief(definition[member]) for member in members[:_MOST_MEMBERS]}
    more = len(members) - len(kept)
    return canonical({**kept, "...": f"{more} more members"} if more else kept).decode()


def _brief(value: Any) -> Any:
    text = canonical(value)
    if len(text) <= _LONGEST_MEMBER and not _nests_deeper(value, _DEEPEST_SHOWN):
        return value
    return f"[{len(text)} bytes, sha-256 {hashlib.sha256(text).hexdigest()}]"


def _counting_first(members: Iterable[str]) -> list[str]:
    return sorted(members, key=lambda member: (member not in HASHED, member))


def _nests_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _members(sighting: Sighting | None) -> dict[str, Any]:
    return {} if sighting is None else dict(json.loads(sighting.definition))


def _lines(members: Mapping[str, Any], member: str) -> list[str]:
    """Write a member; what is too long to be compared line by line ends with a digest of it."""
    if member not in members:
        return []
    text = json.dumps({member: members[member]}, indent=2, ensure_ascii=False)
    lines = text.split("\n")[1:-1]
    more = len(lines) - _MOST_LINES
    if more <= 0:
        return lines
    return [*lines[:_MOST_LINES], f"... {more} more lines, sha-256 {hashlib.sha256(text.encode()).hexdigest()}"]


def _short(sighting: Sighting | None) -> str:
    return "nothing" if sighting is None else sighting.digest[:16]


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def written(pin: Pin) -> str:
    """Write a pin as stores keep it."""
    return json.dumps(asdict(pin), separators=(",", ":"))


def read(text: str | bytes) -> Pin:
    """Read it back.

    Raises:
        ValueError: it is none.
    """
    try:
        fields: dict[str, Any] = json.loads(text)
        seen, before = (None if fields[each] is None else Sighting(**fields[each]) for each in ("seen", "approved"))
        return Pin(**{**fields, "seen": seen, "approved": before})
    except (TypeError, KeyError) as error:
        raise ValueError(f"no pin: {error!r}") from error
