"""Fixtures: the pinned programs of other people, the fixture server, and a sidecar in front of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import Bed, merged
from tests.e2e.conftest import base_settings, start_bed
from tests.interop import node_programs
from tests.interop.fixture_server import fixture_server
from tests.interop.shim import Shim, shim

Start = Callable[..., Awaitable[Bed]]


@pytest.fixture(scope="session")
def node() -> None:
    """Have the Node programs installed. Where there is no Node the test is skipped, but never in CI."""
    missing = node_programs.missing_programs()
    if missing and os.environ.get("CI"):
        pytest.fail(f"interop needs node and npm; missing: {', '.join(missing)}")
    if missing:
        pytest.skip("interop needs node and npm")
    node_programs.install()


@pytest.fixture(scope="session")
def fixture_url() -> Iterator[str]:
    """Run the fixture server once for all tests: it keeps nothing between calls."""
    with fixture_server() as url:
        yield url


@pytest.fixture
async def front() -> AsyncIterator[Shim]:
    """Run a shim, which still has to be told where to and with which header line."""
    async with shim() as running:
        yield running


@pytest.fixture
async def start(tmp_path: Path, issuer: DevIssuer, fixture_url: str) -> AsyncIterator[Start]:
    """Start sidecars in front of the fixture, whose tools are known from their annotations alone."""
    tools: dict[str, Any] = {"read": [], "write": [], "destructive": []}
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Bed:
            base = base_settings(issuer.url, fixture_url, tmp_path / "sidecar.db")
            return await start_bed(stack, merged(base, {"access": {"tools": tools}, **settings}), issuer)

        yield start
