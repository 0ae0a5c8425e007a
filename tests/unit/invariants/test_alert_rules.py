"""Every alert says what it means, links to its fix, and queries metrics that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from include import metrics
from include.usecase import OWN_MODELS
from tests.alerts import ALERTS, RULES, metric_of

REPO = Path(__file__).resolve().parents[3]
BOARDS = {"pipeline-health", "data-quality", "inference-latency", "model-performance", "airflow"}
FROM_PROMETHEUS = {"le", "job", "instance"}
OF_THE_USE_CASE = {"input", "table", "column", "feature", "model", "member", "candidate", "slice"}

CASES = yaml.safe_load((REPO / "prometheus/tests/alerts_test.yml").read_text())["tests"]
RUNBOOK = (REPO / "docs/runbook.md").read_text()

PIPELINES = {path.stem for path in (REPO / "dags").glob("*.py")} - {"broken_usecases"}
PLATFORM = {
    rule["alert"]
    for group in RULES["groups"]
    for rule in group["rules"]
    if group["name"] == "platform"
}

each_alert = pytest.mark.parametrize("name", ALERTS)


def metrics_in(expression: str) -> list[tuple[str, set[str]]]:
    """Our metrics in an expression, each with the labels that it is selected by."""
    found = re.findall(r"\bml_(\w+)(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)\s*(?:=|!)", labels))) for name, labels in found]


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", RUNBOOK, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_no_alert_has_the_name_of_another() -> None:
    assert len(ALERTS) == sum(len(group["rules"]) for group in RULES["groups"])


@each_alert
def test_an_alert_has_all_that_a_person_needs(name: str) -> None:
    rule = ALERTS[name]
    notes = rule["annotations"]
    assert rule["labels"]["severity"] in ("page", "warning")
    assert notes["summary"]
    assert "\n" not in notes["summary"]
    assert notes["description"]
    server, board, *_ = re.split(r"/d/|\?", notes["dashboard"])
    assert server == "{{ $externalLabels.grafana }}"
    assert board in BOARDS
    assert notes["runbook_url"] == f"{{{{ $externalLabels.runbook }}}}#{name.lower()}"


@each_alert
def test_an_alert_about_a_dag_leads_to_its_runs(name: str) -> None:
    rule = ALERTS[name]
    if "dag" in rule["labels"] or re.search(r"by \([^)]*\bdag\b|\"dag\"", rule["expr"]):
        link = rule["annotations"]["dag_runs"]
        runs = r"\{\{ \$externalLabels.airflow \}\}/dags/\{\{ \$labels.usecase \}\}\.([^/]+)/runs"
        found = re.fullmatch(runs, link)
        assert found, link
        assert found[1] in {"{{ $labels.dag }}", *PIPELINES}


@each_alert
def test_an_alert_on_our_metrics_is_about_one_use_case_and_names_it(name: str) -> None:
    """So that what happens to one neither fires nor ends an alert about another."""
    rule = ALERTS[name]
    ours = metrics_in(rule["expr"])
    notes = rule["annotations"]
    assert notes["summary"].startswith("{{ $labels.usecase }}: ") == bool(ours)
    assert ("?var-usecase={{ $labels.usecase }}" in notes["dashboard"]) == bool(ours)
    if ours:
        expression = rule["expr"]
        grouped = re.findall(r"\b(?:max|min|sum|count|avg)\b *(.{0,12})", expression)
        assert len(grouped) >= len(ours)
        assert all(how.startswith("by (usecase") for how in grouped), expression
        matched = re.findall(r"\bon \(([^)]*)\)", expression)
        assert all("usecase" in re.split(", *", labels) for labels in matched), expression
        assert "vector(" not in expression


def test_alerts_of_two_use_cases_are_neither_grouped_nor_silenced_together() -> None:
    told = yaml.safe_load((REPO / "prometheus/alertmanager.yml").read_text())
    assert "usecase" in told["route"]["group_by"]
    assert not any("group_by" in route for route in told["route"]["routes"])
    for rule in told["inhibit_rules"]:
        assert "usecase" in rule.get("equal", []) or all(
            set(re.findall(r"[A-Z]\w+", matcher)) <= PLATFORM for matcher in rule["source_matchers"]
        ), rule


def test_every_alert_on_our_metrics_has_a_case_with_a_second_use_case_that_is_well() -> None:
    of_two = [case for case in CASES if 'usecase="other"' in str(case["input_series"])]
    expected = str([one["exp_samples"] for case in of_two for one in case["promql_expr_test"]])
    for name in set(ALERTS) - PLATFORM:
        assert f'usecase="one",alertname="{name}"' in expected, name
    assert 'usecase="other"' not in expected


def test_the_runbook_has_a_section_for_every_alert_and_for_nothing_else() -> None:
    assert list(sections()) == list(ALERTS)


@each_alert
def test_a_section_of_the_runbook_has_its_three_parts(name: str) -> None:
    parts = re.findall(r"^\*\*(.+?)\.\*\*", sections()[name], flags=re.MULTILINE)
    assert parts == ["What it means", "How to look", "How to fix it"]


@each_alert
def test_our_metrics_of_an_alert_are_in_the_table_with_their_labels(name: str) -> None:
    expression = ALERTS[name]["expr"]
    labels = set()
    for metric_name, selected in metrics_in(expression):
        metric = metric_of(metric_name)
        assert metric is not None, f"ml_{metric_name} is not in include/metrics.TABLE"
        known = {metrics.USECASE, *metric.labels}
        labels |= known
        assert selected <= known
    if labels:
        grouped = ",".join(re.findall(r"by \(([^)]*)\)", expression))
        assert set(re.findall(r"\w+", grouped)) <= labels | FROM_PROMETHEUS


@each_alert
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_quiet(name: str) -> None:
    selector = f'ALERTS{{alertname="{name}",alertstate="firing"'
    expected: list[list[Any]] = [
        one["exp_samples"]
        for case in CASES
        for one in case["promql_expr_test"]
        if selector in one["expr"]
    ]
    assert any(expected), "it never fires"
    assert not all(expected), "it is never quiet"


THE_LIBRARYS = {"validated", "predictions", "ensemble_predictions", *OWN_MODELS}
"""Names of its own tables and models, the slice of all rows among them."""


@each_alert
def test_an_alert_names_no_input_feature_or_model_of_a_use_case(name: str) -> None:
    for label, value in re.findall(r'\b(\w+)=~?"([^"]*)"', ALERTS[name]["expr"]):
        assert label not in OF_THE_USE_CASE or set(value.split("|")) <= THE_LIBRARYS


def test_every_dag_has_an_alert_on_its_failed_runs() -> None:
    asked = " ".join(re.findall(r'ml_run_failed_timestamp_seconds\{dag=~?"([^"]+)"', str(ALERTS)))
    assert set(re.split(r"[ |]", asked)) == PIPELINES


def test_links_lead_where_compose_puts_the_servers() -> None:
    compose = yaml.safe_load((REPO / "docker-compose.yaml").read_text())["services"]
    given = compose["prometheus"]["environment"]
    prometheus = yaml.safe_load((REPO / "prometheus/prometheus.yml").read_text())
    labels = prometheus["global"]["external_labels"]
    assert labels == {
        name: f"${{{name.upper()}_URL}}" for name in ("airflow", "grafana", "runbook")
    }
    assert set(given) == {value.strip("${}") for value in labels.values()}
    for server, service in (("airflow", "airflow-apiserver"), ("grafana", "grafana")):
        published = compose[service]["ports"][0].rpartition(":")[0]
        assert given[f"{server.upper()}_URL"] == f"http://{published}"
    [relabel] = prometheus["alerting"]["alert_relabel_configs"]
    assert set(relabel["regex"].split("|")) == set(labels)
