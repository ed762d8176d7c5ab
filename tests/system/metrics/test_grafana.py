"""docker/grafana: every metric and label that the dashboard and the alerts name exists."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from tests.support.paths import ROOT

FOLDER = ROOT / "docker" / "grafana"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
QUERIES = {
    **{rule["alert"]: rule["expr"] for rule in ALERTS},
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    },
}
NAME = re.compile(r"\b(?:xalora|process)_[a-z_]+\b")
SELECTOR = re.compile(r"\b((?:xalora|process)_[a-z_]+)\{([^}]*)\}")
GIVEN_BY_PROMETHEUS = {"instance", "job"}


def series(families):
    """Name of a series → the names of its labels."""
    return {sample.name: set(sample.labels) for family in families.values() for sample in family.samples} | {
        family.name: {"gpu", "lane"} for family in families.values() if not family.samples
    }


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_names_metrics_and_labels_that_a_real_run_shows(families, query):
    known = series(families)
    assert set(NAME.findall(query)) <= set(known)
    for name, inside in SELECTOR.findall(query):
        labels = set(re.findall(r"(\w+)\s*[=!]", inside))
        assert labels - GIVEN_BY_PROMETHEUS <= known[name]


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_closes_what_it_opens(query):
    for opening, closing in ("()", "{}", "[]"):
        assert query.count(opening) == query.count(closing)
    assert query.count('"') % 2 == 0


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_says_what_happened_where_and_what_to_do_next(rule):
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
    assert rule["annotations"]["next"].endswith(".")
    assert rule["alert"].startswith("Xalora")


def test_the_alerts_that_are_promised_are_there():
    promised = {"XaloraNothingAnswered", "XaloraTasksFail", "XaloraOutboxGrows", "XaloraGpuHot", "XaloraDiskLow"}
    assert promised <= {rule["alert"] for rule in ALERTS}


def test_panels_do_not_overlap_and_have_one_datasource():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    sources = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())}
    assert sources == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
