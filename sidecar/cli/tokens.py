"""The ``tokens`` commands: ending tokens before they expire."""

from __future__ import annotations

import argparse
from functools import partial

from sidecar.cli.acts import Place, acting
from sidecar.cli.grammar import Commands, Parser, command, group, read_moment
from sidecar.cli.output import CommandError, Outcome
from sidecar.policy import apikeys
from sidecar.policy.tokens import token_id


def add_to(commands: Commands) -> None:
    """Add these commands to the grammar."""
    tokens = group(commands, "tokens", "End tokens before they expire.")
    revoke = command(
        tokens,
        "revoke",
        acting(_revoke, "tokens revoke"),
        "End one token, or all tokens and keys that were issued to an account before a moment.",
        "sidecar tokens revoke --account acme --before 2026-11-23T14:00:00Z",
    )
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("--issuer", metavar="I", help="the token's iss; needs --jti")
    which.add_argument("--account", metavar="A", help="everything that was issued to this account")
    revoke.add_argument("--jti", metavar="J", help="the token's jti")
    revoke.add_argument("--before", type=read_moment, metavar="TIME", help="RFC 3339 or Unix seconds; now unless given")
    revoke.set_defaults(run=partial(_check_and_revoke, revoke))


def _check_and_revoke(parser: Parser, args: argparse.Namespace) -> Outcome | int:
    if (args.issuer is None) != (args.jti is None):
        parser.error("--issuer and --jti go together")
    if args.before is not None and args.account is None:
        parser.error("--before goes with --account")
    return acting(_revoke, "tokens revoke")(args)


async def _revoke(args: argparse.Namespace, place: Place) -> Outcome:
    if args.account is None:
        return await _revoke_one(args.issuer, args.jti, place)
    moment = place.keyring.now if args.before is None else args.before
    ended = await place.keyring.revoke_account(args.account, moment)
    before, keys = apikeys.rfc3339(moment), "1 key" if ended == 1 else f"{ended} keys"
    place.note({"account": args.account, "act": "revoke_account", "before": before, "keys_revoked": ended})
    return Outcome(
        {"account": args.account, "before": before, "keysRevoked": ended},
        f"Whatever was issued to {args.account} before {before} is revoked: its tokens, and {keys}.",
    )


async def _revoke_one(issuer: str, jti: str, place: Place) -> Outcome:
    known = [configured.issuer for configured in place.config.jwt.issuers]
    if issuer not in known:
        # Its tokens are not accepted anyway; most likely the name was mistyped.
        raise CommandError("INVALID_REQUEST", f"no such issuer is configured; there are: {', '.join(known) or 'none'}")
    await place.store.revoke_token(token_id(issuer, jti))
    place.note({"act": "revoke_token", "issuer": issuer, "jti": jti})
    return Outcome({"issuer": issuer, "jti": jti}, f"The token {jti} of {issuer} is revoked.")
