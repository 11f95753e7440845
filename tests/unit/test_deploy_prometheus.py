"""Alert rules and the dashboard: each expression is one, each figure it names exists, each alert fires and is quiet."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from tests.support.alerts import FIRES, rule_test

from authz_service.telemetry import Metrics

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
QUIET = ROOT / "deploy" / "prometheus" / "alerts_test.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "authz-service.json"
CHART_FILES = ROOT / "deploy" / "helm" / "authz-service" / "files"
OBSERVING = ROOT / "docs" / "operations" / "observing.md"
OF_PROMETHEUS = {"up"}
ABOUT_THE_SCRAPE = {"job", "instance"}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's prometheus")


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return group["rules"]


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard with its panel's title, with the dashboard's variables filled in."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "5m")
            yield panel["title"], re.sub(r'"\$(job|instance)"', '".*"', expression)


def exposed() -> dict[str, set[str]]:
    """The series that `/metrics` shows, and their labels."""
    found: dict[str, set[str]] = {}
    metrics = Metrics()
    for collector in {id(one): one for one in metrics.registry._names_to_collectors.values()}.values():
        [family] = collector.describe()
        labels = set(collector._labelnames)
        for name in metrics.registry._get_names(collector):
            found[name] = labels | ({"le"} if family.type == "histogram" else set())
    return found


def selectors(node: promql_parser.Expr) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector", "selector", "vs"):
        below = getattr(node, name, None)
        if isinstance(below, promql_parser.Expr):
            yield from selectors(below)
    for below in getattr(node, "args", None) or ():
        yield from selectors(below)


def grouped_by(node: promql_parser.Expr) -> set[str]:
    """Labels that aggregations keep."""
    return set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", str(node.prettify())))))


def expressions() -> list[tuple[str, str]]:
    return [(rule["alert"], rule["expr"]) for rule in rules()] + list(queries())


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_an_expression_parses_and_names_figures_and_labels_that_there_are(where, expression):
    parsed = promql_parser.parse(expression)
    shown = exposed()
    named = list(selectors(parsed))
    assert named
    assert len(named) == len(re.findall(r"\b(?:authz_\w+|up)\b", re.sub(r'"[^"]*"', "", expression))), "all were seen"
    known = set(ABOUT_THE_SCRAPE)
    for selector in named:
        if selector.name not in OF_PROMETHEUS:
            assert selector.name in shown, f"`{selector.name}` of {where} is not in /metrics"
            known |= shown[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in known
    assert grouped_by(parsed) <= known


def test_every_figure_stands_on_the_dashboard_but_those_that_say_what_runs():
    text = DASHBOARD.read_text()
    left_out = {"authz_sweep_finished_timestamp_seconds"}
    for family in Metrics().registry.collect():
        assert family.name in text or family.name in left_out, family.name


def test_the_dashboard_asks_the_data_source_that_is_chosen_and_numbers_its_panels_once():
    found = dashboard()
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in found["panels"]:
        for part in (panel, *panel.get("targets", ())) if panel["type"] != "row" else ():
            assert part["datasource"] == chosen
    places = [tuple(panel["gridPos"].values()) for panel in found["panels"]]
    assert len(places) == len(set(places))
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in found["panels"])


def test_legends_name_labels_that_the_query_keeps():
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            kept = grouped_by(promql_parser.parse(target["expr"].replace("$__rate_interval", "5m")))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    text = OBSERVING.read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert rule["annotations"]["runbook"] == f"docs/operations/observing.md#{rule['alert'].lower()}"
        assert f"### {rule['alert']}\n" in text, f"docs/operations/observing.md says nothing of {rule['alert']}"


def test_the_chart_carries_the_same_alerts_and_dashboard():
    assert (CHART_FILES / "alerts.yaml").read_text() == RULES.read_text(), "copy deploy/prometheus/alerts.yaml there"
    assert (CHART_FILES / "dashboard.json").read_text() == DASHBOARD.read_text(), "copy deploy/grafana/ there"


def test_every_alert_has_figures_that_fire_it():
    assert set(FIRES) == {rule["alert"] for rule in rules()}
    quiet = yaml.safe_load(QUIET.read_text())["tests"][0]["alert_rule_test"]
    assert {one["alertname"] for one in quiet} == set(FIRES)


@needs_promtool
def test_prometheus_takes_the_rules():
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_healthy_service_fires_nothing():
    done = promtool("test", "rules", str(QUIET))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_alert_fires_on_what_it_is_for(tmp_path):
    done = run_fires(tmp_path, FIRES.keys())
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_service_that_nobody_scrapes_is_down(tmp_path):
    bare = write_bare_rules(tmp_path)
    test = {
        "rule_files": [bare.name],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": 'up{job="other"}', "values": "1x20"}],
                "alert_rule_test": [
                    {
                        "eval_time": "3m",
                        "alertname": "AuthzDown",
                        "exp_alerts": [{"exp_labels": {"severity": "critical", "job": "authz-service"}}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", str(tmp_path / "test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_an_alert_that_does_not_fire_is_noticed(tmp_path):
    text = RULES.read_text()
    weaker = text.replace('max(authz_rewound{job="authz-service"}) > 0', 'max(authz_rewound{job="authz-service"}) > 1')
    assert weaker != text
    done = run_fires(tmp_path, ["AuthzRewound"], text=weaker)
    assert done.returncode != 0


@needs_promtool
def test_prometheus_takes_what_the_service_shows():
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=Metrics().render(), capture_output=True, timeout=120, check=False
    )
    # Status 3 are its opinions on names; what it cannot read is 1.
    assert done.returncode in (0, 3), done.stderr
    assert done.stderr == b"", done.stderr.decode()


def run_fires(folder: Path, names: Any, text: str | None = None) -> subprocess.CompletedProcess[str]:
    bare = write_bare_rules(folder, text)
    test = rule_test(bare.name, {rule["alert"]: rule["labels"]["severity"] for rule in rules()})
    test["tests"] = [one for one in test["tests"] if one["name"] in set(names)]
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    return promtool("test", "rules", str(folder / "test.yaml"))


def write_bare_rules(folder: Path, text: str | None = None) -> Path:
    found = yaml.safe_load(text or RULES.read_text())
    for rule in found["groups"][0]["rules"]:
        del rule["annotations"]
    bare = folder / "bare.yaml"
    bare.write_text(yaml.safe_dump(found))
    return bare


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)
