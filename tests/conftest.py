"""Fixtures that any test may ask for: a real Redis, a real issuer, a real MCP server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from sidecar.demo.issuer import DevIssuer
from tests.mcp_server import finance_server


@pytest.fixture
async def issuer() -> AsyncIterator[DevIssuer]:
    """Run a dev issuer; ES256, because an RSA key takes its time to be made."""
    issuer = DevIssuer(algorithm="ES256")
    await issuer.start()
    yield issuer
    await issuer.stop()


@pytest.fixture(scope="session")
def finance_url() -> Iterator[str]:
    """Run the finance server once for all tests; each takes accounts of its own."""
    with finance_server() as url:
        yield url
