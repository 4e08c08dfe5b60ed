"""The alerts: they can be loaded, wake for what they say and for nothing else, and lead to the runbook."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.deploy.prometheus.server import DEPLOY, SHIPPED, Prometheus, eventually, promtool

LISTED = (DEPLOY / "metrics.md").read_text()
METRIC = re.compile(r"\b(?:sidecar|process)_[a-z_]+\b")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((SHIPPED / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def anchors() -> set[str]:
    headings = re.findall(r"^## (.+)$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_has_a_severity_a_summary_and_a_section_of_the_runbook() -> None:
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in ("critical", "warning", "info"), name
        assert alert["annotations"]["summary"], name
        assert alert["annotations"]["runbook_url"] == f"deploy/runbook.md#{name.lower()}", name
    assert anchors() == {name.lower() for name in ALERTS}


def test_what_the_runbook_says_is_in_the_log_and_in_the_settings_is_there() -> None:
    runbook = (DEPLOY / "runbook.md").read_text()
    sources = "".join(path.read_text() for path in (DEPLOY.parent / "sidecar").rglob("*.py"))
    settings = (DEPLOY.parent / "config.yaml").read_text()
    events = set(re.findall(r"`([a-z]+_[a-z_]+)`", runbook))
    assert {name for name in events if name not in sources + settings and name not in LISTED} == set()
    reasons = set(re.findall(r"\*((?:token|key)_[a-z]+)\*", runbook))
    assert len(reasons) >= 8
    assert {reason for reason in reasons if f'"{reason}"' not in sources} == set()


def test_every_alert_is_tested_for_waking_and_for_letting_sleep() -> None:
    tests = yaml.safe_load((SHIPPED / "alerts_test.yml").read_text())["tests"]
    expected = [(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]]
    assert {name for name, wakes in expected if wakes} == set(ALERTS)
    assert {name for name, wakes in expected if not wakes} == set(ALERTS)


@pytest.mark.prometheus
def test_the_configuration_and_the_rules_can_be_loaded(tools: None) -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")


@pytest.mark.prometheus
def test_the_alerts_wake_for_what_they_say_and_for_nothing_else(tools: None) -> None:
    promtool("test", "rules", "alerts_test.yml")


@pytest.mark.prometheus
def test_every_rule_can_be_evaluated_on_a_real_sidecar(prometheus: Prometheus) -> None:
    found = eventually(lambda: [rule for rule in prometheus.rules() if rule["health"] != "unknown"])
    assert {rule["name"]: rule.get("lastError") for rule in found if rule["health"] != "ok"} == {}
    assert len(found) == len(rules())


@pytest.mark.prometheus
@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_rule_is_about_metrics_that_a_real_sidecar_has(prometheus: Prometheus, rule: dict[str, Any]) -> None:
    names = {name for name in METRIC.findall(rule["expr"]) if not name.startswith("sidecar_failures")}
    for name in names - {"sidecar_requests"}:
        assert prometheus.query(name), name
    prometheus.query(rule["expr"])


@pytest.mark.prometheus
def test_what_was_recorded_tells_whose_fault_failures_were(prometheus: Prometheus) -> None:
    found = eventually(
        lambda: {labels["cause"]: value for labels, value in prometheus.query("job:sidecar_failures:ratio_rate5m > 0")}
    )
    assert found.keys() - {"store"} == {"upstream"}, "it is broken for some; and the store was away for a moment"
    assert 0 < found["upstream"] < 1
    assert {labels["cause"] for labels, _ in prometheus.query("job:sidecar_failures:rate5m")} == {
        *("sidecar", "store", "issuer", "upstream")
    }


@pytest.mark.prometheus
def test_what_is_wrong_in_the_house_is_about_to_wake_somebody_and_nothing_else(prometheus: Prometheus) -> None:
    """Its upstream is broken, one issuer was never there, its certificate soon expires, and it lost its store."""
    expected = {"SidecarUpstreamFailing", "SidecarIssuerKeysMissing", "SidecarCertificateExpiring"}
    may_be = {"SidecarStoreDown", "SidecarStoreFailing", "SidecarStoreSlow", "SidecarAuthFailing", "SidecarGuessing"}

    def pending() -> set[str]:
        return {labels["alertname"] for labels, _ in prometheus.query("ALERTS")}

    found = eventually(lambda: pending() if expected <= pending() else None)
    assert found is not None
    assert found <= expected | may_be
