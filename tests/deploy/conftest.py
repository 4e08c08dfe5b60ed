"""Fixtures: the image, built once, a network for containers, and an MCP server in it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.deploy.containers import Network
from tests.deploy.image import Image, build
from tests.mcp_server import StubUpstream

TOOLS = ("debootstrap", "bwrap", "setpriv", "go")
UPSTREAM_PORT = 3000


@pytest.fixture(scope="session")
def tools() -> None:
    """Have what stands in for a container engine. Where it is missing the test is skipped, but never in CI."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None] + ["root"] * (os.geteuid() != 0)
    missing += ["hadolint"] * (not Path(sys.executable).with_name("hadolint").exists())
    if missing and os.environ.get("CI"):
        pytest.fail(f"the image needs {', '.join(missing)}")
    if missing:
        pytest.skip(f"the image needs {', '.join(missing)}")


@pytest.fixture(scope="session")
def workshop(tools: None) -> Iterator[Path]:
    """Make a directory that any user may enter, unlike those of pytest; in memory, because dpkg syncs every file."""
    directory = Path(tempfile.mkdtemp(prefix="image-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=2g", "image", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)
    directory.rmdir()


@pytest.fixture(scope="session")
def image(workshop: Path) -> Image:
    """Build the image once for all tests."""
    return build(workshop)


@pytest.fixture
def place(workshop: Path) -> Iterator[Path]:
    """Make such a directory for one test."""
    directory = Path(tempfile.mkdtemp(dir=workshop))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def network(tools: None) -> Iterator[Network]:
    """Make a network."""
    network = Network()
    yield network
    network.close()


@pytest.fixture
async def upstream(network: Network) -> AsyncIterator[StubUpstream]:
    """Run the stub in that network."""
    listener = await network.run(socket.create_server, ("127.0.0.1", UPSTREAM_PORT))
    async with StubUpstream().running(listener) as stub:
        yield stub
