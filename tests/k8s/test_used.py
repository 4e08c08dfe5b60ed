"""What is rendered is run: the settings as the kubelet lays them out, the container's own arguments and probes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from sidecar.demo.issuer import DevIssuer
from tests.e2e.bed import JWT_ROUTE, request
from tests.e2e.conftest import stub
from tests.k8s.manifests import Manifests, overlay
from tests.k8s.pods import Pod, Running, secrets_of_the_readme, write_volume
from tests.mcp_server import Stream, StubUpstream
from tests.service import until

__all__ = ["stub"]


@pytest.fixture
def pod(manifests: Manifests, tmp_path: Path, issuer: DevIssuer, stub: StubUpstream, redis_url: str) -> Pod:
    """Lay out a pod in front of the stub, with the Secrets that the README has made."""
    secrets = secrets_of_the_readme(tmp_path / "secrets", redis_url)
    on_this_machine = {
        "port: 8080}": "port: 0}",
        "port: 9090}": "port: 0}",
        manifests.config["upstream"]["url"]: stub.url,
        manifests.config["jwt"]["issuers"][0]["issuer"]: issuer.url,
    }
    return Pod(manifests, tmp_path / "root", secrets, on_this_machine)


@pytest.fixture
async def running(pod: Pod, issuer: DevIssuer) -> AsyncIterator[Running]:
    """Start that pod's sidecar."""
    token = issuer.mint(sub="alice", aud=f"{pod.manifests.config['public_url']}/mcp", scope="mcp:full")
    async with AsyncExitStack() as stack:
        yield await Running.started(stack, pod, token)


def test_check_config_finds_nothing_wrong_with_the_rendered_settings(pod: Pod) -> None:
    command = pod.command("check-config", "--config", "/etc/sidecar/config.yaml", "--json")
    done = subprocess.run(command, env=pod.environment, cwd=pod.working_directory, capture_output=True, check=False)
    report = json.loads(done.stdout)
    assert (done.returncode, report["problems"]) == (0, [])
    assert not done.stderr


async def test_the_rendered_probes_pass_and_the_services_port_leads_to_the_server(
    running: Running, stub: StubUpstream
) -> None:
    for kind in ("startup", "readiness", "liveness"):
        assert await running.probe(kind) == 200
    (port,) = running.pod.manifests.front["spec"]["ports"]
    assert running.service.port == running.ports[port["targetPort"]]
    answer = await running.service.ping()
    assert answer.status_code == 200
    assert stub.only.value("X-Account-Id") == "alice"
    (endpoint,) = running.pod.manifests.only("ServiceMonitor")["spec"]["endpoints"]
    metrics = await running.service.admin.get(endpoint["path"])
    assert "sidecar_requests_total" in metrics.text


async def test_nothing_is_written_but_on_the_volume_of_the_store(running: Running) -> None:
    before = running.pod.files()
    assert (await running.service.ping()).status_code == 200
    volumes = {"/etc/sidecar", *running.pod.mounts}
    assert before == running.pod.files() == volumes


async def test_a_changed_config_map_takes_effect_in_the_running_pod(running: Running) -> None:
    pod, service = running.pod, running.service
    directory = pod.mounts["/etc/sidecar"]
    write_volume(directory, {"config.yaml": pod.settings(**{"allowed_hosts: []": "allowed_hosts: [other.example]"})}, 2)
    assert (await service.read("reloaded"))["changed"] == ["allowed_hosts"]
    service.client.headers["Host"] = "other.example"
    assert (await service.ping()).status_code == 200


async def test_the_pre_stop_hook_begins_the_drain_while_the_server_is_there(
    running: Running, stub: StubUpstream
) -> None:
    service, call = running.service, Stream("application/json")
    stub.answer = call.answer
    asked = asyncio.ensure_future(service.client.post(JWT_ROUTE, json=request("ping"), headers=service.credentials))
    await call.opened.wait()
    _pre_stop(running)
    await service.read("stopping")
    await until(lambda: _is(running, "readiness", 503))
    stub.answer = StubUpstream().answer
    late = await service.ping()  # of somebody who has not heard of it yet
    call.send(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    call.end()
    assert (late.status_code, (await asked).status_code) == (200, 200)
    drain = running.pod.manifests.drain
    async with asyncio.timeout(drain["delay_s"] + drain["requests_s"]):
        assert await service.process.wait() == 0


def _pre_stop(running: Running) -> None:
    """Run the hook; process 1 of the container is another here."""
    program, *arguments, code = running.pod.manifests.sidecar["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "python"
    assert code.count("kill(1,") == 1
    here = code.replace("kill(1,", f"kill({running.service.process.pid},")
    subprocess.run([sys.executable, *arguments, here], check=True)


def test_the_readme_makes_the_secrets_that_are_asked_for(tmp_path: Path) -> None:
    made = secrets_of_the_readme(tmp_path / "secrets", "redis://redis.test")
    assert made["mcp-sidecar-store"] == {"url": "redis://redis.test"}
    assert made["mcp-sidecar-identity"]["identity.pem"].startswith("-----BEGIN PRIVATE KEY-----")
    assert list((tmp_path / "secrets").iterdir()) == []


def test_the_example_is_a_server_that_its_own_probe_finds() -> None:
    manifests = overlay("embedded")
    python, *arguments = manifests.server["command"]
    port = arguments[-1]
    with subprocess.Popen([sys.executable, *arguments[:-1], "0"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = httpx.URL(server.stdout.readline().strip())
        probe = manifests.server["readinessProbe"]["exec"]["command"]
        here = [argument.replace(port, str(url.port)) for argument in probe[1:]]
        found = subprocess.run([sys.executable, *here], check=False).returncode
        server.terminate()
    assert {python, probe[0]} == {"python"}
    assert manifests.config["upstream"]["url"] == str(url.copy_with(port=int(port)))
    assert found == 0


async def _is(running: Running, kind: str, status: int) -> bool:
    return await running.probe(kind) == status
