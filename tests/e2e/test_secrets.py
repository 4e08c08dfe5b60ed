"""Marked secrets on every path, and a search of everything that was written.

Log, audit, spans, standard output and error, Python's own logging, metrics, answers, reprs, files, Redis, and what the
upstream received.
"""

from __future__ import annotations

import base64
import gc
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from aiohttp import web

from sidecar import config
from sidecar.denials import Denial
from sidecar.gateway import Gateway
from tests.collector import Collector
from tests.e2e.bed import (
    JWT_ROUTE,
    KEY_ROUTE,
    KEYS,
    Bed,
    config_text,
    credentials,
    merged,
    notification,
    request,
    tool_call,
)
from tests.e2e.bed import with_other_secret as forged
from tests.e2e.conftest import Start, StoreName
from tests.mcp_server import Stream, StubUpstream, reply

MARK = "S3cretMarkerThatMustNotBeWritten"
UPSTREAM_SESSION = f"session-{MARK}"


class Writings:
    """Everything that came out, to be searched in the end."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def answer(self, name: str, answer: Any) -> Any:
        self.texts.append((name, f"{answer.headers} {answer.text}"))
        return answer

    def assert_without(self, secrets: set[str]) -> None:
        for secret in secrets:
            found = [name for name, text in self.texts if secret in text]
            assert not found, f"a secret of {len(secret)} characters was written to {found}"


async def refusals(bed: Bed, key: str, writings: Writings) -> None:
    """Be refused in every way before the upstream is asked."""
    token, other = bed.token(), bed.token("mcp:read", jti=MARK)
    broken = bed.secret(f"{token.rpartition('.')[0]}.{MARK}")
    ways: list[tuple[str, dict[str, Any]]] = [
        ("bad token", {"token": broken}),
        ("expired token", {"token": bed.token(expires_in_s=-3600, jti=MARK)}),
        ("wrong audience", {"token": bed.token(aud="https://elsewhere.example", jti=MARK)}),
        ("long token", {"token": f"x.{MARK * 300}.y"}),
        ("forged key", {"key": bed.secret(forged(key, 9))}),
        ("garbage key", {"key": bed.secret(f"mcp_{MARK}")}),
        ("missing scope", {"token": other}),
        ("both", {"token": token, "key": key}),
        ("key on the tokens' route", {"key": key, "path": JWT_ROUTE}),
        ("token on the keys' route", {"token": token, "path": KEY_ROUTE}),
    ]
    for name, how in ways:
        answer = await bed.post(tool_call("put", secret=MARK), **how)
        assert writings.answer(name, answer).status_code >= 400
    for name, body in (
        ("no json", f'{{"{MARK}'.encode()),
        ("doubled", f'{{"jsonrpc":"2.0","id":1,"method":"ping","{MARK}":1,"{MARK}":2}}'.encode()),
        ("array", json.dumps([MARK]).encode()),
        ("strange id", json.dumps({**request("ping"), "id": {MARK: 1}}).encode()),
        ("unknown session", json.dumps(request("ping")).encode()),
    ):
        lines = (("Mcp-Session-Id", MARK),) if name == "unknown session" else ()
        answer = await bed.post(body, token=token, headers=lines)
        assert writings.answer(name, answer).status_code in (400, 404)
    for start_line in (f"GET /{MARK} HTTP/9", f"G{MARK}\x00 / HTTP/1.1", f"GET {JWT_ROUTE} HTTP/1.1\r\n{MARK}"):
        refused = await bed.raw(f"{start_line}\r\nHost: s\r\n\r\n".encode())
        writings.texts.append(("a broken head", f"{refused.headers} {refused.body!r}"))
    for name, path in (("in the query", f"{JWT_ROUTE}?access_token={token}"), ("in the path", f"/{token}")):
        writings.answer(name, await bed.client.get(path, headers=credentials(token=token)))
    for method, path in (("POST", KEYS), ("GET", f"{KEYS}/{key}"), ("DELETE", f"{KEYS}/key_{key[4:16]}x")):
        writings.answer(
            "management", await bed.rest(method, path, token, {"secret": MARK} if method == "POST" else None)
        )


async def services(bed: Bed, stub: StubUpstream, key: str, writings: Writings) -> None:
    """Be served, and be failed by the upstream in ways that echo what it got."""
    token = bed.token()
    sessions = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}}, **{"Mcp-Session-Id": UPSTREAM_SESSION})
    for name, answer in (("sessions", sessions), ("401", reply(401)), ("garbage", breaks_off), ("stream", streams)):
        stub.answer = answer
        method = "initialize" if name == "sessions" else "ping"
        await bed.post(request(method, {"secret": MARK}), token=token)
        await bed.post(request(method, {"secret": MARK}), key=key)
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"title": MARK}]}})
    writings.answer("a list that is none", await bed.post(request("tools/list"), key=key))
    made = await bed.rest("POST", KEYS, token, {"name": "made"})
    fresh = bed.secret(made.json()["key"])
    for method, path in (
        ("GET", KEYS),
        ("GET", f"{KEYS}/key_{fresh[4:16]}"),
        ("GET", f"{KEYS}/key_{fresh[4:16]}/usage"),
    ):
        assert writings.answer("a key's metadata", await bed.rest(method, path, token)).status_code == 200


async def names(bed: Bed, stub: StubUpstream, key: str) -> None:
    """Go on in a session, and use credentials as names, ids and traces of messages that are good otherwise."""
    before = len(stub.received)
    token, traceparent = bed.token(), ("traceparent", f"00-{'4b' * 16}-{'f0' * 8}-01")
    stub.answer = reply(200, {"jsonrpc": "2.0", "id": 1, "result": {}})
    answer = await bed.post(request("ping"), key=key, headers=(("Mcp-Session-Id", UPSTREAM_SESSION),))
    assert answer.status_code == 200
    for credential in (key, token):
        for message in (
            tool_call(credential),
            request("prompts/get", {"name": credential}),
            request(credential),
            request("ping", id=credential),
            notification(f"notifications/{credential}"),
            request("ping", {"_meta": {"traceparent": traceparent[1], "tracestate": f"a={credential}"}}),
        ):
            await bed.post(message, token=token)
        for line in (("tracestate", f"a={credential}"), ("Mcp-Session-Id", credential), ("X-Request-Id", credential)):
            await bed.post(request("ping"), token=token, headers=(traceparent, line))
    del stub.received[before:]  # the client's own words, on their way to where it sent them


async def breaks_off(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n" + body)
    request.transport.close()
    return web.Response()


async def streams(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    stream = Stream()
    stream.send(b"data: " + body + b"\n\n")
    stream.end()
    return await stream.answer(request, body)


def reprs_of_what_lives() -> list[tuple[str, str]]:
    """Return what a debugger or crash report would show of our own objects."""
    ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("sidecar.")]
    return [(f"repr of {type(thing).__name__}", repr(thing)) for thing in ours]


def stored(bed: Bed, store: StoreName, directory: Path) -> list[tuple[str, str]]:
    """Return all that the store keeps."""
    if store == "redis":
        with redis.Redis.from_url(bed.settings["store"]["url"]) as client:
            held = [(name, kept(client, name)) for name in client.scan_iter()]
        assert len(held) > 3
        return [("Redis", f"{name.decode('latin-1')} {value}") for name, value in held]
    files = list(directory.glob("sidecar-*.db*"))
    assert files
    return [("a stored file", path.read_bytes().decode("latin-1")) for path in files]


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def kept(client: redis.Redis, name: bytes) -> str:
    """Return what is under a name, whatever kind it is of."""
    match client.type(name):
        case b"string":
            value: Any = client.get(name)
        case b"hash":
            value = client.hgetall(name)
        case b"zset":
            value = client.zrange(name, 0, -1)
        case b"set":
            value = client.smembers(name)
        case b"list":
            value = client.lrange(name, 0, -1)
        case b"stream":
            value = client.xrange(name)
        case kind:
            raise AssertionError(kind)
    return repr(value)


def pieces(credential: str) -> set[str]:
    """Return what a credential must not be recognised by: a token's claims and signature, a key's bare secret."""
    text = credential.removeprefix("Bearer ")
    if text.startswith("mcp_") and len(text) == 50:
        return {text[16:], text[16:44]}
    return {part for part in text.split(".")[1:] if len(part) > 20} or {text}


def note_credentials(bed: Bed) -> set[str]:
    """Return a set that grows by the pieces of every credential which the bed's client presents from now on."""
    presented: set[str] = set()

    async def note(request: httpx.Request) -> None:
        for name in ("authorization", "x-api-key"):
            for credential in request.headers.get_list(name):
                presented.update(pieces(credential))

    bed.client.event_hooks = {"request": [note]}
    return presented


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return what anybody but the test's own client said to Python's logging, with tracebacks."""
    lines = [one for one in caplog.records if one.name.partition(".")[0] not in ("httpx", "httpcore")]
    return [(f"logging as {one.name}", logging.Formatter().format(one)) for one in lines]


def received(stub: StubUpstream) -> list[tuple[str, str]]:
    """Return what the upstream was sent, bodies and all."""
    assert len(stub.received) >= 8
    assert stub.from_catalogue
    everything = [*stub.received, *stub.from_catalogue]
    return [("a request to the upstream", f"{one.target} {one.headers} {one.body!r}") for one in everything]


async def test_no_secret_is_written_anywhere(
    start: Start,
    stub: StubUpstream,
    store: StoreName,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    collector: Collector,
) -> None:
    caplog.set_level(logging.DEBUG)
    writings, to_upstream = Writings(), Writings()
    shared = base64.b64encode(MARK.encode() * 2).decode()
    (tmp_path / "shared").write_text(shared)
    keys = [{"id": "k", "secret_file": str(tmp_path / "shared")}]
    settings: dict[str, Any] = {
        "identity": {"algorithm": "hmac-sha256", "keys": keys},
        "log": {"level": "debug"},
        "audit": {"file": str(tmp_path / "audit.log"), "arguments": "full", "redact": ["SECRET"]},
        "tracing": {"otlp_endpoint": collector.url},
    }
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{MARK}")
    bed = await start(store, **settings)
    presented = note_credentials(bed)
    key = await bed.key("mcp:full")
    await refusals(bed, key, writings)
    await services(bed, stub, key, writings)
    await names(bed, stub, key)

    async def fault(*_: Any) -> Any:
        raise RuntimeError(MARK)

    monkeypatch.setattr(Gateway, "check", fault)
    answer = await bed.post(request("ping", {"secret": MARK}), key=key)
    assert writings.answer("a fault of ours", answer).status_code == 500
    loaded = config.load(config_text(merged(bed.settings, settings)), {}, lambda path: Path(path).read_bytes())
    writings.texts += [
        ("the log", bed.log.getvalue().decode()),
        ("the metrics", (await bed.admin.get("/metrics")).text),
        ("readiness", (await bed.admin.get("/readyz")).text),
        ("check-config", json.dumps(config.settings(loaded), default=str)),
        ("the repr of the settings", repr(loaded)),
        *logged(caplog),
        ("standard output and error", str(capfd.readouterr())),
        *stored(bed, store, tmp_path),
    ]
    await bed.sidecar.stop()
    audited = lines_of(tmp_path / "audit.log")
    assert len(audited) >= 30
    assert sum("[redacted]" in line for line in audited) >= 1
    writings.texts += [("the audit", line) for line in audited]
    assert len(collector.spans) >= 60
    assert "[redacted]" in str(collector.spans)
    writings.texts += [("a span", f"{span}") for span in collector.spans]
    assert len(bed.accesses()) >= 30, "the paths above were really walked"
    assert len(presented) >= 15
    writings.assert_without(bed.secrets | presented | {MARK, shared, UPSTREAM_SESSION})
    to_upstream.texts = received(stub)
    in_bodies = {MARK}  # and is to arrive
    to_upstream.assert_without((bed.secrets | presented | {shared}) - in_bodies)


async def test_no_repr_shows_a_secret_while_requests_are_under_way(
    start: Start, stub: StubUpstream, store: StoreName
) -> None:
    """What a debugger or a crash report would show."""
    bed, stream = await start(store), Stream()
    stub.answer = stream.answer
    key, token = await bed.key("mcp:full"), bed.token()
    async with (
        bed.client.stream("GET", KEY_ROUTE, headers=credentials(key=key)),
        bed.client.stream("POST", JWT_ROUTE, headers=credentials(token=token), json=request("ping", {"secret": MARK})),
    ):
        writings = Writings()
        writings.texts = reprs_of_what_lives()
        assert len(writings.texts) > 50
        writings.assert_without({secret for secret in bed.secrets if len(secret) > 20} | {MARK})
        stream.end()


def test_a_refusal_says_nothing_but_what_was_meant_for_the_client() -> None:
    """`detail` is for the log; whoever formats a denial as text gets the reason alone."""
    denial = Denial("reason", "message", detail="detail")
    assert (str(denial), repr(denial)) == ("reason", "Denial('reason')")
