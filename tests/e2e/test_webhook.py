"""A call that waits for an approval is told to a chat tool, signed, until it has heard."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from tests.e2e.bed import Bed, tool_call
from tests.e2e.confirming import DROP, text_of
from tests.e2e.conftest import Start
from tests.service import until

SECRET = b"webhook-secret-of-tests-32-bytes"


@dataclass
class Chat:
    """Something that listens, and answers with these statuses in turn, the last one again and again."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.heard.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        await self.answers.wait()
        return web.Response(status=self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])

    async def has_heard(self, times: int) -> None:
        async def so_often() -> bool:
            return len(self.heard) >= times

        await until(so_often)


@pytest.fixture
async def chat() -> AsyncIterator[Chat]:
    """Run the chat tool."""
    chat = Chat()
    chat.answers.set()
    runner = web.ServerRunner(web.Server(chat.handle, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    chat.url = f"http://{host}:{port}/hook?channel=ops"
    yield chat
    await runner.cleanup()


@pytest.fixture
async def told(start: Start, chat: Chat, tmp_path: Path) -> Bed:
    """A sidecar that tells the chat."""
    (secret := tmp_path / "webhook.secret").write_bytes(SECRET + b"\n")
    bed = await start(confirmation={"webhook": {"url": chat.url, "secret_file": str(secret)}})
    bed.secrets.update({SECRET.decode(), "channel=ops"})
    return bed


async def is_counted(bed: Bed, outcome: str) -> bool:
    return f'sidecar_webhook_deliveries_total{{outcome="{outcome}"}} 1.0' in (await bed.admin.get("/metrics")).text


async def test_a_call_that_begins_to_wait_is_told_once_and_signed(told: Bed, chat: Chat) -> None:
    token = told.token(client_id="agent")
    for _ in range(2):
        text = text_of((await told.post(DROP, token=token)).json())
    await chat.has_heard(1)
    ((headers, body),) = chat.heard
    message = json.loads(body)
    approval = text.partition("/approvals/")[2][:32]
    assert (message["type"], message["data"]["id"], message["data"]["tool"]) == ("approval.waiting", approval, "drop")
    assert message["data"]["url"].endswith(f"/approvals/{approval}")
    assert message["data"]["arguments"] == '{"table": "users"}'
    signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    digest = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert (headers["webhook-id"], headers["webhook-signature"]) == (approval, f"v1,{digest}")
    await until(lambda: is_counted(told, "delivered"))


async def test_who_did_not_hear_is_told_again(told: Bed, chat: Chat) -> None:
    chat.statuses = [500, 204]
    await told.post(DROP, token=told.token())
    await chat.has_heard(2)
    (first, body), (second, again) = chat.heard
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    await until(lambda: is_counted(told, "delivered"))
    (line,) = (record for record in told.records() if record["event"] == "webhook_retried")
    assert (line["approval"], line["problem"]) == (first["webhook-id"], "HTTP 500")


async def test_who_does_not_want_to_hear_is_told_no_more(told: Bed, chat: Chat) -> None:
    chat.statuses = [410]
    await told.post(DROP, token=told.token())
    await until(lambda: is_counted(told, "failed"))
    assert len(chat.heard) == 1
    (line,) = (record for record in told.records() if record["event"] == "webhook_failed")
    assert (line["approval"], line["problem"]) == (chat.heard[0][0]["webhook-id"], "HTTP 410")


async def test_a_chat_that_hangs_holds_nobody_up(told: Bed, chat: Chat) -> None:
    chat.answers.clear()
    token = told.token()
    for number in range(20):
        assert "/approvals/" in text_of((await told.post(tool_call("drop", n=number), token=token)).json())
    await chat.has_heard(8)
    await told.sidecar.stop()
    assert len(chat.heard) == 8
    assert len([record for record in told.records() if record["event"] == "webhook_failed"]) == 20


async def test_of_two_replicas_one_tells(start: Start, chat: Chat, tmp_path: Path) -> None:
    (secret := tmp_path / "webhook.secret").write_bytes(SECRET)
    webhook = {"webhook": {"url": chat.url, "secret_file": str(secret)}}
    one, other = await start("redis", confirmation=webhook), await start("redis", confirmation=webhook)
    token = one.token()
    await asyncio.gather(*(bed.post(DROP, token=token) for bed in (one, other, one, other)))
    await chat.has_heard(1)
    await one.sidecar.stop()
    await other.sidecar.stop()
    assert len(chat.heard) == 1
