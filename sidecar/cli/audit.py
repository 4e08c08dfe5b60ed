"""The ``audit`` commands: is the record of refusals, writes and key management whole and unchanged?"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any, Final

from sidecar import auditing
from sidecar.cli.grammar import Commands, command, group
from sidecar.cli.output import CommandError, Outcome
from sidecar.cli.settings import load_settings
from sidecar.denials import Denial
from sidecar.policy import strictjson
from sidecar.policy.audit import Recorder
from sidecar.policy.audit_proof import Finding, Proof

_MOST_SHOWN: Final = 100
_VERIFYING: Final = """\
Every record that was changed, removed, doubled, moved or put in is found, down to the last signature:
each line of the file names the SHA-256 of the line before it, and each process numbers its own records.
Who can write to the file could make all that anew, but not the signatures: a process signs its first
record, one each minute, and its last, with the first of identity.keys.

What follows the last signature is counted as not proven, which is no fault. Nor is a chain without an
end: its process runs, or was killed. What no file can show is that it was cut off after a signature:
compare the time of the last one with when the process ran.

Name rotated files before the present one, the oldest first; .gz is read, too. Each says from which records
it goes on, and these must be in a file that was named; only the first may go on from one that was not, and
then it is not said that nothing is missing: so it is also when a file was emptied. With --keys no settings
are needed: what /.well-known/sidecar-keys.json serves will do, and for hmac-sha256
{"keys": [{"kty": "oct", "kid": "k1", "k": "base64url of the secret"}]}. Keep the public halves of keys
that are no longer in use, or the records of their time can't be checked.

The exit code is 0 when nothing is wrong, and 1 when anything is."""
_DIGESTING: Final = """\
It is the SHA-256 of the arguments as JSON with names sorted, in UTF-8 and without spaces, after what
audit.redact names was replaced. Arguments are read as JSON from standard input."""


def add_to(commands: Commands) -> None:
    """Add these commands to the grammar."""
    audit = group(commands, "audit", "Check the signed record of refusals, writes and key management.")
    verify = command(
        audit,
        "verify",
        _verify,
        "Tell whether the audit is whole and unchanged, and how far that is proven.",
        "sidecar audit verify\n  sidecar audit verify audit.log.1.gz audit.log --keys sidecar-keys.json --json",
        more=_VERIFYING,
    )
    verify.add_argument("files", nargs="*", metavar="FILE", help="the oldest first; audit.file unless given")
    verify.add_argument("--keys", action="append", default=[], metavar="FILE", help="a JWK set; may be repeated")
    command(
        audit,
        "digest",
        _digest,
        "Say what arguments_digest a record has for given arguments.",
        """echo '{"path": "/etc/motd"}' | sidecar audit digest""",
        more=_DIGESTING,
    )


def _verify(args: argparse.Namespace) -> Outcome:
    needs_settings = not (args.files and args.keys)
    config = load_settings(args)[0] if needs_settings else None
    try:
        proof = auditing.verified(config, args.files, args.keys)
    except ValueError as problem:
        raise CommandError("FAILED", str(problem)) from problem
    code = 1 if proof.problems else 0
    return Outcome(_document(proof), _text(proof), code)


def _digest(args: argparse.Namespace) -> Outcome:
    redact = load_settings(args)[0].audit.redact
    try:
        arguments = strictjson.loads(sys.stdin.buffer.read())
    except Denial as denial:
        raise CommandError.refused(denial) from denial
    recorder = Recorder("digest", redact)
    members = recorder.about(recorder.render(arguments))
    return Outcome(members, members["arguments_digest"])


def _document(proof: Proof) -> dict[str, Any]:
    chains = [
        {name: value for name, value in asdict(one).items() if name not in ("hash", "seq", "file", "line")}
        for one in proof.chains.values()
    ]
    return {
        "ok": not proof.problems,
        "files": [{**asdict(one), "unproven": one.lines - one.proven} for one in proof.files],
        "chains": chains,
        "problems": [asdict(one) for one in proof.problems],
        "notes": [asdict(one) for one in proof.notes],
    }


def _text(proof: Proof) -> str:
    told = []
    for one in proof.files:
        kinds = ", ".join(f"{count} {kind}" for kind, count in one.kinds.items())
        last = one.last_checkpoint or "none"
        told.append(f"{one.file}: {one.lines} lines ({kinds}), proven up to line {one.proven}; last signature: {last}")
    told += [f"note: {_finding(one)}" for one in proof.notes]
    told += [f"WRONG: {_finding(one)}" for one in proof.problems[:_MOST_SHOWN]]
    if len(proof.problems) > _MOST_SHOWN:
        told.append(f"and {len(proof.problems) - _MOST_SHOWN} more; --json has all")
    told.append(_summary(proof))
    return "\n".join(map(_inert, told))


def _summary(proof: Proof) -> str:
    if proof.problems:
        return "The audit is NOT as it was written."
    if proof.goes_on:
        return "What is here is unchanged, but goes on from records that are not: name the files before it, too."
    return "Nothing is missing or changed."


def _inert(text: str) -> str:
    """Write what a terminal might obey, or show as something else, as an escape: the file may be anybody's work."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _finding(one: Finding) -> str:
    return f"{one.file}, line {one.line}: {one.message}"
