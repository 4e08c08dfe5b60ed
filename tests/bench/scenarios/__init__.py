"""Every question that the bench asks, by the name it is asked for by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from tests.bench.results import Row
from tests.bench.scenarios.accounts import many_accounts
from tests.bench.scenarios.first_event import first_event
from tests.bench.scenarios.gigabyte import gigabyte
from tests.bench.scenarios.idle import idle_streams
from tests.bench.scenarios.keys import many_keys
from tests.bench.scenarios.large import events, large_answer, large_call
from tests.bench.scenarios.restart import restart
from tests.bench.scenarios.small import small_calls
from tests.bench.scenarios.start import start
from tests.bench.scenarios.storm import storm
from tests.bench.scenarios.tools import many_tools
from tests.bench.session import Session


class Scenario(NamedTuple):
    """A question, and what finds out."""

    question: str
    run: Callable[[Session, str], list[Row]]
    """Takes the scenario's name too, for its rows."""


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "small-1": Scenario("a small call, 1 connection: latency", partial(small_calls, connections=1)),
    "small-32": Scenario("a small call, 32 connections: CPU per request", partial(small_calls, connections=32)),
    "small-256": Scenario("a small call, 256 connections", partial(small_calls, connections=256)),
    "large-call": Scenario("a call of 64 KiB", large_call),
    "large-answer": Scenario("an answer of 64 KiB", large_answer),
    "events": Scenario("an answer of 100 server-sent events", events),
    "first-event": Scenario("how soon is an event passed on whose successor is late?", first_event),
    "idle": Scenario("what does an open stream cost on which nothing happens?", idle_streams),
    "gigabyte": Scenario("an answer of 1 GiB: throughput and memory", gigabyte),
    "storm": Scenario("what do 200 clients with fresh API keys do to those who were there before?", storm),
    "restart": Scenario("how long until 1 000 API keys in use are served again?", restart),
    "keys": Scenario("1 or 1 000 000 API keys in the store", many_keys),
    "accounts": Scenario("1 or 10 000 accounts that call", many_accounts),
    "tools": Scenario("10 or 1 000 tools at the upstream", many_tools),
    "start": Scenario("how long until ready, and how much memory then?", start),
}
