"""The metrics are those that metrics.md lists, no more and no fewer, and as Prometheus wants them."""

from __future__ import annotations

import re

import httpx
import pytest

from sidecar.edge.telemetry_sum import OF_GAUGES
from tests.deploy.prometheus.house import House
from tests.deploy.prometheus.server import DEPLOY, Prometheus, eventually, promtool

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (\w+) \| .+ \|$", re.MULTILINE)
OF_THE_SCRAPE = {"__name__", "job", "instance", "namespace", "le"}
TOGETHER = {"sum": "add", "least": "min", "most": "max"}


def listed() -> dict[str, tuple[str, set[str], str]]:
    """Return type, labels and what several workers have together, by name."""
    rows = ROW.findall((DEPLOY / "metrics.md").read_text())
    return {name: (kind, set(re.findall(r"`(\w+)`", labels)), together) for name, kind, labels, together in rows}


def test_the_list_says_of_gauges_what_several_workers_have_together() -> None:
    gauges = {name: TOGETHER[together] for name, (kind, _, together) in listed().items() if kind == "gauge"}
    ours = {name: how.__name__ for name, how in OF_GAUGES.items() if name.startswith("sidecar_")}
    assert gauges == ours
    assert all(together == "sum" for kind, _, together in listed().values() if kind != "gauge")


@pytest.mark.prometheus
def test_a_real_sidecar_has_what_is_listed_and_nothing_else(prometheus: Prometheus) -> None:
    def found() -> dict[str, set[str]]:
        labels: dict[str, set[str]] = {}
        for series in prometheus.series('{__name__=~"sidecar_.+"}'):
            name = re.sub(r"_(bucket|count|sum)$", "", series["__name__"])
            labels.setdefault(name, set()).update(series.keys() - OF_THE_SCRAPE)
        return labels

    expected = {name: labels for name, (_, labels, _) in listed().items()}
    eventually(lambda: expected.keys() <= found().keys())
    assert found() == expected, "what only some settings bring has to be set in house.py"


@pytest.mark.prometheus
def test_promtool_has_nothing_against_the_metrics(prometheus: Prometheus, house: House) -> None:
    text = httpx.get(f"{house.admin_url}/metrics", trust_env=False).text
    assert promtool("check", "metrics", stdin=text) == ""
    types = dict(re.findall(r"^# TYPE (sidecar_\w+) (\w+)$", text, re.MULTILINE))
    assert types == {name: kind for name, (kind, _, _) in listed().items()}
