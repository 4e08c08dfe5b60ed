"""Limits: exact headers, a retry that succeeds, refusals that cost nothing, and strangers that harm nobody."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from tests.e2e.bed import JWT_ROUTE, KEYS, assert_refused, credentials, notification, request, tool_call
from tests.e2e.bed import with_other_secret as other_secret
from tests.e2e.conftest import Start, StoreName
from tests.redis_server import RedisServer

RATE_HEADERS = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy", "ratelimit"}


def policies(*given: dict[str, Any]) -> dict[str, Any]:
    return {"limits": {"policies": list(given)}}


def account(requests: int, window_s: int = 60, **more: Any) -> dict[str, Any]:
    return {"name": "account", "per": "account", "requests": requests, "window_s": window_s, **more}


def burst(requests: int, window_s: int = 60, **more: Any) -> dict[str, Any]:
    return {"name": "burst", "per": "credential", "requests": requests, "window_s": window_s, **more}


def rate_headers(answer: httpx.Response) -> set[str]:
    return {name for name in answer.headers if name in RATE_HEADERS}


async def test_the_tightest_policy_is_told_exactly(start: Start, store: StoreName) -> None:
    bed = await start(store, **policies(account(5), burst(3, 30)))
    token = bed.token()
    before = int(time.time())
    answer = await bed.post(request("ping"), token=token)
    assert answer.headers["X-RateLimit-Limit"] == "3"
    assert answer.headers["X-RateLimit-Remaining"] == "2"
    assert before + 29 <= int(answer.headers["X-RateLimit-Reset"]) <= int(time.time()) + 31
    assert answer.headers["RateLimit-Policy"] == '"account";q=5;w=60, "burst";q=3;w=30'
    assert answer.headers["RateLimit"] in ('"burst";r=2;t=30', '"burst";r=2;t=29')
    remaining = [(await bed.post(request("ping"), token=token)).headers["X-RateLimit-Remaining"] for _ in range(2)]
    assert remaining == ["1", "0"]


async def test_of_equally_tight_policies_the_longer_window_is_told(start: Start) -> None:
    bed = await start(**policies(burst(4, 10), account(4, 600)))
    answer = await bed.post(request("ping"), token=bed.token())
    assert answer.headers["RateLimit"].startswith('"account";r=3;')


async def test_a_used_up_limit_says_when_to_come_back(start: Start, store: StoreName) -> None:
    bed = await start(store, **policies(account(2)))
    token = bed.token()
    for _ in range(2):
        assert (await bed.post(request("ping"), token=token)).status_code == 200
    answer = await bed.post(request("ping"), token=token)
    retry_after = assert_refused(answer, 429, "RATE_LIMIT_EXCEEDED")["retryAfter"]
    assert 58 <= retry_after <= 60
    assert answer.headers["X-RateLimit-Limit"] == "2"
    assert answer.headers["X-RateLimit-Remaining"] == "0"
    assert abs(int(answer.headers["X-RateLimit-Reset"]) - (time.time() + retry_after)) <= 2
    assert rate_headers(answer) == RATE_HEADERS


async def test_who_waits_as_long_as_told_gets_in(start: Start, store: StoreName) -> None:
    bed = await start(store, **policies(account(1, 1)))
    token = bed.token()
    assert (await bed.post(request("ping"), token=token)).status_code == 200
    refused = await bed.post(request("ping"), token=token)
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    await asyncio.sleep(int(refused.headers["Retry-After"]))  # what a client does is what is tested
    assert (await bed.post(request("ping"), token=token)).status_code == 200


async def test_what_is_refused_by_one_limit_spends_nothing_of_another(start: Start, store: StoreName) -> None:
    bed = await start(store, **policies(account(3), burst(1)))
    keys = [await bed.key() for _ in range(4)]
    assert (await bed.post(request("ping"), key=keys[0])).status_code == 200
    for _ in range(5):
        assert (await bed.post(request("ping"), key=keys[0])).status_code == 429
    assert [(await bed.post(request("ping"), key=key)).status_code for key in keys[1:]] == [200, 200, 429]


async def test_only_what_is_permitted_costs(start: Start, store: StoreName) -> None:
    bed = await start(store, **policies(account(6)))
    token = bed.token("mcp:read")
    assert (await bed.post(tool_call("put"), token=token)).status_code == 403
    assert (await bed.post(b"{", token=token)).status_code == 400
    assert (await bed.post(request("books/burn"), token=token)).json()["error"]["code"] == -32601
    assert (await bed.post({"jsonrpc": "2.0", "id": 1, "result": {}}, token=token)).status_code == 202
    assert (await bed.client.get("/.well-known/sidecar-keys.json")).status_code == 200
    assert (await bed.client.put(JWT_ROUTE, headers=credentials(token=token))).status_code == 405
    costs = [
        await bed.post(request("ping"), token=token),
        await bed.post(tool_call("look"), token=token),
        await bed.post(notification("notifications/initialized"), token=token),
        await bed.client.get(JWT_ROUTE, headers=credentials(token=token)),
        await bed.client.delete(JWT_ROUTE, headers=credentials(token=token)),
        await bed.rest("GET", KEYS, token),
    ]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in costs] == ["5", "4", "3", "2", "1", "0"]
    assert (await bed.post(request("ping"), token=token)).status_code == 429
    refused = await bed.rest("GET", KEYS, token)
    assert refused.status_code == 429
    assert refused.json()["errorType"] == "RATE_LIMIT_EXCEEDED"


async def test_accounts_and_credentials_are_counted_apart(start: Start, store: StoreName) -> None:
    bed = await start(store, **policies(account(3), burst(2)))
    alice, also_alice, bob = await bed.key(), bed.token(), bed.token(sub="bob")
    answers = [await bed.post(request("ping"), key=alice) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [(await bed.post(request("ping"), token=also_alice)).status_code for _ in range(2)] == [200, 429]
    assert (await bed.post(request("ping"), token=bob)).headers["X-RateLimit-Remaining"] == "1"
    refreshed = bed.token(sub="bob", jti="another")
    assert (await bed.post(request("ping"), token=refreshed)).headers["X-RateLimit-Remaining"] == "0"


async def test_a_policy_can_be_for_writes_or_tools_or_routes(start: Start) -> None:
    bed = await start(
        **policies(
            account(1, name="writes", effect="write"),
            account(1, name="looks", tools=["lo*"]),
            account(1, name="keyed", routes=["/mcp/inspector"]),
        )
    )
    token, key = bed.token(), await bed.key()
    assert rate_headers(await bed.post(request("ping"), token=token)) == set()
    for message, name in ((tool_call("put"), "writes"), (tool_call("look"), "looks")):
        answer = await bed.post(message, token=token)
        assert answer.headers["RateLimit-Policy"] == f'"{name}";q=1;w=60'
        assert (await bed.post(message, token=token)).status_code == 429
    assert (await bed.post(tool_call("drop"), token=token)).status_code == 429
    assert (await bed.post(request("ping"), token=token)).status_code == 200
    assert (await bed.post(request("ping"), key=key)).headers["RateLimit-Policy"] == '"keyed";q=1;w=60'
    assert (await bed.post(request("ping"), key=key)).status_code == 429


async def test_a_crowd_gets_exactly_what_there_is(start: Start, store: StoreName) -> None:
    bed = await start(store, **policies(account(25)))
    token = bed.token()
    answers = await asyncio.gather(*(bed.post(request("ping", id=n), token=token) for n in range(60)))
    assert [answer.status_code for answer in answers].count(200) == 25
    assert {answer.status_code for answer in answers} == {200, 429}
    assert [answer.json()["id"] for answer in answers] == list(range(60))


async def test_without_a_policy_there_are_no_rate_headers(start: Start) -> None:
    bed = await start()
    assert rate_headers(await bed.post(request("ping"), token=bed.token())) == set()


async def test_guessing_is_stopped_and_neighbours_are_not(start: Start, store: StoreName) -> None:
    bed = await start(store, limits={"policies": [], "failed_auth": {"requests": 3, "window_s": 60}})
    remembered, fresh, token = await bed.key(), await bed.key(), bed.token()
    assert (await bed.post(request("ping"), key=remembered)).status_code == 200
    for number in range(3):
        guess = bed.secret(other_secret(fresh, number))
        assert_refused(await bed.post(request("ping"), key=guess), 401, "INVALID_API_KEY")
    for guess in (bed.secret(other_secret(fresh, 9)), fresh):
        answer = await bed.post(request("ping"), key=guess)
        assert_refused(answer, 429, "RATE_LIMIT_EXCEEDED")
    bad_token = await bed.post(request("ping"), token=bed.secret("not.a.token-signature"))
    assert_refused(bad_token, 429, "RATE_LIMIT_EXCEEDED")
    assert (await bed.post(request("ping"), key=remembered)).status_code == 200
    assert (await bed.post(request("ping"), token=token)).status_code == 200
    assert (await bed.post(request("ping"), token=bed.token(sub="newcomer"))).status_code == 200


@pytest.mark.parametrize("on_failure", ["deny", "allow", "local"])
async def test_when_the_store_fails_the_operators_choice_holds(
    start: Start, redis_server: RedisServer, on_failure: str
) -> None:
    bed = await start("redis", limits={"on_store_failure": on_failure, "policies": [account(2)]})
    token = bed.token()
    assert (await bed.post(request("ping"), token=token)).status_code == 200
    redis_server.pause()
    answers = [await bed.post(request("ping"), token=token) for _ in range(3)]
    unseen = await bed.post(request("ping"), key=other_secret("mcp_" + "a" * 12, 1))
    redis_server.resume()
    if on_failure == "deny":
        assert_refused(answers[0], 503, "STORE_UNAVAILABLE")
    else:
        expected = [200, 200, 200 if on_failure == "allow" else 429]
        assert [answer.status_code for answer in answers] == expected
        assert (rate_headers(answers[0]) == set()) is (on_failure == "allow")
    assert_refused(unseen, 503, "STORE_UNAVAILABLE")


async def test_strangers_are_told_apart_by_what_a_trusted_proxy_says(start: Start) -> None:
    few = {"policies": [], "failed_auth": {"requests": 1, "window_s": 60}}
    trusting, plain = await start(limits=few, trusted_proxies=["127.0.0.0/8"]), await start(limits=few)
    bad = trusting.secret(plain.secret("not.a.token-signature"))
    for bed, expected in ((trusting, [401, 429, 401, 429, 401]), (plain, [401, 429, 429, 429, 429])):
        addresses = ("198.51.100.1", "6.6.6.6, 198.51.100.1", "2001:db8::1", "2001:db8::2", "203.0.113.5, 127.0.0.9")
        answers = [
            await bed.post(request("ping"), token=bad, headers=(("X-Forwarded-For", address),)) for address in addresses
        ]
        assert [answer.status_code for answer in answers] == expected
