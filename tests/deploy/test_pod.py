"""The sidecar of a rendered pod in the image itself: its own paths, ports and user, and its hook at process 1."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.deploy.containers import Container, Mount, Network, Running, until_it_answers
from tests.deploy.image import Image
from tests.e2e.bed import KEY_ROUTE, tool_call
from tests.k8s.manifests import K8S, Document, Manifests, overlay
from tests.k8s.pods import write_volume
from tests.mcp_server import Stream, StubUpstream

KEYS_CREATE = re.compile(r"kubectl .* exec .* -- \\\n\s+sidecar (--config \S+) (keys create) --account acme")


@pytest.fixture
def manifests(tools: None) -> Manifests:
    return overlay("embedded")


@pytest.fixture
def container(image: Image, network: Network, place: Path, manifests: Manifests) -> Container:
    """Mount what the pod mounts: settings as the kubelet lays them out, a volume that belongs to root and `fsGroup`."""
    write_volume(place / "config", {"config.yaml": manifests.config_text})
    data = place / "data"
    data.mkdir()
    os.chown(data, 0, manifests.pod["securityContext"]["fsGroup"])
    data.chmod(0o2775)
    sources = {"mcp-sidecar-config": place / "config", "mcp-sidecar-data": data}
    mounts = [
        Mount(sources[mount["name"]], mount["mountPath"], writable=not mount.get("readOnly", False))
        for mount in manifests.sidecar["volumeMounts"]
    ]
    confined = manifests.sidecar["securityContext"]
    user = f"{confined['runAsUser']}:{confined['runAsGroup']}"
    return Container(image, network, place, command=manifests.sidecar["args"], mounts=mounts, user=user)


@pytest.mark.image
async def test_the_rendered_container_serves_in_the_image_and_drains_by_its_hook(
    container: Container, network: Network, upstream: StubUpstream, manifests: Manifests
) -> None:
    async with container.running() as running:
        await until_it_answers(network, url_of(manifests.sidecar["startupProbe"]), running, container)
        for kind in ("readinessProbe", "livenessProbe"):
            assert await network.answers(url_of(manifests.sidecar[kind]))
        key = await made_as_the_readme_says(container)
        assert (await asked(network, manifests, key)).status_code == 200

        call = Stream("application/json")
        upstream.answer = call.answer
        under_way = asyncio.create_task(asked(network, manifests, key))
        await call.opened.wait()
        hook = manifests.sidecar["lifecycle"]["preStop"]["exec"]["command"]
        done = await asyncio.to_thread(executed, running, container, hook)
        assert done.returncode == 0, done.stderr
        async with asyncio.timeout(manifests.drain["delay_s"]):
            while await network.answers(url_of(manifests.sidecar["readinessProbe"])):  # noqa: ASYNC110 - can only be asked
                await asyncio.sleep(0.05)
        call.send(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        call.end()
        assert (await under_way).status_code == 200
        within_s = manifests.drain["delay_s"] + manifests.drain["requests_s"] + 3
        assert await asyncio.to_thread(running.process.wait, within_s) == 0, container.log


def url_of(probe: Document) -> str:
    return f"http://127.0.0.1:{probe['httpGet']['port']}{probe['httpGet']['path']}"


async def made_as_the_readme_says(container: Container) -> str:
    """Make a key with the command of the README, in the same container."""
    found = KEYS_CREATE.search((K8S / "README.md").read_text("utf-8"))
    assert found is not None
    words = [*found[1].split(), *found[2].split(), "--account", "acme", "--name", "test", "--scope", "mcp:full"]
    made = await container.run("sidecar", *words, "--json")
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


async def asked(network: Network, manifests: Manifests, key: str) -> httpx.Response:
    """Call a tool at the port that the Service leads to, under the name that clients type."""
    (port,) = manifests.front["spec"]["ports"]
    host = httpx.URL(manifests.config["public_url"]).host
    headers = {"Host": host, "X-API-Key": key, "Accept": "application/json, text/event-stream"}
    url = f"http://127.0.0.1:{port['targetPort']}{KEY_ROUTE}"
    return await network.request("POST", url, json=tool_call("look"), headers=headers)


def executed(running: Running, container: Container, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command among the processes of a running container, as its user, as the kubelet does."""
    user, _, group = container.user.partition(":")
    into = ["/usr/bin/nsenter", "--target", str(running.first), "--pid", "--mount", "--setuid", user, "--setgid", group]
    environment = dict(container.image.environment)
    return subprocess.run([*into, *command], env=environment, capture_output=True, text=True, check=False)
