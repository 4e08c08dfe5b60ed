"""What several tests of the edges stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.issuer import FailingIssuer


@pytest.fixture
async def issuer() -> AsyncIterator[FailingIssuer]:
    """Run an issuer that fails in the way it is told to."""
    running = FailingIssuer()
    await running.start()
    yield running
    await running.stop()
