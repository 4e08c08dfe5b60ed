"""What is rendered is what Kubernetes takes, in each version it is said to work with, and what checkov lets pass."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.manifests import OVERLAYS, Document, Manifests, overlay
from tests.k8s.tools import ENVIRONMENT, missing, tool

VERSIONS = ("1.30.0", "1.32.0", "1.34.0", "1.37.0")
"""The oldest that has native sidecars and the sleep action without asking for them, and up to the newest schema."""
_READ = """
import json, sys
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
read = [ServiceMonitor.model_validate(document) for document in json.load(sys.stdin)]
print(json.dumps([json.loads(one.model_dump_json(by_alias=True, exclude_unset=True)) for one in read]))
"""


def problems(file: Path, version: str) -> str:
    """Return what Kubernetes of this version finds wrong, but for kinds that it does not know."""
    command = [tool("kubernetes-validate"), "-k", version, "--strict", "--quiet", "--no-warn", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def builtin(documents: tuple[Document, ...]) -> list[Document]:
    return [document for document in documents if document["kind"] != "ServiceMonitor"]


def service_monitors_of(documents: list[Document]) -> Any:
    """Return what the Prometheus operator's own kind makes of each document; what it does not know is dropped."""
    python = tool("python") if ENVIRONMENT.exists() else missing("the dependency group k8s")
    command = [python, "-c", _READ]
    done = subprocess.run(command, input=json.dumps(documents), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_kubernetes_is_as_its_schema_has_it(manifests: Manifests, version: str, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(builtin(manifests.documents)))
    assert problems(file, version) == ""


@pytest.mark.parametrize(
    ("kind", "misspelt"),
    [
        ("Deployment", {"replica": 1}),
        ("NetworkPolicy", {"ingres": []}),
        ("Service", {"port": []}),
    ],
)
def test_the_schemas_would_find_a_mistake(kind: str, misspelt: Document, tmp_path: Path) -> None:
    document = next(found for found in overlay("redis").documents if found["kind"] == kind)
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump({**document, "spec": {**document["spec"], **misspelt}}))
    assert next(iter(misspelt)) in problems(file, VERSIONS[0])


def test_the_service_monitor_is_as_the_prometheus_operator_has_it() -> None:
    document = overlay("redis").only("ServiceMonitor")
    misspelt = {**document, "spec": {**document["spec"], "endpoint": []}}
    assert overlay("embedded").only("ServiceMonitor") == document
    assert service_monitors_of([document, misspelt]) == [document, document]


def test_checkov_finds_nothing_but_what_is_explained(tmp_path: Path) -> None:
    for name in OVERLAYS:
        (tmp_path / f"{name}.yaml").write_text(overlay(name).text)
    options = ["--framework", "kubernetes", "--compact", "--quiet", "--skip-download", "--output", "json"]
    command = [tool("checkov"), "--directory", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    failed = [(found["check_id"], found["resource"]) for found in report["results"]["failed_checks"]]
    assert failed == []
    assert report["summary"]["passed"] > 100
    assert report["summary"]["parsing_errors"] == 0
    explained = {key for name in OVERLAYS for key in overlay(name).deployment["metadata"]["annotations"]}
    assert explained == {"checkov.io/skip1", "checkov.io/skip2", "checkov.io/skip3"}
    assert report["summary"]["skipped"] == 5
