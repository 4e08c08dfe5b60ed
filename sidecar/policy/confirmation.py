"""Must a person confirm this call, how are they asked, and is this their word?"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from sidecar.denials import InvalidParams
from sidecar.model import Action, CredentialKind, Permit, Principal, RequestFacts, Route, ToolClass
from sidecar.policy import jsonparts
from sidecar.policy.headers import of_the_call
from sidecar.policy.lookalikes import BLANK
from sidecar.policy.sessions import owner
from sidecar.records import Confirmation, ConfirmationState

ToolsThatNeedIt = Literal["declared", "writes", "never"]
Channel = Literal["stream", "retry", "approval"]
"""How a person is asked. *stream*: by a request to the client on the call's own answer (MCP 2025-06-18, elicitation).
*retry*: by an answer that the client repeats the call with (MCP 2026-07-28, multi round-trip requests). *approval*: not
through this client."""
Word = Literal["accept", "decline", "cancel"]

ANSWER_KEY: Final = "sidecar.confirm"
"""The name of our question among those of an `InputRequiredResult`."""
QUESTION_ID: Final = re.compile(r"sc-[0-9a-f]{32}")
"""Ours alone: the ids of an upstream's own requests are none like it."""
FIRST_WITH_ELICITATION: Final = "2025-06-18"
MOVES: Final[Mapping[str, tuple[frozenset[ConfirmationState], ConfirmationState]]] = {
    "approve": (frozenset({"waiting"}), "approved"),
    "decline": (frozenset({"waiting"}), "declined"),
    "withdraw": (frozenset({"waiting", "approved", "declined"}), "withdrawn"),
    "spend": (frozenset({"approved"}), "spent"),
}
"""What can happen to a confirmation: in which states, and what it is then. A store does each in one step, and only
`spend` lets a call pass: so it passes at most once, only after an approval, and never after it was withdrawn."""
OPEN: Final[frozenset[ConfirmationState]] = frozenset({"waiting", "approved", "declined"})
"""In these a confirmation is the one for what it is for; a repeated call finds it, and a decline is not asked again."""

JUDGED_BYTES: Final = 32_768
"""Nobody judges a longer call, and what is done with one here holds up everybody else: about 50 ms for so much."""
CARRIED_BYTES: Final = 131_072
"""So much `requestState` and `inputResponses` may make of a call besides (MCP 2026-07-28)."""
KEPT_OF_ARGUMENTS: Final = 16_384
"""Bytes of UTF-8."""
MOST_WAITING: Final = 100
"""Approvals of one account that nobody has decided on: what is kept has a bound, and nobody reads a longer list."""
_STRICTEST_LAST: Final[tuple[ToolsThatNeedIt, ...]] = ("never", "declared", "writes")
_CLIENT_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
_CARRIED: Final = ("_meta", "requestState", "inputResponses")
"""Members of `params` that may differ from one try of a call to the next; the last two since 2026-07-28."""
_SHOWN_OF_VALUE: Final = 200
_SHOWN_ARGUMENTS: Final = 20
_SHOWN_OF_NAME: Final = 80
_SPOKEN: Final = {"<": "\\u003c", ">": "\\u003e", "`": "\\u0060", "://": ":\\/\\/", "](": "]\\u0028"}
"""What a client could make markup or a link of, as JSON may write it as well."""


class Rules:
    """Which calls need a confirmation.

    Tokens go by `tools`, or by what their route says; API keys only where their route says so, unless whoever holds a
    token could have made the key to come around this: such a key counts as its maker, on whichever route that asks for
    most.
    """

    def __init__(self, *, tools: ToolsThatNeedIt, routes: tuple[Route, ...], keys_are_managed: bool) -> None:
        self._tools: Final = tools
        self._keys_are_managed = keys_are_managed
        ruled = [self._rule(route, "jwt") for route in routes if "jwt" in route.credentials]
        self._of_makers = max([tools, *ruled], key=_STRICTEST_LAST.index)
        self._rules = {(route.path, kind): self._rule(route, kind) for route in routes for kind in route.credentials}
        self.may_apply = self._of_makers != "never" or any(rule != "never" for rule in self._rules.values())
        """Whether any call at all may need one."""

    def needs(self, principal: Principal, route: str, tool_class: ToolClass) -> bool:
        """Tell whether this call of a tool needs a confirmation."""
        rule = self._rules[route, principal.kind]
        if principal.key is not None and principal.key.origin == "rest" and not self._keys_are_managed:
            rule = max(rule, self._of_makers, key=_STRICTEST_LAST.index)
        return tool_class == "destructive" if rule == "declared" else rule == "writes" and tool_class != "read"

    def _rule(self, route: Route, kind: CredentialKind) -> ToolsThatNeedIt:
        if route.confirmation != "inherit":
            return route.confirmation
        return self._tools if kind == "jwt" else "never"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person is asked about: all that the upstream sees of a call, but what differs from one try to the next."""

    tool: str
    params: Mapping[str, Any]
    """Without `_meta`; since 2026-07-28 also without what a client carries. Numbers are their text."""
    target: str
    query: str
    """The client's own part of the target's."""
    lines: list[tuple[str, str]]
    """See `headers.of_the_call`."""


def channel(facts: RequestFacts, action: Action, *, approver: Literal["caller", "other"], elicits: bool) -> Channel:
    """Return how to ask for this call. `elicits`: the session's client said at `initialize` that it can ask a person.

    What the caller's own client says is no proof that somebody else agrees.
    """
    if approver == "other":
        return "approval"
    if facts.era == "modern":
        meta = action.params.get("_meta")
        capabilities = meta.get(_CLIENT_CAPABILITIES) if isinstance(meta, dict) else None
        return "retry" if takes_forms(capabilities) else "approval"
    knows_it = facts.headers.get("mcp-protocol-version", "") >= FIRST_WITH_ELICITATION
    takes_streams = "text/event-stream" in facts.headers.get("accept", "").lower()
    return "stream" if elicits and knows_it and takes_streams else "approval"


def takes_forms(capabilities: object) -> bool:
    """Tell whether a client with these capabilities shows forms to a person; an empty member means that it does."""
    elicitation = capabilities.get("elicitation") if isinstance(capabilities, dict) else None
    return isinstance(elicitation, dict) and (not elicitation or isinstance(elicitation.get("form"), dict))


def word(answer: object) -> Word:
    """Return what the result of an elicitation says; whatever is not an acceptance with the box ticked is a refusal."""
    if not isinstance(answer, dict):
        return "cancel"
    content = answer.get("content")
    if answer.get("action") == "accept":
        return "accept" if isinstance(content, dict) and content.get("confirm") is True else "decline"
    return "decline" if answer.get("action") == "decline" else "cancel"


def elicitation(message: str, *, mode: bool) -> dict[str, Any]:
    """Return the parameters that ask a person for a yes. Before 2025-11-25 there is no `mode`."""
    box = {"type": "boolean", "title": "Yes, run it", "default": False}
    schema = {"type": "object", "properties": {"confirm": box}, "required": ["confirm"]}
    return {**({"mode": "form"} if mode else {}), "message": message, "requestedSchema": schema}


def is_too_large(facts: RequestFacts, action: Action, body: bytes) -> bool:
    """Tell whether a call is more than a person can be asked about, before anything is done that takes long with it."""
    if facts.era != "modern" or len(body) <= JUDGED_BYTES:
        return len(body) > JUDGED_BYTES
    if len(body) > JUDGED_BYTES + CARRIED_BYTES:
        return True
    carried = [action.params[name] for name in ("requestState", "inputResponses") if name in action.params]
    return len(body) - sum(len(orjson.dumps(value)) for value in carried) > JUDGED_BYTES


def asked_about(facts: RequestFacts, action: Action, permit: Permit) -> Asked:
    """Return what a person is asked about before this call of a tool is made.

    Raises:
        InvalidParams: its arguments are no object, and so could not be shown by their names.
    """
    params = json.loads(permit.body or b"", parse_int=_Number, parse_float=_Number)["params"]
    if not isinstance(params.get("arguments"), dict | None):
        raise InvalidParams("arguments_malformed", "arguments must be an object")
    left_out = _CARRIED if facts.era == "modern" else _CARRIED[:1]
    kept = {name: value for name, value in params.items() if name not in left_out}
    return Asked(str(action.tool), kept, permit.target, facts.query or "", of_the_call(permit.headers))


def call_binding(principal: Principal, asked: Asked) -> str:
    """Return a digest of who calls what with what: all that the upstream sees of another call has another.

    Of a number its text counts, because some parsers read different ones alike. How members are ordered does not.
    """
    parts = [asked.tool, asked.target, [list(line) for line in asked.lines], asked.params]
    return _digest("call", principal.account, owner(principal), *(_written(part, sorted) for part in parts))


def arguments_text(body: bytes) -> tuple[str | None, bool]:
    """Return the arguments of a call as the client wrote them, up to `KEPT_OF_ARGUMENTS`, and whether that cut them.

    Raises:
        InvalidParams: they hold a number that no reader keeps as it is.
    """
    text = body.decode()
    try:
        part = jsonparts.read(text, 2).value["params"].value.get("arguments")
    except ValueError as error:
        raise InvalidParams("arguments_unreadable", "The arguments hold a number that is too long") from error
    if part is None:
        return None, False
    whole = text[part.begin : part.end].encode()
    return whole[:KEPT_OF_ARGUMENTS].decode(errors="ignore"), len(whole) > KEPT_OF_ARGUMENTS


def answers_a_question(action: Action) -> bool:
    """Tell whether this may be the answer to a question of ours."""
    is_named = action.kind == "response" and isinstance(action.id, str)
    return is_named and QUESTION_ID.fullmatch(str(action.id)) is not None


def request_binding(principal: Principal, session: str, request_id: object) -> str:
    """Return a digest of the client's own request: a number is never a string."""
    return _digest("request", principal.account, owner(principal), session, json.dumps(request_id))


def session_digest(session: str | None) -> str:
    """Return what is kept of a session's id."""
    return "" if session is None else _digest("session", session)


def may_answer(asked: Confirmation, principal: Principal, session: str) -> bool:
    """Tell whether this caller is the one that was asked: the same one, in the same session."""
    return asked.kind == "question" and asked.owner == owner(principal) and asked.session == session


def message(asked: Asked, account: str) -> str:
    """Return what the person is asked. Names and values may have been chosen to mislead: they can't look like our text.

    Long ones are cut, and it says so. Every argument is named, up to 20, and as much of what comes besides them.
    """
    head = f"Run {_shown(asked.tool, _SHOWN_OF_NAME)} on account {_shown(account, 128)}?"
    arguments = [("", name, value) for name, value in (asked.params.get("arguments") or {}).items()]
    return "\n".join([head, *_rows(arguments, "arguments"), *_besides(asked)])


def besides(asked: Asked) -> str | None:
    """Return what comes besides tool and arguments, as the person reads it, a line for each; None for nothing."""
    return "\n".join(_besides(asked)) or None


def approval_text(approval: Confirmation, public_url: str) -> str:
    """Return what model and person are to do about a call that waits for an approval."""
    return (
        f"{_shown(approval.tool, _SHOWN_OF_NAME)} was not run: a person has to approve this call first. "
        f"It waits at {public_url}/approvals/{approval.id} and its operator can allow it with: "
        f"sidecar approvals approve {approval.id} - then make the same call again, with the same arguments. "
        "It will go through once. Do not call again before somebody says that it was approved."
    )


def too_many_text() -> str:
    """Return what model and person are to do where no further approval is kept."""
    return (
        f"The tool was not run: a person has to approve this call first, and {MOST_WAITING} calls of this account wait "
        "for that already. Do not call again before some of these were decided on; its operator sees them with: "
        "sidecar approvals list."
    )


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _besides(asked: Asked) -> list[str]:
    found = [("parameter ", name, value) for name, value in asked.params.items() if name not in ("name", "arguments")]
    found += [("header ", name, value) for name, value in asked.lines]
    parts = [part.partition("=") for part in asked.query.split("&") if part]
    found += [("query ", name, value) for name, _, value in parts]
    return _rows(found, "parameters, headers and parts of the query")


def _rows(found: list[tuple[str, str, Any]], kind: str) -> list[str]:
    shown = found[:_SHOWN_ARGUMENTS]
    rows = [f"{mark}{_shown(name, _SHOWN_OF_NAME)}: {_shown(value, _SHOWN_OF_VALUE)}" for mark, name, value in shown]
    more = len(found) - len(shown)
    return [*rows, f"and {more} more {kind} that are not shown"] if more else rows


def _written(value: object, order: Callable[[Iterable[str]], Iterable[str]] = iter) -> str:
    """Write a value with its numbers as they came: sorted, equal ones and no others have the same text."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_written(name)}: {_written(value[name], order)}" for name in order(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join([_written(one, order) for one in value]) + "]"
    return json.dumps(value, ensure_ascii=False)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _shown(value: object, most: int) -> str:
    text = "".join(map(_visible, _written(value)))
    for mark, harmless in _SPOKEN.items():
        text = text.replace(mark, harmless)
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more characters)"


def _visible(char: str) -> str:
    """Write out what nobody sees, or what turns the order of others about (Unicode categories C, Zl and Zp)."""
    if unicodedata.category(char)[0] == "C" or unicodedata.category(char) in ("Zl", "Zp") or char in BLANK:
        return json.dumps(char)[1:-1]
    return char
