"""The sidecar of a rendered pod, run on this machine: its arguments, environment and volumes, with paths mapped."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.k8s.manifests import K8S, Manifests
from tests.k8s.tools import kubectl, tool
from tests.service import Service, launched

Secrets = Mapping[str, Mapping[str, str]]
"""The content of Secrets, by name and key."""


def secrets_of_the_readme(directory: Path, redis_url: str) -> dict[str, dict[str, str]]:
    """Run the README's lines in a directory of its own and return the Secrets that they would make."""
    tool("openssl")
    (lines,) = re.findall(r"^```sh\n(openssl .*?)^```$", (K8S / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    directory.mkdir()
    dry = f'kubectl() {{ "{kubectl()}" "$@" --dry-run=client -o json; }}\n'
    command = ["bash", "-euo", "pipefail", "-c", dry + lines]
    told = subprocess.run(command, cwd=directory, input=redis_url + "\n", capture_output=True, text=True, check=True)
    found = dict[str, dict[str, str]]()
    for text in re.split(r"(?<=^})\n", told.stdout, flags=re.MULTILINE):
        if text.strip():
            secret = json.loads(text)
            content = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
            found[secret["metadata"]["name"]] = content
    return found


def write_volume(directory: Path, files: Mapping[str, str], version: int = 1) -> None:
    """Write files as the kubelet does for a ConfigMap or Secret, and swap a later version in as it does."""
    real = directory / f"..2026_11_23_12_00_00.{version}"
    real.mkdir(parents=True)
    for name, text in files.items():
        (real / name).write_text(text)
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(Path("..data", name))
    (directory / "..data_tmp").symlink_to(real.name)
    (directory / "..data_tmp").rename(directory / "..data")


@dataclass
class Pod:
    """A rendered pod, laid out below a directory. `replaced`: what in its settings is another on this machine."""

    manifests: Manifests
    root: Path
    secrets: Secrets
    replaced: Mapping[str, str]

    def __post_init__(self) -> None:
        self.mounts = {
            mount["mountPath"]: self.root / mount["mountPath"].lstrip("/")
            for mount in self.manifests.sidecar["volumeMounts"]
        }
        names = {mount["name"]: mount["mountPath"] for mount in self.manifests.sidecar["volumeMounts"]}
        for volume in self.manifests.pod["volumes"]:
            self._fill(volume, self.mounts[names[volume["name"]]])
        self.working_directory = self.root / "nothing"
        self.working_directory.mkdir()

    def _fill(self, volume: Mapping[str, Any], directory: Path) -> None:
        if "configMap" in volume:
            write_volume(directory, {"config.yaml": self.settings()})
        elif "secret" in volume:
            write_volume(directory, self.secrets[volume["secret"]["secretName"]])
        else:
            directory.mkdir(parents=True)

    def mapped(self, text: str) -> str:
        """Return the text with the paths of the container as they are on this machine."""
        for inside, outside in self.mounts.items():
            text = text.replace(inside, str(outside))
        return text

    def settings(self, **also: str) -> str:
        """Return the rendered settings with what is another on this machine."""
        text = self.manifests.config_text
        for before, after in (*self.replaced.items(), *also.items()):
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        return self.mapped(text)

    def command(self, *args: str) -> list[str]:
        """Return a command of the image's entry point, by default the rendered one."""
        program = shutil.which("sidecar", path=str(Path(sys.executable).parent))
        assert program is not None
        return [program, *(self.mapped(argument) for argument in args or self.manifests.sidecar["args"])]

    @property
    def environment(self) -> dict[str, str]:
        """Return what the container finds in its environment; nothing can be written to a temporary directory."""
        found = {"PATH": "", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": "/nonexistent"}
        for variable in self.manifests.sidecar.get("env", []):
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = self.secrets[reference["name"]][reference["key"]]
        return found

    def files(self) -> set[str]:
        """Return the mount paths below which there are files, and the path of every file outside of them."""
        found = set[str]()
        for file in (path for path in self.root.rglob("*") if path.is_file()):
            below = [inside for inside, outside in self.mounts.items() if outside in file.parents]
            found.add(below[0] if below else str(file))
        return found


@dataclass
class Running:
    """A started pod's sidecar. `ports`: where the ports of the container are on this machine."""

    pod: Pod
    service: Service
    ports: Mapping[int, int]

    @classmethod
    async def started(cls, stack: AsyncExitStack, pod: Pod, token: str) -> Running:
        service = await launched(stack, pod.command(), token, env=pod.environment, cwd=pod.working_directory)
        told = await service.read("started")
        config = pod.manifests.config
        ports = {
            config["listen"]["port"]: httpx.URL(told["public"]).port or 0,
            config["admin"]["port"]: httpx.URL(told["admin"]).port or 0,
        }
        public, admin = (f"http://127.0.0.1:{port}" for port in ports.values())
        await service.connect(stack, public, admin)
        service.client.headers["Host"] = httpx.URL(config["public_url"]).host
        return cls(pod, service, ports)

    async def probe(self, kind: str) -> int:
        """Ask as the kubelet does, and return the status."""
        asked = self.pod.manifests.sidecar[f"{kind}Probe"]
        url = f"http://127.0.0.1:{self.ports[asked['httpGet']['port']]}{asked['httpGet']['path']}"
        answer = await self.service.admin.get(url, timeout=asked["timeoutSeconds"])
        return answer.status_code
