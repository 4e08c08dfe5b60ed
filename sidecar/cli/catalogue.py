"""The ``catalogue`` commands: what the upstream's tools are, and that somebody has looked at what changed."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any, Final

from sidecar.cli.acts import Place, acting
from sidecar.cli.grammar import Commands, Parser, command, group
from sidecar.cli.output import CommandError, Outcome, table
from sidecar.config import Config
from sidecar.denials import Conflict, NotFound
from sidecar.policy import apikeys, pins
from sidecar.policy.tools import ToolLists
from sidecar.records import Pin, Pinned

_SHOWN: Final = 16
_ATTEMPTS: Final = 8
_NOTHING: Final = "Nothing is known of this upstream's tools yet: no sidecar with this store has fetched their list."


def add_to(commands: Commands) -> None:
    """Add these commands to the grammar."""
    catalogue = group(commands, "catalogue", "See the upstream's tools, and approve their definitions.")
    command(
        catalogue,
        "show",
        acting(_show),
        "List the tools as the running sidecars saw them last, with what changed since they were approved.",
        "sidecar catalogue show",
        more="States: approved; new; changed since it was approved; gone from the upstream's list. What the upstream\n"
        "says is shown with control characters and the like escaped.",
    )
    approve = command(
        catalogue,
        "approve",
        acting(_approve, "catalogue approve"),
        "Approve definitions as the running sidecars saw them last; of what is gone, forget the approval.",
        "sidecar catalogue approve get_rates --digest 3f9a1c0b7d2e4a65",
        more="What is approved is a digest: a later change is a change again. With --digest nothing is approved that\n"
        "has changed since you looked: for one tool its own digest, for --all the one below the list of 'show'.\n"
        "Running sidecars follow within a second or two.",
    )
    approve.add_argument("names", nargs="*", metavar="NAME", help="a tool's name, as 'show --json' writes it")
    approve.add_argument("--all", action="store_true", help="all that are new, changed or gone; needs --digest")
    approve.add_argument("--digest", metavar="D", help=f"what was shown: {_SHOWN} or more of its characters")
    approve.set_defaults(run=partial(_check_and_approve, approve))


def _check_and_approve(parser: Parser, args: argparse.Namespace) -> Outcome | int:
    if bool(args.names) == args.all:
        parser.error("either names or --all")
    if args.all and args.digest is None:
        parser.error("--all needs the --digest that 'sidecar catalogue show' tells")
    if args.digest is not None and len(args.names) > 1:
        parser.error("--digest goes with one name or with --all")
    if args.digest is not None and len(args.digest) < _SHOWN:
        parser.error(f"--digest must be {_SHOWN} characters or more")
    return acting(_approve, "catalogue approve")(args)


async def _show(_args: argparse.Namespace, place: Place) -> Outcome:
    pinned = await place.store.pinned(_upstream(place.config))
    lists = place.config.access.tools
    operators = ToolLists({"read": lists.read, "write": lists.write, "destructive": lists.destructive})
    trusts = place.config.access.trust_annotations
    shown = sorted(pinned.pins.values(), key=lambda pin: pin.name)
    tools = [_described(pin, _class(pin, operators, trusts=trusts)) for pin in shown]
    waiting = pins.shown_digest(_waiting(pinned))
    document = {"onChange": place.config.catalogue.on_change, "tools": tools, "waitingDigest": waiting}
    return Outcome(document, _text(tools, waiting))


async def _approve(args: argparse.Namespace, place: Place) -> Outcome:
    upstream = _upstream(place.config)
    for _ in range(_ATTEMPTS):
        pinned = await place.store.pinned(upstream)
        chosen = _chosen(args, pinned)
        now = time.time()
        changed = [(pin.name, pin, pins.approve(pin, now)) for pin in chosen if pins.state(pin) != "approved"]
        version = await place.store.change_pins(
            upstream, pinned.version, [(name, after) for name, _, after in changed], is_complete=pinned.is_complete
        )
        if version is not None:
            approved = [
                {"tool": pins.inert(pin.name), "digest": pins.digest_of(pin.seen), "state": pins.state(pin)}
                for _, pin, _ in changed
            ]
            place.note({"act": "approve_definitions", "tools": approved})
            words = [f"{each['tool']}: {_words(each)}" for each in approved]
            return Outcome({"approved": approved}, "\n".join(words) or "Nothing waits for an approval.")
    raise Conflict("pins_busy", "The definitions are being changed by others; try again")


def _chosen(args: argparse.Namespace, pinned: Pinned) -> list[Pin]:
    """Return the pins that are meant.

    Raises:
        NotFound: there is no such tool.
        CommandError: they are not what was shown.
    """
    if args.all:
        waiting = _waiting(pinned)
        _require_shown(args.digest, pins.shown_digest(waiting))
        return waiting
    missing = [name for name in args.names if name not in pinned.pins]
    if missing:
        names = ", ".join(map(pins.inert, missing))
        raise NotFound("tool_not_found", f"{names}: no such tool was seen; see sidecar catalogue show")
    chosen = [pinned.pins[name] for name in dict.fromkeys(args.names)]
    if args.digest is not None:
        _require_shown(args.digest, pins.digest_of(chosen[0].seen) or "")
    return chosen


def _require_shown(given: str, digest: str) -> None:
    if not digest.startswith(given.lower()):
        raise CommandError(
            "CONFLICT", "this is not what was shown: it has changed since; look again with sidecar catalogue show"
        )


def _waiting(pinned: Pinned) -> list[Pin]:
    return [pin for pin in pinned.pins.values() if pins.state(pin) != "approved"]


def _upstream(config: Config) -> str:
    return pins.upstream_id(config.upstream.url, config.upstream.socket)


def _class(pin: Pin, operators: ToolLists, *, trusts: bool) -> str:
    sighting = pin.seen or pin.approved
    annotated = sighting.annotated if trusts and sighting is not None else None
    return operators.declared(pin.name) or annotated or "write"


def _described(pin: Pin, tool_class: str) -> dict[str, Any]:
    standing = pins.state(pin)
    return {
        "name": pin.name,
        "class": tool_class,
        "state": standing,
        "digest": pins.digest_of(pin.seen),
        "approvedDigest": pins.digest_of(pin.approved),
        "approvedBy": pin.approved_by,
        "since": apikeys.rfc3339(pins.since(pin)),
        "difference": [] if standing == "approved" else pins.difference(pin),
    }


def _text(tools: list[dict[str, Any]], waiting: str) -> str:
    if not tools:
        return _NOTHING
    heads = ("NAME", "CLASS", "STATE", "DIGEST", "SINCE")
    rows = [
        (pins.inert(tool["name"]), tool["class"], tool["state"], (tool["digest"] or "-")[:_SHOWN], tool["since"])
        for tool in tools
    ]
    parts = [table(heads, rows)]
    changed = [tool for tool in tools if tool["state"] != "approved"]
    parts += ["\n".join([f"{pins.inert(tool['name'])} ({tool['state']}):", *tool["difference"]]) for tool in changed]
    if changed:
        parts.append(f"To approve all of this: sidecar catalogue approve --all --digest {waiting[:_SHOWN]}")
    return "\n\n".join(parts)


def _words(approved: dict[str, Any]) -> str:
    return "forgotten" if approved["digest"] is None else f"{approved['digest'][:_SHOWN]} is approved"
