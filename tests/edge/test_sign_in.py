"""Where people sign in is asked of the issuer, and kept through its failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sidecar.edge.jwks.sign_in import SignIn
from tests.issuer import OAUTH, OPENID, FailingIssuer, IssuerForPeople


class Asking:
    """Somebody who asks for the sign-in, at times of their own choosing."""

    def __init__(self, issuer: FailingIssuer, timeout_s: float = 3.0) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.sign_in = SignIn(
            issuer.url, report=lambda _, why: self.told.append(why), clock=lambda: self.now, timeout_s=timeout_s
        )

    async def at(self, now: float) -> str | None:
        self.now = now
        found = await self.sign_in.endpoints()
        return None if found is None else found.token


@pytest.fixture
async def issuer() -> AsyncIterator[IssuerForPeople]:
    issuer = IssuerForPeople()
    await issuer.start()
    yield issuer
    await issuer.stop()


async def test_what_is_known_is_kept_for_as_long_as_the_issuer_says(issuer: IssuerForPeople) -> None:
    asking = Asking(issuer)
    for now in (0, 1, 299):
        assert await asking.at(now) == f"{issuer.url}/token"
    assert issuer.requests[OAUTH] == 1
    await asking.at(300)
    assert issuer.requests[OAUTH] == 2


async def test_openid_metadata_is_asked_where_there_is_no_other(issuer: IssuerForPeople) -> None:
    issuer.broken[OAUTH] = "html"
    assert await Asking(issuer).at(0) == f"{issuer.url}/token"


async def test_a_failure_is_told_and_tried_again_after_ten_seconds(issuer: IssuerForPeople) -> None:
    issuer.broken |= {OAUTH: "500", OPENID: "no_keys"}
    asking = Asking(issuer)
    for now in (0, 9.9):
        assert await asking.at(now) is None
    assert issuer.requests[OAUTH] == len(asking.told) == 1
    assert "answered 500" in asking.told[0]
    issuer.broken.clear()
    assert await asking.at(10) == f"{issuer.url}/token"


async def test_what_is_known_outlives_a_failure(issuer: IssuerForPeople) -> None:
    asking = Asking(issuer)
    await asking.at(0)
    issuer.broken |= {OAUTH: "cut", OPENID: "redirect"}
    assert await asking.at(1000) == f"{issuer.url}/token"
    assert len(asking.told) == 1


async def test_an_issuer_that_does_not_answer_keeps_nobody_waiting_for_long(issuer: IssuerForPeople) -> None:
    issuer.broken |= {OAUTH: "hang"}
    asking = Asking(issuer, timeout_s=0.1)
    assert await asking.at(0) is None
    assert asking.told == ["no answer within 0.1 s"]


async def test_who_leaves_takes_nobody_elses_answer_along(issuer: IssuerForPeople) -> None:
    issuer.gate = asyncio.Event()
    asking = Asking(issuer)
    leaving, staying = asyncio.create_task(asking.at(0)), asyncio.create_task(asking.at(0))
    await issuer.asked.wait()
    leaving.cancel()
    issuer.gate.set()
    assert await staying == f"{issuer.url}/token"
    assert issuer.requests[OAUTH] == 1
