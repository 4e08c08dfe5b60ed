"""The image, as `deploy/Dockerfile` makes it: small, confined, and it serves."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.collector import Collector
from tests.deploy.asking import ADMIN, LIVE, PUBLIC, call, make_key
from tests.deploy.containers import Container, Mount, Network, until_it_answers
from tests.deploy.dockerfile import let_through, stages
from tests.deploy.image import TOP, Image, with_extra
from tests.mcp_server import StubUpstream

GRACE_S = 10.0
CONFIG = """
listen: {host: 0.0.0.0}
admin: {host: 0.0.0.0}
upstream: {url: "${UPSTREAM_URL}"}
drain: {delay_s: 0}
"""


@pytest.fixture
def container(image: Image, network: Network, place: Path) -> Container:
    """The image as one starts it that has read its first lines: a config.yaml, a volume, and no other word."""
    (place / "config.yaml").write_text(CONFIG)
    (volume,) = image.volumes
    data = place / "data"
    data.mkdir()
    owner = (image.root / volume.lstrip("/")).stat()
    subprocess.run(["chown", f"{owner.st_uid}:{owner.st_gid}", data], check=True)  # a new volume takes over the owner
    return Container(
        image,
        network,
        place,
        environment={"UPSTREAM_URL": "http://127.0.0.1:3000/mcp"},
        mounts=[Mount(place / "config.yaml", "/etc/sidecar/config.yaml"), Mount(data, volume, writable=True)],
    )


@pytest.mark.image
async def test_the_image_serves_without_rights_and_ends_in_time_and_its_keys_survive(
    container: Container, network: Network, upstream: StubUpstream
) -> None:
    async with container.running() as running:
        await until_it_answers(network, LIVE, running, container)
        key = await make_key(container)
        assert await call(network, key) == 200
        assert upstream.only.value("X-Account-Id") == "acme"
        assert (await network.request("GET", f"{ADMIN}/metrics")).status_code == 200
        assert (await network.request("GET", f"{PUBLIC}/keys")).status_code == 200

        assert running.status("Uid").split() == ["65532"] * 4
        assert int(running.status("CapEff"), 16) == int(running.status("CapBnd"), 16) == 0
        assert running.status("NoNewPrivs") == "1"
        assert (await container.run(*container.image.health_check)).returncode == 0
        assert await running.stop(GRACE_S) == 0, container.log
    assert (await container.run(*container.image.health_check)).returncode != 0

    async with container.running() as running:
        await until_it_answers(network, LIVE, running, container)
        assert await call(network, key) == 200
        assert await running.stop(GRACE_S) == 0, container.log


@pytest.mark.image
async def test_nothing_but_the_volume_can_be_written_to(container: Container) -> None:
    program = (
        "import os, sys\n"
        "for top, _, _ in os.walk('/'):\n"
        "    if not top.startswith(('/proc', '/dev', '/sys')) and os.access(top, os.W_OK): print(top)"
    )
    found = await container.run("python", "-c", program)
    assert found.stdout.split() == ["/var/lib/sidecar"], found.stderr


@pytest.mark.image
async def test_it_says_what_is_wrong_when_no_settings_are_mounted(image: Image, network: Network, place: Path) -> None:
    container = Container(image, network, place)
    async with container.running() as running:
        assert await asyncio.to_thread(running.process.wait, 30) == 1
    assert "/etc/sidecar/config.yaml: there is no such file" in container.log


@pytest.mark.image
async def test_the_image_holds_the_locked_versions_and_neither_shell_nor_pip(container: Container) -> None:
    program = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    listed = await container.run("python", "-c", program)
    installed = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in json.loads(listed.stdout).items()}
    assert installed.pop("mcp-sidecar")
    lock = (TOP / "deploy/requirements.lock").read_text("utf-8")
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    assert installed.items() <= locked.items()
    assert {"aiohttp", "cryptography", "pyjwt", "redis"} <= installed.keys()
    for name in ("sh", "bash", "dash", "apt", "dpkg", "pip", "gcc"):
        assert (await container.run(name)).returncode != 0
        assert not list(container.image.root.glob(f"**/bin/{name}"))


@pytest.mark.image
async def test_with_the_extra_it_sends_traces_and_without_it_says_what_is_missing(
    container: Container, workshop: Path, network: Network, upstream: StubUpstream
) -> None:
    endpoint = 'tracing: {otlp_endpoint: "http://127.0.0.1:4318"}'
    (container.directory / "config.yaml").write_text(f"{CONFIG}{endpoint}\n")
    async with container.running() as running:
        assert await asyncio.to_thread(running.process.wait, 30) == 1
    assert "tracing.otlp_endpoint" in container.log
    assert "--build-arg EXTRA=otel" in container.log

    (container.directory / "extra").mkdir()
    image = with_extra(container.image, workshop, "otel")
    extra = replace(container, image=image, directory=container.directory / "extra")
    listener = await network.run(socket.create_server, ("127.0.0.1", 4318))
    async with Collector().running(listener) as collector, extra.running() as running:
        await until_it_answers(network, LIVE, running, extra)
        assert await call(network, await make_key(extra)) == 200
        assert await running.stop(GRACE_S) == 0, extra.log
        assert {span.name for span in collector.spans} >= {"tools/call look"}


@pytest.mark.image
def test_the_dockerfile_is_sound(tools: None) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", TOP / "deploy/Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_says_what_it_is() -> None:
    _, last = stages((TOP / "deploy/Dockerfile").read_text("utf-8"))
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in last.pairs("LABEL").items()}
    assert labels.keys() == {"title", "description", "licenses", "version", "revision", "created"}
    version = re.search(r'^version = "(.+)"$', (TOP / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert version is not None
    assert last.pairs("ARG")["VERSION"] == version[1]
    assert last.only("USER").value == "65532:65532"
    assert last.only("CMD").words == ["serve", "--config", "/etc/sidecar/config.yaml"]


def test_what_traces_need_comes_on_top_of_what_the_image_has_anyway() -> None:
    def locked(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==(\S+)", (TOP / "deploy" / name).read_text("utf-8"), re.MULTILINE))

    plain, tracing = locked("requirements.lock"), locked("requirements-otel.lock")
    assert plain.items() <= tracing.items()
    assert tracing.keys() - plain.keys() == {
        *("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-semantic-conventions"),
        *("opentelemetry-exporter-otlp-proto-common", "opentelemetry-proto", "protobuf"),
    }


@pytest.mark.parametrize(
    ("path", "is_sent"),
    [
        ("pyproject.toml", True),
        ("deploy/requirements.lock", True),
        ("deploy/requirements-otel.lock", True),
        ("sidecar/edge/redis/scripts/admit.lua", True),
        ("sidecar/edge/key_page/static/keys.js", True),
        ("sidecar/__pycache__/app.cpython-311.pyc", False),
        ("sidecar/policy/__pycache__/jwk.cpython-311.pyc", False),
        (".git/config", False),
        ("data/identity-ed25519.key", False),
        ("deploy/.env", False),
        ("deploy/secrets/identity.pem", False),
        ("tests/service.py", False),
    ],
)
def test_the_builder_gets_the_source_and_nothing_else(path: str, is_sent: bool) -> None:
    assert let_through((TOP / ".dockerignore").read_text("utf-8"), path) is is_sent
