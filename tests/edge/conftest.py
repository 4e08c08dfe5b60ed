"""What several tests of the edges stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.stores import Store
from tests.issuer import FailingIssuer
from tests.stores import STORES, FakeClock, opened


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    """Run the test on each of the stores, empty."""
    async with opened(request.param, tmp_path, clock) as store:
        yield store


@pytest.fixture
async def issuer() -> AsyncIterator[FailingIssuer]:
    """Run an issuer that fails in the way it is told to."""
    running = FailingIssuer()
    await running.start()
    yield running
    await running.stop()
