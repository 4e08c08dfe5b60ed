"""The pod, its ports and who reaches them, and the time that its end takes."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.k8s.manifests import K8S, SIDECAR, TOP, Manifests, admitted, overlay

USER = 65532
MARGIN_S = 3
"""What config.yaml asks of `terminationGracePeriodSeconds` beside delay_s and requests_s."""
SERVER_ENDS_WITHIN_S = 10
MEASURED_IDLE_MIB = 65
MONITORING = {"kubernetes.io/metadata.name": "monitoring"}


def test_an_overlay_brings_all_that_an_installation_needs() -> None:
    common = ["ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "Service", "ServiceMonitor"]
    assert overlay("embedded").kinds() == sorted([*common, "PersistentVolumeClaim"])
    assert overlay("redis").kinds() == sorted([*common, "HorizontalPodAutoscaler"])


def test_no_secret_is_written_down(manifests: Manifests) -> None:
    assert "Secret" not in manifests.kinds()
    for variable in manifests.sidecar.get("env", []):
        assert "secretKeyRef" in variable["valueFrom"]


def test_the_sidecar_is_a_native_one_that_starts_before_all_else(manifests: Manifests) -> None:
    assert manifests.pod["initContainers"][0]["name"] == SIDECAR
    assert manifests.sidecar["restartPolicy"] == "Always"


def test_the_start_of_the_server_waits_for_nothing_but_the_process(manifests: Manifests) -> None:
    admin = manifests.config["admin"]["port"]
    probes = {kind: manifests.sidecar[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert probes == {
        "startup": {"path": "/livez", "port": admin},
        "readiness": {"path": "/readyz", "port": admin},
        "liveness": {"path": "/livez", "port": admin},
    }


def test_a_look_at_readiness_may_take_as_long_as_the_upstream_has_to_connect(manifests: Manifests) -> None:
    connect_timeout_s = manifests.config["upstream"].get("connect_timeout_s", 5)
    assert manifests.sidecar["readinessProbe"]["timeoutSeconds"] > connect_timeout_s


def test_the_sidecar_may_do_nothing_that_it_does_not_need(manifests: Manifests) -> None:
    assert manifests.sidecar["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert manifests.pod["automountServiceAccountToken"] is False


def test_there_is_room_for_what_was_measured(manifests: Manifests) -> None:
    resources = manifests.sidecar["resources"]
    requested, limit = (int(resources[kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits"))
    assert MEASURED_IDLE_MIB < requested < limit


def test_settings_are_mounted_as_a_directory_which_shows_changes(manifests: Manifests) -> None:
    mounts = {mount["name"]: mount for mount in manifests.sidecar["volumeMounts"]}
    assert all("subPath" not in mount for mount in mounts.values())
    config = mounts["mcp-sidecar-config"]
    assert (config["mountPath"], config["readOnly"]) == ("/etc/sidecar", True)
    volumes = {volume["name"]: volume for volume in manifests.pod["volumes"]}
    assert volumes["mcp-sidecar-config"]["configMap"]["name"] == manifests.only("ConfigMap")["metadata"]["name"]


def test_a_change_of_settings_replaces_no_pod(manifests: Manifests) -> None:
    assert manifests.only("ConfigMap")["metadata"]["name"] == SIDECAR


def test_who_came_to_the_servers_port_comes_to_the_sidecars(manifests: Manifests) -> None:
    (port,) = manifests.front["spec"]["ports"]
    assert port["targetPort"] == manifests.config["listen"]["port"]
    assert port["port"] == 80


def test_prometheus_finds_the_admin_port_of_every_pod(manifests: Manifests) -> None:
    service, monitor = manifests.only("Service", "mcp-sidecar-admin"), manifests.only("ServiceMonitor")
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == manifests.config["admin"]["port"]
    assert service["spec"]["selector"].items() <= manifests.pod_labels.items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")


def test_the_alerts_know_the_pods_by_the_name_of_their_job(manifests: Manifests) -> None:
    """Without `jobLabel` the Prometheus operator calls the job by the Service's name."""
    alerts = (TOP / "deploy" / "prometheus" / "alerts.yml").read_text()
    names = set(re.findall(r'job=~"(.*?)"', alerts))
    assert names
    assert "jobLabel" not in manifests.only("ServiceMonitor")["spec"]
    assert all(re.fullmatch(name, "mcp-sidecar-admin") for name in names)


def test_the_readme_makes_a_rule_of_the_operator_out_of_the_alerts() -> None:
    lines = re.findall(r"^\{ printf .*?; \}", (K8S / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    made = subprocess.check_output(["bash", "-euc", lines[0]], cwd=TOP)
    rule = yaml.safe_load(made)
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load((TOP / "deploy" / "prometheus" / "alerts.yml").read_text())


def test_nothing_but_our_port_is_open_and_the_admin_port_to_monitoring_alone(manifests: Manifests) -> None:
    policy, config = manifests.only("NetworkPolicy"), manifests.config
    public, admin = config["listen"]["port"], config["admin"]["port"]
    assert admitted(policy, {}) == {public}
    assert admitted(policy, MONITORING) == {public, admin}
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_all_select_the_pods_of_the_deployment(manifests: Manifests) -> None:
    wanted = manifests.deployment["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= manifests.pod_labels.items()
    assert manifests.only("NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": wanted}
    assert manifests.only("PodDisruptionBudget")["spec"]["selector"] == {"matchLabels": wanted}
    assert manifests.only("Service", "mcp-sidecar-admin")["spec"]["selector"] == wanted
    for constraint in manifests.pod.get("topologySpreadConstraints", []):
        assert constraint["labelSelector"] == {"matchLabels": wanted}


def test_the_server_listens_where_the_sidecar_alone_reaches_it(manifests: Manifests) -> None:
    command = manifests.server["command"]
    host, port = (command[command.index(name) + 1] for name in ("--host", "--port"))
    assert host == "127.0.0.1"
    assert manifests.config["upstream"]["url"] == f"http://{host}:{port}/mcp"
    for probe in ("readinessProbe", "livenessProbe"):  # the kubelet comes by the pod's address
        assert "httpGet" not in manifests.server[probe]


def test_the_server_outlives_the_drain_of_the_sidecar(manifests: Manifests) -> None:
    drain = manifests.drain
    asleep_s = manifests.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert asleep_s >= drain["delay_s"] + drain["requests_s"] + MARGIN_S


def test_the_grace_period_has_room_for_the_drain_and_for_the_servers_own_end(manifests: Manifests) -> None:
    drain, grace_s = manifests.drain, manifests.pod["terminationGracePeriodSeconds"]
    asleep_s = manifests.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace_s > drain["delay_s"] + drain["requests_s"] + MARGIN_S
    assert grace_s >= asleep_s + SERVER_ENDS_WITHIN_S


def test_there_is_never_a_second_pod_on_the_embedded_store() -> None:
    manifests = overlay("embedded")
    spec = manifests.deployment["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (mount,) = [mount for mount in manifests.sidecar["volumeMounts"] if mount["name"] == "mcp-sidecar-data"]
    assert manifests.config["store"]["url"].startswith(f"sqlite:///{mount['mountPath']}/")
    assert manifests.pod["securityContext"]["fsGroup"] == USER


def test_many_pods_are_spread_and_never_all_gone_at_once() -> None:
    manifests = overlay("redis")
    autoscaler = manifests.only("HorizontalPodAutoscaler")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == manifests.deployment["metadata"]["name"]
    assert "replicas" not in manifests.deployment["spec"]
    assert manifests.only("PodDisruptionBudget")["spec"]["maxUnavailable"] < autoscaler["minReplicas"]
    keys = [constraint["topologyKey"] for constraint in manifests.pod["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    rolling: dict[str, Any] = manifests.deployment["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0


def test_the_local_limits_of_all_pods_together_stay_within_the_limit() -> None:
    manifests = overlay("redis")
    most = manifests.only("HorizontalPodAutoscaler")["spec"]["maxReplicas"]
    share = manifests.config["limits"]["local_share"]
    assert share * most <= 1
    assert share * most == pytest.approx(1, abs=0.05)


def test_a_client_stays_with_its_pod_as_long_as_its_session_is_remembered() -> None:
    service = overlay("redis").front["spec"]
    assert service["sessionAffinity"] == "ClientIP"
    assert service["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] == 3600
