"""Hostile bodies: the right refusal, nothing forwarded, nothing crashed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.bed import Bed, request, tool_call
from tests.e2e.conftest import Start
from tests.mcp_server import StubUpstream

CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}'
JSON = "application/json"


@pytest.fixture(autouse=True)
def nothing_forwarded(stub: StubUpstream) -> Iterator[None]:
    """None of these requests may ever reach the upstream, however much their sender may do."""
    yield
    assert stub.received == []


@pytest.fixture
async def bed(start: Start) -> Bed:
    return await start(max_body_bytes=200_000)


def deep(levels: int) -> bytes:
    return CALL[:-2] + b',"arguments":{"a":' + b"[" * levels + b"]" * levels + b"}}}"


NOT_ONE_DOCUMENT: dict[str, bytes] = {
    "nothing": b"",
    "white space": b"  \n",
    "a word": b"hello",
    "cut short": CALL[:-1],
    "two documents": CALL + CALL,
    "trailing bytes": CALL + b"x",
    "trailing NUL": CALL + b"\0",
    "a leading BOM": b"\xef\xbb\xbf" + CALL,
    "form feed in front": b"\f" + CALL,
    "UTF-16": CALL.decode().encode("utf-16"),
    "UTF-32": CALL.decode().encode("utf-32"),
    "bad UTF-8": CALL.replace(b"look", b"lo\xffk"),
    "overlong UTF-8": CALL.replace(b"look", b"lo\xc0\xafk"),
    "a lone surrogate": CALL.replace(b"look", rb"lo\ud800k"),
    "NaN": CALL.replace(b'"id":1', b'"id":NaN'),
    "a number too large": CALL.replace(b'"id":1', b'"id":1e400'),
    "a comment": CALL + b"/* */",
    "single quotes": CALL.replace(b'"', b"'"),
    "a raw control character": CALL.replace(b"look", b"lo\x01k"),
    "nested too deep": deep(500),
    "nested far too deep": deep(50_000),
    "an open abyss": b"[" * 100_000,
    "a form": b"jsonrpc=2.0&method=tools/call",
}
NOT_ONE_REQUEST: dict[str, bytes] = {
    "null": b"null",
    "a number": b"1",
    "a string": b'"tools/call"',
    "an empty array": b"[]",
    "a batch": b"[" + CALL + b"]",
    "an empty object": b"{}",
    "no version": CALL.replace(b'"jsonrpc":"2.0",', b""),
    "another version": CALL.replace(b'"2.0"', b'"1.0"'),
    "a version that is a number": CALL.replace(b'"2.0"', b"2.0"),
    "no id": CALL.replace(b'"id":1,', b""),
    "a null id": CALL.replace(b'"id":1', b'"id":null'),
    "a fractional id": CALL.replace(b'"id":1', b'"id":1.5'),
    "a boolean id": CALL.replace(b'"id":1', b'"id":true'),
    "an object for an id": CALL.replace(b'"id":1', b'"id":{}'),
    "an id of 5000 digits": CALL.replace(b'"id":1', b'"id":' + b"9" * 5000),
    "a method that is no string": CALL.replace(b'"tools/call"', b"7"),
    "an empty method": CALL.replace(b'"tools/call"', b'""'),
    "a method and a result": CALL[:-1] + b',"result":{}}',
    "a method and an error": CALL[:-1] + b',"error":{"code":1,"message":"x"}}',
    "params as an array": CALL.replace(b'{"name":"look"}', b'["look"]'),
    "params as null for a call": CALL.replace(b'{"name":"look"}', b"null"),
    "a doubled method": CALL.replace(b'"method"', b'"method":"ping","method"'),
    "a doubled name": CALL.replace(b'"name"', b'"name":"put","name"'),
    "a doubled name deep inside": CALL.replace(b'"look"', b'"look","arguments":{"a":{"b":1,"b":2}}'),
    "a name doubled through an escape": CALL.replace(b'"method"', rb'"\u006dethod":"ping","method"'),
    "Method beside method": CALL.replace(b'"method"', b'"Method":"ping","method"'),
    "METHOD alone": CALL.replace(b'"method"', b'"METHOD"'),
    "Name beside name": CALL.replace(b'"name"', b'"Name":"put","name"'),
    "Arguments": CALL.replace(b'"look"', b'"look","Arguments":{}'),
    "ID beside id": CALL.replace(b'"id"', b'"ID":2,"id"'),
    "a long s in params": CALL.replace(b'"params"', '"param\u017f":{"name":"put"},"params"'.encode()),
    "a NUL in a name": CALL.replace(b'"method"', rb'"method\u0000":"ping","method"'),
    "a tool name that is no string": CALL.replace(b'"look"', b"7"),
    "an empty tool name": CALL.replace(b'"look"', b'""'),
    "a tool name with a control character": CALL.replace(b"look", rb"lo\u0000ok"),
    "a tool name of 257 characters": CALL.replace(b"look", b"l" * 257),
    "an id without anything": b'{"jsonrpc":"2.0","id":1}',
    "a result and an error": b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}',
}


async def test_what_is_not_one_json_document_is_400(bed: Bed) -> None:
    token = bed.token()
    for era, codes in (((), {400}), ((("MCP-Protocol-Version", "2026-07-28"),), {-32700, -32600})):
        got = {name: await bed.post(body, token=token, headers=era) for name, body in NOT_ONE_DOCUMENT.items()}
        wrong = {name: answer.text for name, answer in got.items() if not refused(answer, 400, codes, {None})}
        assert wrong == {}


async def test_what_is_not_one_unambiguous_request_is_400(bed: Bed) -> None:
    token = bed.token()
    got = {name: await bed.post(body, token=token) for name, body in NOT_ONE_REQUEST.items()}
    wrong = {name: answer.text for name, answer in got.items() if not refused(answer, 400, {400}, {None, 1})}
    assert wrong == {}


async def test_a_stranger_with_a_bad_body_is_just_a_stranger(bed: Bed) -> None:
    got = {name: await bed.post(body) for name, body in NOT_ONE_DOCUMENT.items()}
    wrong = {name: answer.text for name, answer in got.items() if not refused(answer, 401, {401}, {None})}
    assert wrong == {}


def refused(answer: httpx.Response, status: int, codes: set[int], ids: set[int | None]) -> bool:
    """Tell whether this is a refusal of this status, with one of these codes and ids."""
    document = answer.json()
    error_type = {400: "INVALID_REQUEST", 401: "INVALID_TOKEN", 415: "UNSUPPORTED_MEDIA_TYPE"}[status]
    found = (answer.status_code, document["error"]["data"]["errorType"])
    return found == (status, error_type) and document["error"]["code"] in codes and document["id"] in ids


async def test_a_body_that_is_encoded_is_415(bed: Bed) -> None:
    token = bed.token()
    for coding in ("gzip", "deflate", "br", "gzip, gzip", "x"):
        headers = (("Content-Type", JSON), ("Content-Encoding", coding))
        assert refused(await bed.post(gzip.compress(CALL), token=token, headers=headers), 415, {415}, {None}), coding


async def test_a_body_that_is_not_json_is_415(bed: Bed) -> None:
    token = bed.token()
    for kind in (
        *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"),
        *("application/json; charset=latin-1", "application/json, text/plain", "*/*", ""),
    ):
        answer = await bed.post(CALL, token=token, headers=(("Content-Type", kind),))
        assert refused(answer, 415, {415}, {1}), kind


async def test_a_missing_content_type_is_415(bed: Bed) -> None:
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer {bed.token()}\r\nContent-Length: {len(CALL)}\r\n\r\n"
    )
    assert (await bed.raw(head.encode() + CALL)).status == 415


async def test_a_huge_body_is_413(bed: Bed) -> None:
    answer = await bed.post(tool_call("look", text="x" * 300_000), token=bed.token())
    assert answer.status_code == 413


async def test_framing_that_two_servers_could_read_differently_is_400(bed: Bed) -> None:
    head = f"POST /mcp HTTP/1.1\r\nHost: s\r\nContent-Type: {JSON}\r\nAuthorization: Bearer {bed.token()}\r\n".encode()
    for framing in (
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length : 5\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b" Content-Length: 5\r\n",
        b"Transfer-Encoding: ,chunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Length: 05\r\n",
        b"Content-Length: 5\r\nUpgrade: h2c\r\n",
        b"Content-Length: 5\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
    ):
        answer = await bed.raw(head + framing + b"\r\n0\r\n\r\n")
        assert answer.status == 400, framing
        if answer.body:  # what the parser itself refuses has none
            assert answer.values("Connection") == ["close"], framing
    chunked = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    for version in (b"1.0", b"1.2", b"2.0"):
        answer = await bed.raw(head.replace(b"HTTP/1.1", b"HTTP/" + version) + chunked)
        assert answer.status == 400, version


async def test_the_sidecar_goes_on_after_all_that(bed: Bed, stub: StubUpstream) -> None:
    token = bed.token()
    for body in (*NOT_ONE_DOCUMENT.values(), *NOT_ONE_REQUEST.values()):
        await bed.post(body, token=token)
    assert (await bed.post(request("ping"), token=token)).status_code == 200
    assert not [record for record in bed.records() if record.get("status") == 500]
    stub.received.clear()
