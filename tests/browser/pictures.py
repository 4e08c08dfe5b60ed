"""Makes the pictures in deploy/images: ``python -m tests.browser.pictures``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import redis

from sidecar.edge.redis import names
from sidecar.policy.apikeys import rfc3339
from sidecar.records import Unusual
from tests.browser.chromium import Tab, chromium
from tests.browser.serving import Served, free_port, provider, sidecar, until
from tests.mcp_server import finance_server
from tests.redis_server import RedisServer

IMAGES = Path(__file__).parents[2] / "deploy" / "images"
DAY_S = 86_400
SETTINGS = {"access": {"tools": {"destructive": ["delete_transaction"]}}}
KEYS = {
    "nightly report": [(40, 0, 0), (42, 0, 0), (41, 0, 1), (40, 0, 0), (12, 0, 0), (43, 0, 0), (38, 0, 0)],
    "assistant on my laptop": [(5, 1, 0), (22, 6, 2), (31, 9, 0), (2, 0, 0), (0, 0, 0), (18, 4, 61), (25, 7, 0)],
    "old script": [],
}
"""By name: requests, of these writes, and refused, of the last 7 days."""


def main() -> None:
    """Take them, in both colour schemes."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as directory,
        RedisServer() as server,
        finance_server() as upstream,
        provider(f"http://127.0.0.1:{port}") as issuer,
        sidecar(Path(directory), port, issuer, upstream, server.url, SETTINGS) as served,
        chromium(Path(directory) / "profile") as tab,
    ):
        served.make("old script", days=9)
        served.make("nightly report")
        served.make("assistant on my laptop", scope="mcp:full")
        use(served, server.url)
        tab.resize(900, 1640)
        tab.cdp("Emulation.setScrollbarsHidden", hidden=True)
        tab.open(f"{served.url}/keys")
        tab.press("#sign-in")
        tab.press("#ada")
        until(lambda: tab.count("#keys > li") == len(KEYS))
        take(tab, "keys")
        [key] = served.make("agent", scope="mcp:full")
        arguments = {"id": "t-2026-0117", "reason": "duplicate of t-2026-0116, <b>urgent</b>"}
        told = served.call(key, "delete_transaction", **arguments).text
        tab.resize(900, 640)
        tab.open(served.url + told[told.index("/approvals/") :][:43])
        tab.press("#sign-in")
        tab.find("#approve")
        take(tab, "approval")


def take(tab: Tab, page: str) -> None:
    for scheme in ("light", "dark"):
        tab.prefer(scheme)
        IMAGES.mkdir(exist_ok=True)
        tab.driver.save_screenshot(str(IMAGES / f"{page}-{scheme}.png"))


def use(served: Served, redis_url: str) -> None:
    """Have the keys used in the last days, and one of them oddly."""
    stored = served.act(lambda store: store.page("ada", limit=len(KEYS), after=None))
    ids = {key.record.name: key.record.id for key in stored}
    now = int(time.time())
    hour = now - now % 3600
    odd = Unusual("refusals", hour, f"61 refused requests in the hour from {rfc3339(hour)}; 2 at most are usual")
    with redis.Redis.from_url(redis_url) as client:
        for name in ("nightly report", "assistant on my laptop"):
            client.hset(names.record("ada", ids[name]), "last_used", now * 1_000_000)
        for name, counts in KEYS.items():
            for back, (requests, writes, refused) in enumerate(reversed(counts)):
                day = names.usage("ada", ids[name], now // DAY_S - back)
                client.hset(day, mapping={"9:r": requests, "9:w": writes, "9:x": refused})
    served.act(lambda store: store.note_unusual("ada", ids["assistant on my laptop"], odd, now))


if __name__ == "__main__":
    main()
