"""Somebody's Deployment with the lines of the README: it keeps what it had, and gets what it says there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.manifests import K8S, SIDECAR, Document, Manifests, admitted

README = (K8S / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES, AUDIT, *PATCHES = [yaml.safe_load(block) for block in BLOCKS]
DEPLOYMENT: Document = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "your-mcp-server"},
    "spec": {
        "replicas": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2}},
        "selector": {"matchLabels": {"app": "finance", "tier": "tools"}},
        "template": {
            "metadata": {"labels": {"app": "finance", "tier": "tools", "team": "blue"}},
            "spec": {
                "initContainers": [{"name": "migrate", "image": "registry.example/migrate:1"}],
                "containers": [
                    {
                        "name": "finance",
                        "image": "registry.example/finance:1",
                        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                    },
                    {"name": "exporter", "image": "registry.example/exporter:1"},
                ],
                "volumes": [{"name": "cache", "emptyDir": {}}],
            },
        },
    },
}
SERVICE: Document = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "your-mcp-server"},
    "spec": {
        "selector": {"app": "finance"},
        "ports": [
            {"name": "mcp", "port": 3000, "targetPort": "http"},
            {"name": "exporter", "port": 9100, "targetPort": 9100},
        ],
    },
}
Yours = Callable[..., Manifests]


@pytest.fixture
def yours(tmp_path: Path) -> Yours:
    """Render somebody's directory beside `k8s/`: the README's lines, with others added or in their place."""
    shutil.copytree(K8S, tmp_path / "k8s")

    def yours(store: str = "embedded", **more: Any) -> Manifests:
        directory = tmp_path / "my-server"
        directory.mkdir(exist_ok=True)
        lines = {**LINES, "components": [f"../k8s/components/{name}" for name in ("sidecar", store)], **more}
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(lines))
        (directory / "deployment.yaml").write_text(yaml.safe_dump(DEPLOYMENT))
        (directory / "service.yaml").write_text(yaml.safe_dump(SERVICE))
        (directory / "config.yaml").write_text("public_url: https://yours.example\n")
        return Manifests.of(directory)

    return yours


@pytest.mark.parametrize("store", ["embedded", "redis"])
def test_a_deployment_keeps_what_it_had(yours: Yours, store: str) -> None:
    manifests = yours(store)
    had = DEPLOYMENT["spec"]["template"]["spec"]
    server, exporter = manifests.pod["containers"]
    assert server.pop("lifecycle") == {"preStop": {"sleep": {"seconds": 28}}}
    assert [server, exporter] == had["containers"]
    assert [container["name"] for container in manifests.pod["initContainers"]] == [SIDECAR, "migrate"]
    assert had["volumes"][0] in manifests.pod["volumes"]
    assert manifests.pod_labels == DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert manifests.deployment["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]


@pytest.mark.parametrize("store", ["embedded", "redis"])
def test_all_selectors_are_filled_in_from_the_deployment(yours: Yours, store: str) -> None:
    manifests = yours(store)
    labels = DEPLOYMENT["spec"]["selector"]["matchLabels"]
    assert manifests.only("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert manifests.only("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifests.only("Service", "mcp-sidecar-admin")["spec"]["selector"] == labels
    assert "filled" not in manifests.text


def test_a_service_keeps_its_name_and_ports_and_leads_to_the_sidecar(yours: Yours) -> None:
    service = yours().front
    first, second = service["spec"]["ports"]
    assert first == {"name": "mcp", "port": 3000, "targetPort": 8080}
    assert second == SERVICE["spec"]["ports"][1]
    assert service["spec"]["selector"] == SERVICE["spec"]["selector"]


def test_the_settings_and_the_image_are_yours_and_all_is_in_your_namespace(yours: Yours) -> None:
    manifests = yours()
    assert manifests.config == {"public_url": "https://yours.example"}
    assert manifests.only("ConfigMap")["metadata"]["name"] == SIDECAR
    assert manifests.sidecar["image"] == "registry.example/mcp-sidecar:0.1.0"
    assert {document["metadata"]["namespace"] for document in manifests.documents} == {LINES["namespace"]}


def test_the_embedded_store_never_rolls_and_redis_leaves_the_number_to_the_autoscaler(yours: Yours) -> None:
    embedded, redis = (yours(store).deployment["spec"] for store in ("embedded", "redis"))
    assert (embedded["replicas"], embedded["strategy"]) == (1, {"type": "Recreate"})
    assert "replicas" not in redis


def test_several_servers_in_one_namespace_share_no_name(yours: Yours) -> None:
    for store in ("embedded", "redis"):
        manifests = yours(store, nameSuffix="-finance")
        assert all(document["metadata"]["name"].endswith("-finance") for document in manifests.documents)
        volumes = {volume["name"]: volume for volume in manifests.pod["volumes"]}
        assert volumes["mcp-sidecar-config"]["configMap"]["name"] == manifests.only("ConfigMap")["metadata"]["name"]
    scaled = manifests.only("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
    assert scaled == manifests.deployment["metadata"]["name"]


def test_labels_that_you_put_on_everything_break_no_selector(yours: Yours) -> None:
    labels = [{"pairs": {"app.kubernetes.io/name": "finance"}, "includeSelectors": True}]
    manifests = yours(labels=labels)
    service, monitor = manifests.only("Service", "mcp-sidecar-admin"), manifests.only("ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= manifests.pod_labels.items()
    assert manifests.only("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= manifests.pod_labels.items()


def test_two_deployments_in_one_kustomization_are_refused_in_the_words_of_the_readme(
    yours: Yours, tmp_path: Path
) -> None:
    other = {**DEPLOYMENT, "metadata": {"name": "redis"}}
    (tmp_path / "my-server").mkdir()
    (tmp_path / "my-server" / "other.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(subprocess.CalledProcessError) as refused:
        yours(resources=[*LINES["resources"], "other.yaml"])
    (words,) = re.findall(r"`(multiple matches .*?)`", README)
    assert words in refused.value.stderr


def test_prometheus_may_be_elsewhere_and_clients_may_be_narrowed(yours: Yours) -> None:
    policy = yours(**PATCHES[0]).only("NetworkPolicy")
    name = "kubernetes.io/metadata.name"
    assert admitted(policy, {name: "observability"}) == {9090}
    assert admitted(policy, {name: "ingress"}) == {8080}
    assert admitted(policy, {name: "monitoring"}) == set()


def test_the_service_monitor_can_be_left_out(yours: Yours) -> None:
    assert "ServiceMonitor" not in yours(**PATCHES[1]).kinds()


def test_a_longer_drain_is_given_time_as_the_readme_says(yours: Yours) -> None:
    manifests = yours(**PATCHES[2])
    drain = yaml.safe_load(re.findall(r"`(drain: \{.*?\})`", README)[0])["drain"]
    asleep_s = manifests.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert asleep_s == drain["delay_s"] + drain["requests_s"] + 3
    assert manifests.pod["terminationGracePeriodSeconds"] >= asleep_s + 10


@pytest.mark.parametrize("store", ["embedded", "redis"])
def test_the_audit_gets_a_volume_of_the_pod_as_the_readme_says(yours: Yours, store: str) -> None:
    manifests = yours(store, **AUDIT)
    assert {"name": "mcp-sidecar-audit", "mountPath": "/var/lib/sidecar/audit"} in manifests.sidecar["volumeMounts"]
    assert {"name": "mcp-sidecar-audit", "emptyDir": {"sizeLimit": "1Gi"}} in manifests.pod["volumes"]
    assert "mcp-sidecar-config" in {volume["name"] for volume in manifests.pod["volumes"]}


def test_settings_for_redis_can_be_checked_without_a_pod_as_the_readme_says(tmp_path: Path) -> None:
    (lines,) = re.findall(r"^```sh\n(sed .*?)^```$", README, re.MULTILINE | re.DOTALL)
    shutil.copy(K8S / "overlays" / "redis" / "config.yaml", tmp_path)
    command = lines.replace(".venv/bin/sidecar", f"{sys.executable} -m sidecar")
    subprocess.run(["sh", "-eu", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_server_without_sessions_needs_no_affinity(yours: Yours) -> None:
    service = yours("redis", **PATCHES[3]).front["spec"]
    assert "sessionAffinity" not in service
    assert "sessionAffinityConfig" not in service
