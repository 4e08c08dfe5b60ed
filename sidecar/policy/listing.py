"""What of a list answer may this principal see?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from sidecar.denials import BadGateway
from sidecar.model import Action, Era, Headers, JsonRpcId, Principal, ToolClass
from sidecar.policy.access import CALL, FULL, LIST, expand, required
from sidecar.policy.jsonparts import Part, edited, read, require_whole_characters

FilterPolicy = Literal["keys", "all", "none"]
ListKind = Literal["tools", "tasks"]
BodyForm = Literal["json", "events"]

_NAME_OF: Final[Mapping[ListKind, str]] = {"tools": "name", "tasks": "taskId"}
_CLASSES: Final[tuple[ToolClass | None, ...]] = (*get_args(ToolClass), None)
_TOP: Final = frozenset({"jsonrpc", "id", "method", "result", "error"})
_CACHE_SCOPE: Final = "cacheScope"
MAX_ENTRIES: Final = 10_000
"""As many as the catalogue takes."""
_ENTRIES_DEPTH: Final = 3
"""Message, result, list: the entries are the parts of the third."""
_FORMS: Final[Mapping[bytes, BodyForm]] = {b"application/json": "json", b"text/event-stream": "events"}
_CHARSETS: Final = frozenset({b"charset=utf-8", b'charset="utf-8"', b"charset=utf8"})


def filters(policy: FilterPolicy, principal: Principal) -> bool:
    """Tell whether this caller's tool lists are filtered: *keys* means API-key callers only.

    Who can step up does so only for a tool that it has seen.
    """
    return policy == "all" or (policy == "keys" and principal.kind == "api_key")


def visible_tools(
    principal: Principal, names: Iterable[str], class_of: Callable[[str], ToolClass | None]
) -> frozenset[str]:
    """Return those tools that the principal may call, as `access.required` decides about the call.

    Who may only list sees what `mcp:tools:call` may call. For `mcp:full`, `class_of` is not asked.
    """
    held = expand(principal.scopes)
    if FULL in held:
        return frozenset(names)
    if LIST in held:
        held |= {CALL}
    callable_classes: dict[ToolClass | None, bool] = {}
    for tool_class in _CLASSES:
        callable_classes[tool_class] = required(Action("request", "tools/call"), tool_class) <= held
    return frozenset([name for name in names if callable_classes[class_of(name)]])


def body_form(lines: Headers) -> BodyForm:
    """Tell from its headers how the body of a list answer is read.

    Raises:
        BadGateway: ``upstream_list_malformed``: neither JSON nor events, compressed, or not in UTF-8. A client might
            read what can't be read here.
    """
    types = [value for name, value in lines if name.lower() == b"content-type"]
    codings = [value for name, value in lines if name.lower() == b"content-encoding"]
    media, *parameters = [part.strip().lower() for part in (types[0] if len(types) == 1 else b"").split(b";")]
    form = _FORMS.get(media)
    plain = all(coding.strip().lower() == b"identity" for coding in codings)
    utf8 = all(parameter in _CHARSETS for parameter in parameters if parameter.startswith(b"charset"))
    if form is None or not plain or not utf8:
        raise BadGateway("upstream_list_malformed", detail="a list is neither plain JSON nor plain events in UTF-8")
    return form


def is_readable(lines: Headers) -> bool:
    """Tell whether this is the head of a body that a client could read messages from, whatever its status."""
    try:
        body_form(lines)
    except BadGateway:
        return False
    return True


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """The answer to a list request. What is kept of it stays as it was written, to the byte."""

    names: tuple[str, ...]
    """Of the entries, in order: tool names, or task ids."""
    _message: bytes = field(repr=False)
    _text: str = field(repr=False)
    _list: Part = field(repr=False)
    _cache_scope: Part | None = field(repr=False)

    @classmethod
    def parse(cls, message: bytes, message_id: JsonRpcId | None, kind: ListKind) -> ListAnswer | None:
        """Return the list in this message; None for what may pass as it is: another message, an error, or no message.

        Any result with such a member is a list, whatever its id; `message_id` is that of the list request, whose answer
        must be one. It is None where another request is answered, or earlier ones again (`Last-Event-ID`).

        Raises:
            BadGateway: ``upstream_list_malformed``: what it lists, or whether it lists anything, depends on who reads.
        """
        if not message.strip():
            return None
        try:
            return cls._parse(message, message_id, kind)
        except ValueError as error:
            raise BadGateway("upstream_list_malformed", detail=f"{kind}/list: {error}") from error

    @classmethod
    def _parse(cls, message: bytes, message_id: JsonRpcId | None, kind: ListKind) -> ListAnswer | None:
        text = message.decode()
        result, answers_it = _result_in(read(text, _ENTRIES_DEPTH), message_id)
        if result is None:
            return None
        members = _members(result, frozenset({kind, _CACHE_SCOPE}))
        if kind not in members and not answers_it:
            return None
        entries = members.get(kind)
        if entries is None or not isinstance(entries.value, list):
            raise ValueError(f"result.{kind} is no list")
        if len(entries.value) > MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES} entries")
        require_whole_characters(text)
        names = tuple([_name(entry, _NAME_OF[kind]) for entry in entries.value])
        return cls(names, message, text, entries, members.get(_CACHE_SCOPE))

    def keep(self, visible: Collection[str], *, era: Era) -> bytes:
        """Return the message without the entries that are not visible; the very same one when nothing changes.

        What depends on who asks is not to be cached for others (MCP 2026-07-28, caching): `cacheScope` becomes
        `private` where there is one, and in the modern era, where it must be there, always.
        """
        edits: list[tuple[int, int, str]] = []
        entries: list[Part] = self._list.value
        kept = [entry for entry, name in zip(entries, self.names, strict=True) if name in visible]
        if len(kept) < len(entries):
            listed = ",".join([self._text[entry.begin : entry.end] for entry in kept])
            edits.append((self._list.begin, self._list.end, f"[{listed}]"))
        if self._cache_scope is None:
            if era == "modern":
                edits.append((self._list.end, self._list.end, f',"{_CACHE_SCOPE}":"private"'))
        elif self._cache_scope.value != "private":
            edits.append((self._cache_scope.begin, self._cache_scope.end, '"private"'))
        return edited(self._text, sorted(edits)).encode() if edits else self._message


def _result_in(message: Part, message_id: JsonRpcId | None) -> tuple[Part | None, bool]:
    """Return the message's result, None when it has none, and whether it answers this very request.

    Whose answer it is excuses no list: some servers read an id as a number that the client sent as a text.
    """
    if not isinstance(message.value, dict):
        raise ValueError("the message is no object")
    members = _members(message, _TOP)
    result = members.get("result")
    other = "method" in members or "error" in members
    if result is not None and (other or "id" not in members):
        raise ValueError("a result without an id, or with a method or an error beside it")
    answers_it = message_id is not None and "id" in members and _same(members["id"].value, message_id)
    if answers_it and result is None and not other:
        raise ValueError("the answer has neither a result nor an error")
    return result, answers_it


def _same(found: object, message_id: JsonRpcId) -> bool:
    """Tell whether a client may take it for the id that it sent; some compare numbers and their texts alike."""
    return found == message_id or str(found) == str(message_id)


def _name(entry: Part, member: str) -> str:
    name = entry.value.get(member) if isinstance(entry.value, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"an entry has no {member}")
    _refuse_lookalikes(entry.value, frozenset({member}))
    return name


def _members(part: Part, names: frozenset[str]) -> dict[str, Part]:
    """Return an object's members, of which these are judged; what is no object has none."""
    members: dict[str, Part] = part.value if isinstance(part.value, dict) else {}
    _refuse_lookalikes(members, names)
    return members


def _refuse_lookalikes(members: Mapping[str, Any], names: frozenset[str]) -> None:
    """Refuse a name that only a reader who is careless of case takes for one that is judged here."""
    folded = {name.casefold() for name in names}
    if any(member not in names and member.casefold() in folded for member in members):
        raise ValueError("a member's name differs from a judged one in case only")
