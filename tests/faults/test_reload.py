"""Settings and keys change while clients call: nobody notices but by what was changed."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.demo.issuer import DevIssuer
from sidecar.verify import verify
from tests.e2e.bed import AUDIENCE, JWT_ROUTE, KEY_ROUTE, KEYS, config_text, merged, request, tool_call
from tests.e2e.conftest import base_settings
from tests.mcp_server import Received, Stream, StubUpstream
from tests.service import Service, spawned, until

PATIENCE_S = 20.0
CALLERS = 6


class Bed:
    """A running sidecar, one process or several, whose files can be changed."""

    def __init__(self, service: Service, directory: Path, settings: dict[str, Any]) -> None:
        self.service = service
        self.directory = directory
        self.settings = settings

    async def change(self, **changes: Any) -> dict[str, Any]:
        """Write other settings, and wait until they have taken effect."""
        self.write(**changes)
        return await self.service.read("reloaded")

    def write(self, **changes: Any) -> None:
        """Replace the file by one with other settings, at once."""
        self.settings = merged(self.settings, changes)
        draft = self.directory / "config.yaml.new"
        draft.write_text(config_text(self.settings))
        draft.rename(self.directory / "config.yaml")

    async def key(self) -> str:
        made = await self.service.client.post(
            KEYS, json={"name": "test", "scopes": ["mcp:full"]}, headers=self.service.credentials
        )
        return str(made.json()["key"])

    async def status(self, **headers: str) -> int:
        answer = await self.service.client.post(
            JWT_ROUTE, json=request("ping"), headers=self.service.credentials | headers
        )
        return answer.status_code

    @asynccontextmanager
    async def load(self, key: str) -> AsyncIterator[Counter[int]]:
        """Have clients call without a pause, with a token and with a key, for as long as the block takes."""
        answered, goes_on = Counter[int](), True

        async def call(path: str, headers: dict[str, str], number: int) -> None:
            async with httpx.AsyncClient(base_url=self.service.client.base_url, trust_env=False) as client:
                while goes_on:
                    closes = {"Connection": "close"} if number % 2 else {}
                    answer = await client.post(path, json=tool_call("put"), headers=headers | closes)
                    answered[answer.status_code] += 1

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(call(JWT_ROUTE, self.service.credentials, number))
                callers.create_task(call(KEY_ROUTE, {"X-API-Key": key, "Accept": "application/json"}, number))
            yield answered
            goes_on = False


Begin = Callable[..., Any]


@pytest.fixture
async def begin(
    tmp_path: Path, issuer: DevIssuer, stub: StubUpstream, request: pytest.FixtureRequest
) -> AsyncIterator[Begin]:
    async with AsyncExitStack() as stack:

        async def begin(processes: int = 1, **changes: Any) -> Bed:
            base = base_settings(issuer.url, stub.url, tmp_path / "sidecar.db") | {"log": {"access": False}}
            if processes > 1:
                base |= {"workers": processes, "store": {"url": request.getfixturevalue("redis_url")}}
            settings = merged(base, changes)
            token = issuer.mint(sub="alice", aud=AUDIENCE, scope="mcp:full")
            service = await spawned(stack, tmp_path, settings, token)
            started = await service.read("started")
            await service.connect(stack, started["public"], started["admin"])
            return Bed(service, tmp_path, settings)

        yield begin


def secret(directory: Path, number: int) -> dict[str, str]:
    """Make a shared secret for identity signatures."""
    file = directory / f"identity-{number}.secret"
    file.write_bytes(base64.b64encode(bytes([number]) * 32))
    return {"id": f"key-{number}", "secret_file": str(file)}


def signed_by(received: Received) -> str:
    """Verify what the upstream got, by any of the keys there have been, and name the one."""
    keys = {f"key-{number}": bytes([number]) * 32 for number in (1, 2)}
    verify(received.method, received.target, list(received.headers), received.body, keys, time.time(), {})
    [line] = received.values("Signature-Input")
    return line.partition('keyid="')[2].partition('"')[0]


@pytest.mark.parametrize("processes", [1, 2])
async def test_identity_keys_change_under_load_and_no_call_fails(
    begin: Begin, stub: StubUpstream, tmp_path: Path, processes: int
) -> None:
    """The new key is made known, then it signs, then the old one goes."""
    old, new = secret(tmp_path, 1), secret(tmp_path, 2)
    bed = await begin(processes, identity={"algorithm": "hmac-sha256", "keys": [old]})
    key = await bed.key()
    async with bed.load(key) as answered:
        for keys in ([old, new], [new, old], [new]):
            before = answered.total()
            told = await bed.change(identity={"keys": keys})
            assert told["changed"] == ["identity.keys"]
            await until(partial(_reached, answered, before + 100))
    assert set(answered) == {200}
    signers = [signed_by(received) for received in stub.received if received.values("X-Account-Id")]
    assert signers[-1] == "key-2"
    assert set(signers) == {"key-1", "key-2"}


async def test_published_keys_are_those_that_sign_now_and_those_that_signed_before(
    begin: Begin, tmp_path: Path
) -> None:
    for number in (1, 2):
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{number}.pem").write_bytes(pem)
    keys = [{"id": str(number), "private_key_file": str(tmp_path / f"{number}.pem")} for number in (1, 2)]
    bed = await begin(identity={"keys": keys[:1]})

    async def published() -> list[str]:
        answer = await bed.service.client.get("/.well-known/sidecar-keys.json")
        return [key["kid"] for key in answer.json()["keys"]]

    assert await published() == ["1"]
    await bed.change(identity={"keys": [keys[1], keys[0]]})
    assert await published() == ["2", "1"]


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_changed_secret_of_an_issuer_counts_though_its_name_did_not_change(
    begin: Begin, tmp_path: Path, processes: int
) -> None:
    file = tmp_path / "issuer.secret"
    first, second = b"1" * 32, b"2" * 32
    file.write_bytes(first)
    issuer = {"issuer": "https://idp.example", "secret_file": str(file), "algorithms": ["HS256"]}
    identity = {"algorithm": "hmac-sha256", "keys": [secret(tmp_path, 1)]}
    bed = await begin(processes, jwt={"issuers": [issuer]}, identity=identity)
    claims = {"iss": "https://idp.example", "aud": AUDIENCE, "sub": "alice", "exp": 4_000_000_000}
    tokens = [jwt.encode(claims, by, "HS256") for by in (first, second)]
    assert [await bed.status(Authorization=f"Bearer {token}") for token in tokens] == [200, 401]
    file.write_bytes(second)
    assert (await bed.service.read("reloaded"))["changed"] == ["jwt.issuers"]
    for _ in range(4 * processes):
        assert [await bed.status(Authorization=f"Bearer {token}", Connection="close") for token in tokens] == [401, 200]


@pytest.mark.parametrize("processes", [1, 2])
async def test_streams_go_on_and_are_still_ended_by_revocation(
    begin: Begin, stub: StubUpstream, tmp_path: Path, processes: int
) -> None:
    identity = {"algorithm": "hmac-sha256", "keys": [secret(tmp_path, 1)]}
    bed, listening = await begin(processes, identity=identity), Stream()
    key = await bed.key()
    stub.answer = listening.answer
    client = bed.service.client
    async with client.stream("GET", KEY_ROUTE, headers={"X-API-Key": key, "Accept": "text/event-stream"}) as stream:
        listening.send(b"data: 1\n\n")
        pieces = stream.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        await bed.change(max_body_bytes=1_000_000, limits={"streams": {"per_credential": 1}})
        listening.send(b"data: 2\n\n")
        assert await anext(pieces) == b"data: 2\n\n"
        if processes == 1:
            one_more = await client.get(KEY_ROUTE, headers={"X-API-Key": key, "Accept": "text/event-stream"})
            assert one_more.status_code == 429, "the one that is open counts"
        [made] = (await client.get(KEYS, headers=bed.service.credentials)).json()["keys"]
        assert (await client.delete(f"{KEYS}/{made['id']}", headers=bed.service.credentials)).status_code == 204
        async with asyncio.timeout(PATIENCE_S):
            assert [piece async for piece in pieces] == []


async def test_streams_of_an_issuer_that_counts_no_more_end(begin: Begin, stub: StubUpstream) -> None:
    """Every stream is looked at in turn, within half a minute."""
    bed, listening = await begin(), Stream()
    stub.answer = listening.answer
    async with bed.service.client.stream("GET", JWT_ROUTE, headers=bed.service.credentials) as stream:
        listening.send(b"data: 1\n\n")
        pieces = stream.aiter_raw()
        await anext(pieces)
        await bed.change(jwt={"issuers": [{"issuer": "https://other.example", "account_prefix": "other:"}]})
        assert await bed.status(Connection="close") == 401
        async with asyncio.timeout(40):
            assert [piece async for piece in pieces] == []


async def test_a_worker_that_does_not_answer_holds_up_no_other(begin: Begin, tmp_path: Path) -> None:
    identity = {"algorithm": "hmac-sha256", "keys": [secret(tmp_path, 1)]}
    bed = await begin(2, identity=identity)
    silent = next(record for record in bed.service.log if record["event"] == "worker_started")
    os.kill(silent["pid"], signal.SIGSTOP)
    bed.write(allowed_hosts=["new.example"])
    async with asyncio.timeout(2 * PATIENCE_S):
        await bed.service.read("reloaded")
    await bed.service.read("worker_started", worker=silent["worker"])
    assert {await bed.status(Host="new.example", Connection="close") for _ in range(8)} == {200}


async def test_a_hangup_at_the_wrong_moment_ends_nothing(begin: Begin) -> None:
    bed = await begin()
    bed.service.process.terminate()
    for _ in range(100):
        if bed.service.process.returncode is not None:
            break
        with suppress(ProcessLookupError):
            bed.service.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_S):
        assert await bed.service.process.wait() == 0


async def test_what_began_under_the_old_settings_ends_at_the_old_upstream(begin: Begin, stub: StubUpstream) -> None:
    bed, call = await begin(), Stream("application/json")
    stub.answer = call.answer
    async with StubUpstream().running() as other:
        asked = asyncio.ensure_future(
            bed.service.client.post(JWT_ROUTE, json=request("ping"), headers=bed.service.credentials)
        )
        await call.opened.wait()
        assert (await bed.change(upstream={"url": other.url}))["changed"] == ["upstream.url"]
        assert await bed.status() == 200
        call.send(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        call.end()
        assert (await asked).json()["result"] == {}
        assert (len(stub.received), len(other.received)) == (1, 1)
        assert len(other.from_catalogue) > 0, "its tools were asked for before the first call"


@pytest.mark.parametrize("processes", [1, 2])
async def test_bad_settings_are_refused_loudly_and_every_call_goes_on(
    begin: Begin, tmp_path: Path, processes: int
) -> None:
    identity = {"algorithm": "hmac-sha256", "keys": [secret(tmp_path, 1)]}
    bed = await begin(processes, identity=identity)
    async with bed.load(await bed.key()) as answered:
        bed.write(max_body_bytes=0, routes=[])
        first, second = [await bed.service.read("reload_refused", level="error") for _ in range(2)]
        assert {first["key"], second["key"]} == {"max_body_bytes", "routes"}
        assert min(first["line"], second["line"]) >= 1
        before = answered.total()
        await until(partial(_reached, answered, before + 50))
        (tmp_path / "identity-1.secret").write_bytes(b"")
        assert (await bed.service.read("reload_refused"))["key"] == "identity.keys[0].secret_file"
    assert set(answered) == {200}
    assert await bed.service.total("sidecar_config_reloads_total") == 2


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_hangup_signal_has_the_settings_read_and_says_what_needs_a_restart(
    begin: Begin, tmp_path: Path, processes: int
) -> None:
    identity = {"algorithm": "hmac-sha256", "keys": [secret(tmp_path, 1)]}
    bed = await begin(processes, identity=identity)
    bed.service.process.send_signal(signal.SIGHUP)
    told = await bed.service.read("reloaded")
    assert (told["changed"], told["needs_restart"]) == ([], [])
    told = await bed.change(listen={"port": 1}, workers=processes + 1 if processes > 1 else 1, max_body_bytes=1000)
    assert told["changed"] == ["max_body_bytes"]
    assert told["needs_restart"] == ["listen.port"] + (["workers"] if processes > 1 else [])
    assert await bed.status() == 200


async def test_a_worker_that_takes_the_place_of_another_begins_with_the_changed_settings(
    begin: Begin, tmp_path: Path
) -> None:
    identity = {"algorithm": "hmac-sha256", "keys": [secret(tmp_path, 1)]}
    bed = await begin(2, identity=identity)
    await bed.change(access={"tools": {"write": []}, "trust_annotations": False}, allowed_hosts=["new.example"])
    workers = {record["worker"]: record["pid"] for record in bed.service.log if record["event"] == "worker_started"}
    for number, pid in workers.items():
        os.kill(pid, signal.SIGHUP)  # says nothing to a worker
        os.kill(pid, signal.SIGKILL)
        await bed.service.read("worker_started", worker=number)
    assert {await bed.status(Host="new.example", Connection="close") for _ in range(8)} == {200}


async def test_a_sidecar_that_was_reloaded_ends_as_cleanly_as_any(begin: Begin, stub: StubUpstream) -> None:
    bed, listening = await begin(), Stream()
    stub.answer = listening.answer
    async with bed.service.client.stream("GET", JWT_ROUTE, headers=bed.service.credentials) as stream:
        listening.send(b"data: 1\n\n")
        pieces = stream.aiter_raw()
        await anext(pieces)
        await bed.change(max_body_bytes=1_000_000)
        bed.service.process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            assert [piece async for piece in pieces] == []
    async with asyncio.timeout(PATIENCE_S):
        assert await bed.service.process.wait() == 0


async def test_a_key_that_was_proved_needs_no_bcrypt_again(begin: Begin) -> None:
    """With a check that takes seconds, nobody who is known waits for one because settings have changed."""
    bed = await begin(api_keys={"bcrypt_cost": 12})
    key = await bed.key()
    headers = {"X-API-Key": key, "Accept": "application/json"}
    assert (await bed.service.client.post(KEY_ROUTE, json=request("ping"), headers=headers)).status_code == 200
    await bed.change(limits={"failed_auth": {"requests": 1}}, api_keys={"bcrypt_cost": 4})
    for _ in range(2):  # now this address may prove nothing any more
        await bed.service.client.post(KEY_ROUTE, json=request("ping"), headers={"X-API-Key": "mcp_" + "0" * 46})
    assert (await bed.service.client.post(KEY_ROUTE, json=request("ping"), headers=headers)).status_code == 200


async def _reached(answered: Counter[int], count: int) -> bool:
    return answered.total() >= count
