"""The document of ``sidecar explain``, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

Document = dict[str, Any]

_KINDS: Final = {"jwt": "token", "api_key": "API key"}


def text(told: Document) -> str:
    """Return what the document says, for people."""
    entries = [entry for entry in _entries(told) if entry[1]]
    width = max(len(name) for name, _ in entries)
    pad = "\n" + " " * (width + 2)
    body = "\n".join(f"{name:<{width}}  {words.replace(chr(10), pad)}" for name, words in entries)
    return f"{_verdict(told)}\n\n{body}"


def _verdict(told: Document) -> str:
    refusal = told["refusal"]
    if told["decision"] == "allowed":
        noted = f", though {told['shadow']} is noted (shadow mode)" if told["shadow"] else ""
        once = " once a person has confirmed it" if told["confirmation"] == "needed" else ""
        asked = (
            ", though a person would be asked (mode.confirmation: shadow)" if told["confirmation"] == "shadow" else ""
        )
        return f"ALLOWED{once}{noted}{asked}"
    if told["decision"] == "unknown":
        return "UNKNOWN"
    words = f"REFUSED by {refusal['rule']}: {refusal['status']} {refusal['errorType']} ({refusal['reason']})"
    more = [each for each in (refusal["message"], refusal["detail"]) if each]
    return "\n".join([words, *(f"  {each}" for each in more)])


def _entries(told: Document) -> Iterator[tuple[str, str]]:
    request = told["request"]
    if request is not None:
        yield "request", f"{request['method']} {request['path']} from {request['client']}, {request['era']} era"
    yield "credential", _credential(told["credential"])
    yield "action", _action(told["action"])
    yield "tool", _tool(told["tool"])
    yield "limits", _limits(told["limits"])
    if "log" in told:
        line = told["log"]
        yield (
            "log",
            f"{line['outcome']} ({line['reason']}), status {line['status']}"
            + (f": {line['detail']}" if line["detail"] else ""),
        )
    yield "note", "\n".join(told["notes"])


def _credential(credential: Document | None) -> str:
    if credential is None:
        return "none that is good here"
    of = "" if credential["kind"] == "api_key" else "of "
    who = f"{_KINDS[credential['kind']]} {of}{credential['subject']}, account {credential['account']}"
    client = f", client {credential['clientId']}" if credential["clientId"] else ""
    until = f", until {credential['expiresAt']}" if credential["expiresAt"] else ""
    return f"{who}{client}{until}\nscopes {' '.join(credential['scopes']) or 'none'}"


def _action(action: Document | None) -> str:
    if action is None:
        return "not looked at"
    needs = action["needs"]
    what = action["method"] or action["kind"]
    if needs is None:
        return f"{what}, whose scope depends on the tool"
    return f"{what}, needs {' '.join(needs) or 'no scope'}{', counts as a write' if action['write'] else ''}"


def _tool(tool: Document | None) -> str:
    if tool is None:
        return ""
    name = json.dumps(tool["name"], ensure_ascii=False)
    if tool["because"] == "unknown":
        return f"{name}: not known"
    why = {
        "list": f"access.tools.{tool['class']} has {tool['entry']}",
        "annotation": "the upstream's annotation says so",
        "default": "no list names it and no annotation that is trusted says otherwise",
    }
    return f"{name} is {tool['class']}: {why[tool['because']]}"


def _limits(limits: list[Document] | None) -> str:
    if limits is None:
        return "not reached: what is refused before costs nothing"
    return "\n".join(_limit(limit) for limit in limits) or "none apply"


def _limit(limit: Document) -> str:
    left = "" if limit["remaining"] is None else f", {limit['remaining']} left"
    wait = f", again in {limit['retryAfter']} s" if limit["retryAfter"] else ""
    holder = f" {limit['countedFor']}" if limit["countedFor"] else ""
    return f"{limit['name']}: {limit['requests']} in {limit['windowSeconds']} s per {limit['per']}{holder}{left}{wait}"
