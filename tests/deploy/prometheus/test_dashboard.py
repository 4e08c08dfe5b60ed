"""The dashboard: one screen, every query of which finds something."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.prometheus.server import DEPLOY, NAMESPACE, Prometheus, eventually

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
SCREEN_ROWS = 25
"""Of 38 pixels each: what a browser on 1080 lines shows in kiosk mode."""
BUILT_IN = {"__rate_interval"}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries() -> list[tuple[str, str]]:
    return [
        (f"{panel['title']} {target['refId']}", target["expr"])
        for panel in panels()
        for target in panel.get("targets", ())
    ]


def filled_in(expression: str) -> str:
    """Put in what Grafana would, with *All* chosen, and rates as of a Prometheus that scrapes once a second."""
    for variable in ("namespace", "job", "instance"):
        expression = expression.replace(f"${variable}", ".*")
    return expression.replace("$__rate_interval", "15s")


def test_it_fits_one_screen_and_nothing_lies_on_top_of_another() -> None:
    shown = [panel["gridPos"] for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert max(place["y"] + place["h"] for place in shown) <= SCREEN_ROWS
    assert all(place["x"] + place["w"] <= 24 for place in shown)
    for one, other in itertools.combinations(shown, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))


def test_its_first_row_asks_whose_fault_it_is() -> None:
    titles = [panel["title"] for panel in DASHBOARD["panels"] if panel["gridPos"]["y"] == 0]
    assert titles[2:] == ["Is it us?", "Is it the store?", "Is it an issuer?", "Is it the upstream?"]


def test_every_query_asks_the_chosen_datasource_for_the_chosen_replicas() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "namespace", "job", "instance"}
    for panel in panels():
        for target in panel.get("targets", ()):
            assert panel["datasource"] == target["datasource"] == DATASOURCE
    annotations = [(note["name"], note["expr"]) for note in DASHBOARD["annotations"]["list"]]
    for name, expression in (*queries(), *annotations):
        assert set(re.findall(r"\$(\w+)", expression)) <= variables | BUILT_IN, name
        selectors = re.findall(r"\b(?:sidecar|process)_\w+|\bup\b", expression)
        chosen = expression.count('namespace=~"$namespace",job=~"$job",instance=~"$instance"')
        assert chosen == len(selectors) > 0, name


def test_no_line_of_it_is_drawn_for_each_replica_but_for_the_busiest_five() -> None:
    for name, expression in queries():
        apart = "by (instance" in expression or not re.match(
            r"\(*(sum|max|avg|count|histogram_quantile|1 -)", expression
        )
        assert not apart or expression.startswith("topk(5,"), name


@pytest.mark.prometheus
@pytest.mark.parametrize(("name", "expression"), queries(), ids=[name for name, _ in queries()])
def test_no_panel_is_empty(prometheus: Prometheus, name: str, expression: str) -> None:
    assert eventually(lambda: prometheus.query(filled_in(expression)))


@pytest.mark.prometheus
@pytest.mark.parametrize("note", DASHBOARD["annotations"]["list"], ids=lambda note: note["name"])
def test_every_annotation_can_be_asked_for(prometheus: Prometheus, note: dict[str, Any]) -> None:
    prometheus.query(filled_in(note["expr"]))


@pytest.mark.prometheus
def test_every_variable_has_values(prometheus: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found is not None
        values = {labels.get(found[2]) for labels in prometheus.series(filled_in(found[1]))}
        assert len(values) == 1, variable["name"]
        assert None not in values
    assert {labels["namespace"] for labels in prometheus.series("sidecar_build_info")} == {NAMESPACE}
