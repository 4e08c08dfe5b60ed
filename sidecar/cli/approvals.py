"""The ``approvals`` commands: calls that wait for a person, and the person's word."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any, Final

from sidecar.approvals import Approvals
from sidecar.cli.acts import Place, acting
from sidecar.cli.grammar import Commands, command, group
from sidecar.cli.output import Outcome, table
from sidecar.policy.approvals import OPERATOR, OUTCOME, Decision, audited, describe
from sidecar.policy.pins import inert
from sidecar.records import ApprovalAct

_NOTHING: Final = "No call waits for an approval."


def add_to(commands: Commands) -> None:
    """Add these commands to the grammar."""
    approvals = group(commands, "approvals", "See the calls that wait for a person, and approve or decline them.")
    show = command(
        approvals,
        "list",
        acting(_list),
        "List the calls that wait for an approval, the oldest first.",
        "sidecar approvals list",
        more="Tool and arguments are what the caller sent, laid out anew, with what is invisible escaped. --json has\n"
        "the arguments also as they were sent, up to 16384 bytes.",
    )
    show.add_argument(
        "--all", action="store_true", help="also what was decided, used or is over, while it is remembered"
    )
    decisions: tuple[tuple[Decision, str], ...] = (
        ("approve", "Let a call pass, once."),
        ("decline", "Refuse a call."),
    )
    for name, does in decisions:
        decide = command(
            approvals,
            name,
            acting(partial(_decide, name), f"approvals {name}"),
            f"{does} Only while it waits, which is for confirmation.ttl_s.",
            f"sidecar approvals {name} 3f9a1c0b7d2e4a653f9a1c0b7d2e4a65",
            more="It counts for the same caller and call alone, query and passed headers too; it must be made again.\n"
            "Read what it says first: sidecar approvals list. Running sidecars follow at once.",
        )
        decide.add_argument("id", metavar="ID", help="as 'list' and the caller's answer tell it")


async def _list(args: argparse.Namespace, place: Place) -> Outcome:
    approvals = Approvals(place.store, time.time)
    told = [describe(approval, approvals.now) for approval in await approvals.all()]
    shown = [each for each in told if args.all or each["state"] == "waiting"]
    return Outcome({"approvals": shown}, "\n\n".join(map(_words, shown)) or _NOTHING)


async def _decide(decision: Decision, args: argparse.Namespace, place: Place) -> Outcome:
    approvals = Approvals(place.store, time.time)
    approval = await approvals.find(args.id)
    decided = describe(await approvals.decide(approval, decision, OPERATOR), approvals.now)
    place.note({**audited(ApprovalAct(decision, approval)), "account": approval.account, "caller": approval.subject})
    then = "; it passes once, when it is made again" if decision == "approve" else ""
    return Outcome(decided, f"{inert(approval.tool)} of {approval.account} is {OUTCOME[decision]}{then}.")


def _words(approval: dict[str, Any]) -> str:
    caller = approval["caller"]
    client = "" if caller["clientId"] is None else f" by the client {inert(caller['clientId'])}"
    rows = [
        ("account", approval["account"]),
        ("caller", f"{inert(caller['subject'])}{client}"),
        ("tool", inert(approval["tool"])),
        *[("besides", inert(line)) for line in (approval["besides"] or "").splitlines()],
        ("asked", f"{approval['createdAt']}, until {approval['expiresAt']}"),
    ]
    if approval["decidedBy"] is not None:
        rows.append(("decided", f"by {inert(approval['decidedBy'])}"))
    return f"{approval['id']}  {approval['state']}\n{table(rows[0], rows[1:])}\n{_arguments(approval)}"


def _arguments(approval: dict[str, Any]) -> str:
    """Lay them out, each line set in, so that none looks like one of ours."""
    if approval["arguments"] is None:
        return "arguments  -"
    shown, unread = approval["argumentsShown"], ""
    if shown is None:
        shown, unread = approval["arguments"], " (can't be read as JSON: as they were sent)"
    more = "\n(and more, which is not kept: the end is missing)" if approval["argumentsCut"] else ""
    text = "\n".join(f"    {inert(line)}" for line in shown.split("\n"))
    return f"arguments{unread}\n{text}{more}"
