"""The sidecar is told to stop while clients ask, send, read and listen."""

from __future__ import annotations

import asyncio
import json
import signal

import httpx
import pytest

from tests.e2e.bed import JWT_ROUTE, request
from tests.faults.conftest import Serve
from tests.mcp_server import Stream, StubUpstream
from tests.service import Service, until

PATIENCE_S = 20.0
PING = json.dumps(request("ping")).encode()


def head_of_call(service: Service, **more: str) -> bytes:
    lines = {**service.credentials, "Host": "sidecar", "Content-Type": "application/json", **more}
    opening = [f"POST {JWT_ROUTE} HTTP/1.1", f"Content-Length: {len(PING)}"]
    return "\r\n".join([*opening, *(f"{name}: {value}" for name, value in lines.items()), "", ""]).encode()


async def answer_on(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one answer with a length: its head and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.partition(b":")[2]))


async def ended(service: Service) -> int:
    async with asyncio.timeout(PATIENCE_S):
        return await service.process.wait()


async def test_what_runs_is_answered_and_endless_streams_end_cleanly(serve: Serve, stub: StubUpstream) -> None:
    service, call, listening = await serve(), Stream("application/json"), Stream()
    headers = service.credentials
    stub.answer = listening.answer
    async with service.client.stream("GET", JWT_ROUTE, headers=headers) as stream:
        listening.send(b"data: {}\n\n")
        pieces = stream.aiter_raw()
        assert await anext(pieces) == b"data: {}\n\n"
        stub.answer = call.answer
        asked = asyncio.ensure_future(service.client.post(JWT_ROUTE, json=request("ping"), headers=headers))
        await call.opened.wait()
        service.process.terminate()
        await service.read("stopping")
        async with asyncio.timeout(PATIENCE_S):
            assert [piece async for piece in pieces] == []
        call.send(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        call.end()
        answer = await asked
    assert (answer.status_code, answer.json()["result"]) == (200, {})
    assert await ended(service) == 0


async def test_clients_that_ask_on_and_on_get_each_answer_and_hear_which_is_the_last(serve: Serve) -> None:
    service, answered = await serve(drain={"delay_s": 600}), 0

    async def ask_until_told() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        head = b""
        while b"\r\nConnection: close\r\n" not in head:
            writer.write(head_of_call(service) + PING)
            head, body = await answer_on(reader)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert "result" in json.loads(body)
            answered += 1
        assert await reader.read() == b""
        writer.close()

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as clients:
        for _ in range(20):
            clients.create_task(ask_until_told())
        await until(lambda: _holds(answered > 100))
        service.process.terminate()
    service.process.kill()


async def test_whom_the_system_has_let_in_is_served_before_the_end(serve: Serve) -> None:
    service = await serve()
    service.process.send_signal(signal.SIGSTOP)
    asking = []
    for _ in range(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(head_of_call(service) + PING)
        asking.append((reader, writer))
    service.process.terminate()
    service.process.send_signal(signal.SIGCONT)
    for reader, writer in asking:
        head, body = await answer_on(reader)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert "result" in json.loads(body)
        writer.close()
    assert await ended(service) == 0


async def test_while_others_learn_of_the_end_requests_are_taken_and_readiness_is_gone(serve: Serve) -> None:
    service = await serve(drain={"delay_s": 600})
    service.process.terminate()
    await service.read("stopping")
    assert await service.readiness() == (503, "draining")
    answer = await service.client.post(JWT_ROUTE, json=request("ping"), headers=service.credentials)
    assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
    service.process.kill()


async def test_somebody_at_a_terminal_does_not_wait_for_load_balancers(serve: Serve) -> None:
    service = await serve(drain={"delay_s": 600})
    service.process.send_signal(signal.SIGINT)
    assert await ended(service) == 0


async def test_a_body_that_is_still_being_sent_is_read_to_its_end_and_answered(serve: Serve) -> None:
    service = await serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(head_of_call(service, Expect="100-continue"))
    await reader.readuntil(b" 100 Continue\r\n\r\n")
    writer.write(PING[:10])
    service.process.terminate()
    await service.read("stopping")
    await until(lambda: _is_refused(service))
    writer.write(PING[10:])
    head, body = await answer_on(reader)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert "result" in json.loads(body)
    writer.close()
    assert await ended(service) == 0


async def test_a_client_that_reads_slowly_gets_its_answer_whole(serve: Serve, stub: StubUpstream) -> None:
    service, call = await serve(), Stream("application/json")
    stub.answer = call.answer
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=65_536)
    writer.write(head_of_call(service) + PING)
    result = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"text": "x" * 6_000_000}}).encode()
    call.send(result)
    call.end()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    service.process.terminate()
    await service.read("stopping")
    await until(lambda: _is_refused(service))
    rest = await reader.read()
    assert rest.count(b"x") >= 6_000_000
    writer.close()
    assert await ended(service) == 0


async def test_what_takes_longer_than_there_is_time_for_is_broken_off(serve: Serve, stub: StubUpstream) -> None:
    service, call = await serve(drain={"requests_s": 0}), Stream("application/json")
    stub.answer = call.answer
    asked = asyncio.ensure_future(service.client.post(JWT_ROUTE, json=request("ping"), headers=service.credentials))
    await call.opened.wait()
    service.process.terminate()
    with pytest.raises(httpx.TransportError):
        await asked
    assert await ended(service) == 0


async def _holds(it: bool) -> bool:
    return it


async def _is_refused(service: Service) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the port closed in this moment
        return False
    writer.close()
    return False
