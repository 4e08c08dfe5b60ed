"""A cluster and sentinels that are reached by TLS alone, at the addresses that they announce."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from sidecar.denials import StoreUnavailable
from sidecar.edge.redis import RedisStore
from sidecar.model import Limit
from sidecar.tls import server_context
from tests.certificates import Authority
from tests.redis_topologies import MASTER, Cluster, Node, Sentinel
from tests.stores import PATIENT_S, ask, make_key
from tests.tls_front import tls_before

OURS, THEIRS = Authority("Ours"), Authority("Theirs")
FAR = 4e9


@pytest.fixture(params=["sentinel", "cluster"])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Run such a Redis and return how it is named with TLS."""
    identity = OURS.certify("redis")
    context = server_context(identity.cert, identity.key)
    async with AsyncExitStack() as stack:
        if request.param == "cluster":
            cluster = Cluster(node_timeout_ms=60_000)
            ports = [await stack.enter_async_context(tls_before(node.connect, context)) for node in cluster.masters]
            for node, port in zip(cluster.masters, ports, strict=True):
                node.announce(port)
            stack.enter_context(cluster)
            yield f"rediss+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
        else:
            master = stack.enter_context(Node())
            sentinel = Sentinel(await stack.enter_async_context(tls_before(master.connect, context)), quorum=1)
            stack.enter_context(sentinel)
            port = await stack.enter_async_context(tls_before(sentinel.connect, context))
            yield f"rediss+sentinel://127.0.0.1:{port}/{MASTER}"


async def test_all_connections_are_encrypted_and_verified_by_the_named_authority(url: str) -> None:
    store = RedisStore.from_url(url, timeout_s=PATIENT_S, tls=trusting(OURS))
    for number in range(20):
        assert await store.add(make_key(str(number), f"tenant{number}", expires_at=FAR), max_active=None, now=0)
        limit = Limit("account", 5, 60)
        assert (await store.admit(ask(limit, account=f"tenant{number}", issued_at=FAR))).quotas[0].remaining == 4
    assert len([account async for account in store.accounts()]) == 20
    await store.aclose()


async def test_who_is_not_vouched_for_by_the_named_authority_is_not_asked(url: str) -> None:
    for tls in (trusting(THEIRS), None):
        store = RedisStore.from_url(url, timeout_s=PATIENT_S, tls=tls)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        await store.aclose()


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.cert.decode())
