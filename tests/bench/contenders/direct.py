"""No proxy at all: what latency and throughput are without one."""

from __future__ import annotations

from tests.bench.contenders.contender import Contender
from tests.bench.upstream import Upstream


def direct(upstream: Upstream) -> Contender:
    """Return the upstream itself."""
    return Contender("direct", upstream.port, None, upstream)
