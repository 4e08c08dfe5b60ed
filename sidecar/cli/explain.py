"""The ``explain`` command: what would become of a request, and by which rule? It asks, and changes nothing."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sidecar import explaining
from sidecar.cli.explain_words import text
from sidecar.cli.grammar import Commands, Parser, command
from sidecar.cli.output import CommandError, Outcome, write_warnings
from sidecar.cli.settings import load_settings
from sidecar.config import Config
from sidecar.explaining import PLACEHOLDER, AsKey, AsPrincipal, Question
from sidecar.model import SCOPES, CredentialKind
from sidecar.policy import apikeys, jsonrpc
from sidecar.policy.explanation import can_be_judged_again, document, line_document

_EXAMPLE: Final = """\
sidecar explain --path /mcp/inspector --key key_4fJd81kQz0Xa --tool send_money
  sidecar explain --account acme --scopes mcp:read --kind jwt --body '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
  sidecar explain --credential-env TOKEN --method GET
  sidecar explain request.http --json
  tail -1 sidecar.log | sidecar explain --log-line -"""
_MORE: Final = """\
The request is a file with its text as HTTP/1.1 (- is standard input), or is put together from --method,
--path, --header and --body; or it is the one that a line of our log tells of. Whose it is says its own
credential: in the text, in a file, or in the environment, never in an argument. Or name a key or an
account: then no secret is needed.

The settings, the keys and limits in the store, the issuer's keys and the tools of the upstream are asked
for. Nothing is sent on, spent, counted or kept. What is decided is decided by the very code that serves.

The exit code is 0 when the request would be allowed, 1 when it would be refused or that can't be known,
and 2 for wrong usage."""
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CREDENTIALS: Final = ("authorization", "x-api-key")
_HTTP_METHODS: Final = ("GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT", "PATCH")
_NOT_TOLD: Final = "the log does not tell the arguments of the request, nor its session: these were left out"

Lines = list[tuple[str, str]]


def add_to(commands: Commands) -> None:
    """Add this command to the grammar."""
    explain = command(
        commands,
        "explain",
        lambda args: _explain(explain, args),
        "Say what would become of a request, and why.",
        _EXAMPLE,
        more=_MORE,
    )
    what = explain.add_argument_group("the request")
    what.add_argument("request", nargs="?", metavar="FILE", help="its text as HTTP/1.1; - is standard input")
    what.add_argument("--log-line", metavar="FILE", help="the one that a line of our log tells of; - is standard input")
    what.add_argument("--method", metavar="M", help="POST unless given")
    what.add_argument("--path", metavar="P", help="with a query if it has one; unless given, the first route that fits")
    what.add_argument("--header", action="append", default=[], metavar="'N: V'", help="may be repeated; no credential")
    body = what.add_mutually_exclusive_group()
    body.add_argument("--body", metavar="JSON", help="the message")
    body.add_argument("--body-file", metavar="FILE", help="the message; - is standard input")
    body.add_argument("--tool", metavar="NAME", help="short for a body that calls this tool")
    what.add_argument("--client", default="127.0.0.1", metavar="ADDRESS", help="where it comes from; 127.0.0.1")
    who = explain.add_argument_group("whose it is")
    one = who.add_mutually_exclusive_group()
    one.add_argument("--credential-file", metavar="FILE", help="a token or API key; - is standard input")
    one.add_argument("--credential-env", metavar="NAME", help="the environment variable that has one")
    one.add_argument("--key", metavar="ID", help="as this API key, by its id: key_ and 12 characters")
    one.add_argument("--account", metavar="A", help="as somebody of this account, with --scopes")
    who.add_argument("--scopes", action="append", metavar="S", help=f"any of {', '.join(SCOPES)}; may be repeated")
    who.add_argument("--kind", choices=("jwt", "api_key"), help="of credential; what the route takes unless given")
    who.add_argument("--subject", metavar="S", help="the token's sub; the account unless given")
    who.add_argument("--client-id", metavar="C", help="the token's client_id")
    explain.add_argument("--no-upstream", action="store_true", help="do not ask the upstream for its tools")


def _explain(parser: Parser, args: argparse.Namespace) -> Outcome:
    _require_sense(parser, args)
    config, missing = load_settings(args)
    write_warnings(missing, as_json=args.json)
    line = None if args.log_line is None else _read_line(args.log_line)
    if line is not None and not can_be_judged_again(line, [route.path for route in config.routes]):
        told = line_document(line)
        return Outcome(told, text(told), code=0 if told["decision"] == "allowed" else 1)
    who = _who(parser, args, config, line)
    head, headers, body = _request(parser, args, _path_for(config, who), line)
    question = Question(_raw(config, head, _with_credential(args, headers, who), body), args.client, who)
    try:
        walk = asyncio.run(explaining.explain(config, question, ask_upstream=not args.no_upstream))
    except TimeoutError:
        raise CommandError("WRONG_USAGE", "this is not one whole request", code=2) from None
    except ValueError as problem:
        raise CommandError("FAILED", str(problem)) from problem
    told = document(walk)
    if line is not None:
        told["log"] = line_document(line)["log"]
        told["notes"].append(_NOT_TOLD)
    return Outcome(told, text(told), code=0 if walk.decision == "allowed" else 1)


def _require_sense(parser: Parser, args: argparse.Namespace) -> None:
    built = [name for name in ("method", "path", "body", "body_file", "tool") if getattr(args, name) is not None]
    ways = [args.request is not None, args.log_line is not None, bool(built or args.header)]
    if sum(ways) > 1:
        parser.error("name a FILE, a --log-line, or the parts of a request, and only one of these")
    if args.log_line is None and args.account is None and (args.scopes or args.kind or args.subject or args.client_id):
        parser.error("--scopes, --kind, --subject and --client-id go with --account")
    names = (args.request, args.log_line, args.body_file, args.credential_file)
    if names.count("-") > 1:
        parser.error("standard input can be read only once")
    if any(each.partition(":")[0].strip().lower() in _CREDENTIALS for each in args.header):
        parser.error("a credential comes from a file or the environment: --credential-file, --credential-env")
    for name in (args.method, args.path, *args.header):
        if name is not None and not name.isprintable():
            parser.error("a method, path or header must be one line of printable characters")


def _who(
    parser: Parser, args: argparse.Namespace, config: Config, line: dict[str, Any] | None
) -> AsKey | AsPrincipal | None:
    if args.key is not None:
        return AsKey(_key_id(parser, args.key))
    if line is not None and args.account is None and not (args.credential_file or args.credential_env):
        return _who_of(parser, args, line)
    if args.account is None:
        return None
    kind = args.kind or _kind_at(config, args.path)
    return AsPrincipal(args.account, _scopes(parser, args), kind, args.subject or "", args.client_id)


def _kind_at(config: Config, path: str | None) -> CredentialKind:
    """Return the kind of credential that is taken at this path, first of all."""
    raw = config.routes[0].path if path is None else path.partition("?")[0]
    return next((route.credentials[0] for route in config.routes if route.path == raw), "jwt")


def _path_for(config: Config, who: AsKey | AsPrincipal | None) -> str:
    """Return the first path that takes this kind of credential."""
    kind = "api_key" if isinstance(who, AsKey) else None if who is None else who.kind
    taking = [route.path for route in config.routes if kind is None or kind in route.credentials]
    return (taking or [config.routes[0].path])[0]


def _who_of(parser: Parser, args: argparse.Namespace, line: dict[str, Any]) -> AsKey | AsPrincipal:
    principal = str(line["principal"])
    if apikeys.is_key_id(principal) and not args.scopes:
        return AsKey(principal)
    if not args.scopes:
        parser.error("the log does not tell a token's scopes: name them with --scopes")
    return AsPrincipal(str(line.get("account")), _scopes(parser, args), args.kind or "jwt", principal, args.client_id)


def _scopes(parser: Parser, args: argparse.Namespace) -> tuple[str, ...]:
    named = [scope for text in args.scopes or () for scope in re.split(r"[\s,]+", text) if scope]
    unknown = [scope for scope in named if scope not in SCOPES]
    if unknown:
        parser.error(f"no such scope: {unknown[0]}; there are {', '.join(SCOPES)}")
    return tuple(named)


def _key_id(parser: Parser, text: str) -> str:
    if not apikeys.is_key_id(text):
        parser.error("--key takes a key's id, key_ and 12 characters, and never the key itself")
    return text


def _request(
    parser: Parser, args: argparse.Namespace, path: str, line: dict[str, Any] | None
) -> tuple[str, Lines, bytes]:
    """Return the request line, the header lines and the body."""
    if args.request is not None:
        return _parts(parser, _read(args.request))
    if line is not None:
        return _request_of(line)
    headers = [_header(parser, each) for each in args.header]
    if args.tool is not None:
        body = json.dumps(_message("tools/call", args.tool)).encode()
    elif args.body_file is not None:
        body = _read(args.body_file)
    else:
        body = (args.body or "").encode("utf-8", "surrogateescape")
    method = args.method or "POST"
    if method == "POST" and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return f"{method} {args.path or path} HTTP/1.1", headers, body


def _parts(parser: Parser, text: bytes) -> tuple[str, Lines, bytes]:
    head, _, body = re.sub(rb"\r?\n\r?\n", b"\n\n", text.lstrip(b"\r\n"), count=1).partition(b"\n\n")
    first, *rest = head.decode("latin-1").splitlines() or [""]
    if not first.strip():
        parser.error("there is no request in what was read")
    return first, [_header(parser, each) for each in rest], body


def _header(parser: Parser, line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _NAME.fullmatch(name):
        parser.error("a header line must be 'Name: value'")
    return name, value.strip()


def _request_of(line: dict[str, Any]) -> tuple[str, Lines, bytes]:
    method, route, tool = str(line.get("method")), str(line.get("route")), line.get("tool")
    if method in _HTTP_METHODS:
        return f"{method} {route} HTTP/1.1", [], b""
    message = _message(method, None if tool is None else str(tool))
    headers = [("Content-Type", "application/json")]
    if line.get("era") == "modern":
        headers += [("MCP-Protocol-Version", jsonrpc.FIRST_MODERN_VERSION), ("Mcp-Method", method)]
        headers += [("Mcp-Name", str(tool))] if tool is not None else []
    return f"POST {route} HTTP/1.1", headers, json.dumps(message).encode()


def _message(method: str, tool: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": {} if tool is None else {"name": tool}}
    return message if method.startswith("notifications/") else {**message, "id": 1}


def _with_credential(args: argparse.Namespace, headers: Lines, who: AsKey | AsPrincipal | None) -> Lines:
    kind: CredentialKind
    if who is not None:
        kind, presented = ("api_key" if isinstance(who, AsKey) else who.kind), PLACEHOLDER
    elif args.credential_file is not None or args.credential_env is not None:
        presented = _credential(args)
        kind = "api_key" if presented.startswith("mcp_") else "jwt"
    else:
        return headers
    others = [(name, value) for name, value in headers if name.lower() not in _CREDENTIALS]
    own = ("X-API-Key", presented) if kind == "api_key" else ("Authorization", f"Bearer {presented}")
    return [*others, own]


def _credential(args: argparse.Namespace) -> str:
    if args.credential_env is not None:
        presented = os.environ.get(args.credential_env, "").strip()
    else:
        presented = _read(args.credential_file).decode("latin-1").strip()
    if not presented or not presented.isprintable() or " " in presented:
        raise CommandError("WRONG_USAGE", "there is no token or key in what was named for one", code=2)
    return presented


def _raw(config: Config, head: str, headers: Lines, body: bytes) -> bytes:
    """Write the request as its client would, with what every client adds."""
    names = {name.lower() for name, _ in headers}
    if "host" not in names:
        headers = [("Host", urlsplit(config.public_url).netloc), *headers]
    if body and names.isdisjoint(("content-length", "transfer-encoding")):
        headers = [*headers, ("Content-Length", str(len(body)))]
    lines = [head, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + body


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def _read_line(name: str) -> dict[str, Any]:
    lines = _read(name).decode("utf-8", "replace").strip().splitlines()
    try:
        line = json.loads(lines[-1]) if lines else None
    except ValueError:
        line = None
    if not isinstance(line, dict) or line.get("event") != "request" or "outcome" not in line:
        raise CommandError("WRONG_USAGE", "this is not a line of our log that tells of a request", code=2)
    return line
