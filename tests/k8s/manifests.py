"""What kustomize makes of `k8s/`, and the questions that a cluster would ask of it."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.tools import kubectl

Document = dict[str, Any]

TOP = Path(__file__).parent.parent.parent
K8S = TOP / "k8s"
OVERLAYS = ("embedded", "redis")
SIDECAR = "mcp-sidecar"


def render(directory: Path) -> str:
    """Run `kubectl kustomize`.

    Raises:
        subprocess.CalledProcessError: it refused; `stderr` says why.
    """
    command = [kubectl(), "kustomize", str(directory)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@functools.cache
def overlay(name: str) -> Manifests:
    """Return one of the shipped overlays."""
    return Manifests.of(K8S / "overlays" / name)


@dataclass(frozen=True)
class Manifests:
    """All documents of one kustomization."""

    text: str
    documents: tuple[Document, ...]

    @classmethod
    def of(cls, directory: Path) -> Manifests:
        text = render(directory)
        return cls(text, tuple(yaml.safe_load_all(text)))

    def kinds(self) -> list[str]:
        return sorted(document["kind"] for document in self.documents)

    def only(self, kind: str, name: str | None = None) -> Document:
        (found,) = (
            document
            for document in self.documents
            if document["kind"] == kind and name in (None, document["metadata"]["name"])
        )
        return found

    @property
    def front(self) -> Document:
        """Return the Service that clients ask."""
        (front,) = (
            document
            for document in self.documents
            if document["kind"] == "Service" and document["spec"].get("clusterIP") != "None"
        )
        return front

    @property
    def deployment(self) -> Document:
        return self.only("Deployment")

    @property
    def pod(self) -> Document:
        """Return the pod's specification."""
        found: Document = self.deployment["spec"]["template"]["spec"]
        return found

    @property
    def pod_labels(self) -> dict[str, str]:
        found: dict[str, str] = self.deployment["spec"]["template"]["metadata"]["labels"]
        return found

    @property
    def sidecar(self) -> Document:
        (found,) = (container for container in self.pod["initContainers"] if container["name"] == SIDECAR)
        return dict(found)

    @property
    def server(self) -> Document:
        return dict(self.pod["containers"][0])

    @property
    def config_text(self) -> str:
        text: str = self.only("ConfigMap")["data"]["config.yaml"]
        return text

    @property
    def config(self) -> Document:
        found: Document = yaml.safe_load(self.config_text)
        return found

    @property
    def drain(self) -> Mapping[str, float]:
        found: Mapping[str, float] = self.config["drain"]
        return found


def admitted(policy: Document, namespace: Mapping[str, str]) -> set[int]:
    """Return the ports that a NetworkPolicy opens to pods of a namespace with these labels."""
    ports: set[int] = set()
    for rule in policy["spec"]["ingress"]:
        peers = rule.get("from")
        if peers is not None and not any(_is_meant(peer, namespace) for peer in peers):
            continue
        assert rule["ports"], "a rule without ports opens all of them"
        assert all("endPort" not in port for port in rule["ports"])
        ports |= {port["port"] for port in rule["ports"]}
    return ports


def _is_meant(peer: Document, namespace: Mapping[str, str]) -> bool:
    assert set(peer) == {"namespaceSelector"}, "nothing else is asked for here"
    wanted: dict[str, str] = peer["namespaceSelector"]["matchLabels"]
    return wanted.items() <= namespace.items()
