"""The compose files: what they say is sound, and what they say is what starts."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.config import Config, load, warnings
from tests.deploy import composed
from tests.deploy.asking import LIVE, call, make_key
from tests.deploy.composed import Project, seconds
from tests.deploy.containers import STARTS_WITHIN_S, Container, Mount, Network, Running, until_it_answers
from tests.deploy.image import TOP, Image
from tests.mcp_server import StubUpstream

DEPLOY = TOP / "deploy"
TO_LET_GO_S = 3
IDENTITY_KEY = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
BACK_UP = "VACUUM INTO '/var/lib/sidecar/copy.db'"
THEIRS = """
services:
  web: {image: web, depends_on: [mcp-server]}
  mcp-server:
    image: example/mcp-server:1.0
    ports: ["${THEIR_PORT}:3000"]
"""


@pytest.fixture
def project(tools: None, place: Path) -> Project:
    """`compose.yaml` as it is shipped, with secrets made the shipped way."""
    return composed.read(composed.unpacked(place).parent, "-f", "deploy/compose.yaml")


@pytest.fixture
def added(tools: None, place: Path) -> Project:
    """Somebody's project with the sidecar added to it."""
    deploy = composed.unpacked(place)
    theirs = place / "theirs"
    theirs.mkdir()
    (theirs / "compose.yaml").write_text(THEIRS)
    (theirs / ".env").write_text("THEIR_PORT=3000\n")
    files = ("-f", "compose.yaml", "-f", f"{deploy}/compose.add.yaml")
    return composed.read(theirs, "--env-file", ".env", "--env-file", f"{deploy}/.env", *files)


@asynccontextmanager
async def started(container: Container) -> AsyncIterator[Running]:
    """Start a sidecar that reads its own settings first."""
    checked = await container.run("sidecar", "check-config")
    assert checked.returncode == 0, checked.stderr
    async with container.running() as running:
        await until_it_answers(container.network, LIVE, running, container)
        yield running


@asynccontextmanager
async def redis_started(project: Project, network: Network, volumes: Path) -> AsyncIterator[Running]:
    """Start Redis as its service says, and wait as the service's health check does."""
    container = project.container(
        "redis", composed.redis_image(volumes), network, volumes, more=[Mount(Path("/usr"), "/usr")]
    )
    kind, test = project.service("redis")["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    async with container.running() as running:
        async with asyncio.timeout(STARTS_WITHIN_S):
            while (await container.run("sh", "-c", test)).returncode != 0:
                assert running.process.poll() is None, container.log
        yield running


@pytest.mark.image
async def test_what_compose_yaml_says_starts_and_its_keys_survive_in_redis(
    project: Project, image: Image, network: Network, upstream: StubUpstream, place: Path
) -> None:
    sidecar = project.container("sidecar", image, network, place)
    grace_s = seconds(project.service("sidecar")["stop_grace_period"])
    async with redis_started(project, network, place) as running_redis:
        password = project.service("redis")["environment"]["REDISCLI_AUTH"]
        assert password not in running_redis.command_line()
        async with started(sidecar) as running:
            key = await make_key(sidecar)
            assert await call(network, key) == 200
            assert upstream.only.value("X-Account-Id") == "acme"
            settings = await network.run(redis_settings, password)
            assert settings["maxmemory-policy"] == "noeviction"
            assert settings["appendonly"] == "yes"
            with pytest.raises(redis.AuthenticationError):
                await network.run(redis_settings, None)
            assert await running.stop(grace_s) == 0, sidecar.log
        assert await running_redis.stop(grace_s) == 0

    async with redis_started(project, network, place), started(project.container("sidecar", image, network, place)):
        assert await call(network, key) == 200


@pytest.mark.image
async def test_what_compose_add_yaml_adds_to_a_project_starts_and_keeps_keys_in_its_volume(
    added: Project, image: Image, network: Network, upstream: StubUpstream, place: Path
) -> None:
    assert not added.service("mcp-server").get("ports")
    async with started(added.container("sidecar", image, network, place)):
        beside = added.container("sidecar", image, network, place)
        key = await make_key(beside)
        assert await call(network, key) == 200
        copied = await beside.run("python", "-m", "sqlite3", "/var/lib/sidecar/sidecar.db", BACK_UP)
        assert copied.returncode == 0, copied.stderr
    async with started(added.container("sidecar", image, network, place)):
        assert await call(network, key) == 200


def redis_settings(password: str | None) -> dict[str, Any]:
    with redis.Redis("127.0.0.1", password=password) as client:
        return dict(client.config_get("*"))


@pytest.mark.image
def test_only_the_sidecar_and_grafana_can_be_reached_from_outside(project: Project) -> None:
    published = {
        name: {(port["host_ip"], port["target"]) for port in project.service(name).get("ports", ())}
        for name in project.service_names
    }
    assert {name: ports for name, ports in published.items() if ports} == {
        "sidecar": {("127.0.0.1", 8080)},
        "grafana": {("127.0.0.1", 3000)},
    }
    for name in project.service_names - published_services(project):
        assert project.service(name)["networks"].keys() <= project.internal_networks()
    assert project.service("mcp-server")["networks"].keys() == {"mcp"}
    beside = {name for name in project.service_names if "mcp" in project.service(name)["networks"]}
    assert beside == {"mcp-server", "sidecar"}


def published_services(project: Project) -> set[str]:
    return {name for name in project.service_names if project.service(name).get("ports")}


@pytest.mark.image
def test_prometheus_and_grafana_find_what_they_are_given(project: Project) -> None:
    deploy = Path(project.model["secrets"]["identity_key"]["file"]).parents[1]
    for name in project.service_names:
        for volume in project.service(name).get("volumes", ()):
            assert volume["type"] == "volume" or Path(volume["source"]).exists()
    scraped = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert [config["targets"] for one in scraped for config in one["static_configs"]] == [["sidecar:9090"]]
    assert "metrics" in project.service("sidecar")["networks"]

    provisioning = deploy / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/sidecar.yaml").read_text("utf-8"))["providers"]
    mounted = {volume["target"]: volume["source"] for volume in project.service("grafana")["volumes"]}
    dashboard = json.loads(Path(mounted[f"{provider['options']['path']}/sidecar.json"]).read_text("utf-8"))
    (variable,) = (one for one in dashboard["templating"]["list"] if one["name"] == "datasource")
    assert variable["query"] == source["type"]


@pytest.mark.image
def test_every_service_of_ours_is_confined_and_says_how_it_is(project: Project) -> None:
    for name in project.service_names - {"mcp-server"}:
        service = project.service(name)
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service["user"].startswith(("0", "root"))
        assert service["mem_limit"]
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
        assert "healthcheck" in service or name == "sidecar"  # whose image brings it
        for volume in service["volumes"]:
            assert volume["type"] == "volume" or volume["read_only"]
    assert project.service("sidecar")["depends_on"]["redis"]["condition"] == "service_healthy"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_what_is_secret_is_made_once_and_for_no_other_user(tmp_path: Path) -> None:
    deploy = composed.unpacked(tmp_path)
    made = {path: path.read_bytes() for path in (deploy / ".env", *(deploy / "secrets").iterdir())}
    assert len(made) == 3
    assert (deploy / ".env").stat().st_mode & 0o077 == (deploy / "secrets").stat().st_mode & 0o077 == 0
    composed.make_secrets(deploy)
    assert {path: path.read_bytes() for path in made} == made


def example_values() -> dict[str, str]:
    lines = (DEPLOY / ".env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def mounted_settings(store_url: str) -> Config:
    """Load what is mounted, with the example's values and secrets as they are made."""
    environ = {**example_values(), "STORE_URL": store_url}
    return load((DEPLOY / "sidecar/config.yaml").read_text("utf-8"), environ, lambda _: IDENTITY_KEY, {})


@pytest.mark.parametrize("url", ["redis://:word@redis:6379/0", "sqlite:////var/lib/sidecar/sidecar.db"])
def test_the_mounted_settings_are_right_with_the_values_of_the_example(url: str) -> None:
    config = mounted_settings(url)
    assert (config.listen.port, config.admin.port) == (8080, 9090)
    assert config.public_url == "http://127.0.0.1:8080"
    assert not any("identity.keys" in warning for warning in warnings(config))


@pytest.mark.parametrize("file", ["compose.yaml", "compose.add.yaml"])
def test_a_container_is_not_killed_while_it_drains(file: str) -> None:
    drain = mounted_settings("redis://redis").drain
    text = (DEPLOY / file).read_text("utf-8").replace("!reset", "")
    grace = yaml.safe_load(text)["services"]["sidecar"]["stop_grace_period"]
    assert seconds(grace) > drain.delay_s + drain.requests_s + TO_LET_GO_S


def test_every_name_that_the_compose_files_ask_for_is_in_the_example() -> None:
    asked = {
        name for path in DEPLOY.glob("compose*.yaml") for name in re.findall(r"[^$]\$\{(\w+)", path.read_text("utf-8"))
    }
    assert asked == example_values().keys()
