"""The boards say what they answer, show every metric, and lead to what is there."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.metrics import METRICS, USECASE
from tests.integration.panels import boards, panel_queries, panels

REPO = Path(__file__).resolve().parents[3]
PROVISIONING = REPO / "grafana" / "provisioning"
BOARDS = {board["uid"]: board for board in boards()}
TITLES = {
    "pipeline-health": "Pipeline health",
    "data-quality": "Data quality",
    "inference-latency": "Inference latency",
    "model-performance": "Model performance and drift",
    "airflow": "Airflow",
}
PANELS = [
    pytest.param(panel, id=f"{uid}: {panel['title']}")
    for uid, board in BOARDS.items()
    for panel in panels(board)
]
OF_THE_USE_CASE = {"input", "table", "column", "feature", "model", "member", "candidate", "slice"}
OURS = re.compile(r"\bml_[a-z0-9_]+")
PARTS = re.compile("_(bucket|sum|count)$")


def provisioned(kind: str) -> list[dict[str, Any]]:
    files = sorted((PROVISIONING / kind).glob("*.yaml"))
    key = {"datasources": "datasources", "dashboards": "providers"}[kind]
    return [one for file in files for one in yaml.safe_load(file.read_text())[key]]


def metric_of(name: str) -> str:
    """The name in the table: a timer is in three parts in Prometheus."""
    found = name.removeprefix("ml_")
    short = PARTS.sub("", found)
    timer = short in METRICS and METRICS[short].kind == "timer"
    return short if timer and short != found else found


def test_all_boards_are_there_under_names_that_stay() -> None:
    assert {uid: board["title"] for uid, board in BOARDS.items()} == TITLES
    assert {uid: board.get("id") for uid, board in BOARDS.items()} == dict.fromkeys(TITLES)
    assert all(board["description"] for board in BOARDS.values())
    assert all(board["timezone"] == "utc" for board in BOARDS.values())


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_answers_in_which_unit_and_what_is_bad(panel: dict[str, Any]) -> None:
    assert panel["title"].endswith("?")
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    steps = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert steps[0] is None
    assert steps[1:] == sorted(steps[1:])
    assert len(steps) > 1 or "No threshold: " in panel["description"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_a_data_source_that_is_provisioned(panel: dict[str, Any]) -> None:
    known = [{"type": one["type"], "uid": one["uid"]} for one in provisioned("datasources")]
    assert panel["datasource"] in known
    assert panel["targets"]
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    names = [target["refId"] for target in panel["targets"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_do_not_lie_on_each_other(uid: str) -> None:
    found = BOARDS[uid]["panels"]
    numbers = [panel["id"] for panel in found]
    assert len(numbers) == len(set(numbers))
    for panel in found:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, panel["title"]
    for one, other in combinations(found, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one["title"], other["title"])


def test_queries_name_only_metrics_of_the_table_and_their_labels() -> None:
    for uid, title, expression in panel_queries():
        names = {metric_of(name) for name in OURS.findall(expression)}
        assert names <= set(METRICS), (uid, title)
        for name, selector in re.findall(r"\b(ml_\w+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            assert asked <= {USECASE, *METRICS[metric_of(name)].labels}, (uid, title)
        for by in re.findall(r"\bby \(([^)]*)\)", expression) if names else ():
            known = {"le", USECASE}.union(*(METRICS[name].labels for name in names))
            assert set(by.split(", ")) <= known, (uid, title)


def test_every_metric_of_the_table_is_on_a_board() -> None:
    shown = {metric_of(name) for *_, query in panel_queries() for name in OURS.findall(query)}
    assert shown == set(METRICS)


@pytest.mark.parametrize("panel", PANELS)
def test_legends_and_links_use_labels_that_the_query_keeps(panel: dict[str, Any]) -> None:
    kept = [
        {
            label
            for by in re.findall(r"\bby \(([^)]*)\)", target["expr"])
            for label in by.split(", ")
        }
        for target in panel["targets"]
    ]
    for target, labels in zip(panel["targets"], kept, strict=True):
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
    links = str(panel["fieldConfig"])
    wanted = set(re.findall(r"__(?:field\.labels|data\.fields)\.(\w+)", links))
    assert all(wanted <= labels for labels in kept)


@pytest.mark.parametrize("uid", BOARDS)
def test_links_lead_to_boards_and_dags_that_exist(uid: str) -> None:
    board, text = BOARDS[uid], str(BOARDS[uid])
    tags = {tag for other in BOARDS.values() for tag in other["tags"]}
    assert any(link["type"] == "dashboards" for link in board["links"])
    for link in board["links"]:
        assert link["type"] != "dashboards" or set(link["tags"]) <= tags
        assert set(board["tags"]) >= set(link["tags"])
    assert set(re.findall(r"/d/([\w-]+)", text)) <= set(BOARDS)
    dags = {path.stem for path in (REPO / "dags").glob("*.py")} - {"broken_usecases"}
    of_panel = r"\$\{__(?:field\.labels|data\.fields)\.\w+\}"
    for place in re.findall(r"/dags/([^'\"]+)/runs", text):
        if place != "${__field.labels.dag_id}":  # Airflow's own
            usecase, pipeline = re.fullmatch(rf"({of_panel})\.(\w+|{of_panel})", place).groups()
            assert usecase.endswith(".usecase}")
            assert pipeline in dags or pipeline.endswith(".dag}")


@pytest.mark.parametrize("uid", BOARDS)
def test_a_board_shows_any_use_case_and_keeps_it_on_the_way_to_another(uid: str) -> None:
    board = BOARDS[uid]
    first, *others = board["templating"]["list"]
    assert (first["name"], first["multi"], first["includeAll"]) == (USECASE, True, True)
    assert first["current"]["value"] == ["$__all"]
    for variable in others:
        if variable["type"] == "query":
            assert "$usecase" in variable["query"]["query"], variable["name"]
    for link in board["links"]:
        assert link["includeVars"] == (link["type"] == "dashboards")
    for url in re.findall(r"'url': '(/d/[^']+)'", str(board)):
        assert url.endswith("&${usecase:queryparam}")
    [alerts] = [one for one in board["annotations"]["list"] if "expr" in one]
    assert 'usecase=~"$usecase|"' in alerts["expr"], "the platform's alerts have none"
    assert "{{usecase}}" in alerts["titleFormat"]


def test_a_variable_that_links_take_to_another_board_means_the_same_there() -> None:
    asked: dict[str, set[str]] = {}
    for board in BOARDS.values():
        for variable in board["templating"]["list"]:
            asked.setdefault(variable["name"], set()).add(str(variable["query"]))
    assert {name for name, queries in asked.items() if len(queries) > 1} == set()


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_distinguishes_use_cases(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        expression = target["expr"]
        if "ALERTS" in expression:
            assert 'usecase=~"$usecase|"' in expression
        if "dag_id" in expression:
            assert 'dag_id=~"$usecase[.]' in expression
        series = OURS.findall(expression)
        assert expression.count('usecase=~"$usecase"') == len(series)
        if not series or panel["type"] == "heatmap":  # which shows all that are chosen together
            continue
        groups = re.findall(r"\b(?:max|min|sum|count|avg)\b *(.{0,12})", expression)
        assert len(groups) == len(series)
        assert all(how.startswith("by (usecase") for how in groups)
        assert target["legendFormat"] == "__auto" or "{{usecase}}" in target["legendFormat"]


@pytest.mark.parametrize("uid", BOARDS)
def test_a_query_uses_the_variables_that_its_board_has(uid: str) -> None:
    has = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
    used = re.findall(r"(?<![\w$])\$\{?([a-z]\w*)", str(BOARDS[uid]["panels"]))
    assert set(used) <= has


def test_alerts_lead_to_boards_and_set_variables_that_these_have() -> None:
    rules = "\n".join(path.read_text() for path in (REPO / "prometheus" / "rules").glob("*.yml"))
    links = re.findall(r"/d/([\w-]+)\??(\S*)", rules)
    assert links
    for uid, query in links:
        has = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= has


def test_grafana_finds_boards_and_servers_where_compose_puts_them() -> None:
    services = yaml.safe_load((REPO / "docker-compose.yaml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    [boards_at] = [one["options"]["path"] for one in provisioned("dashboards")]
    assert mounts["./grafana/dashboards"] == boards_at
    for one in provisioned("datasources"):
        assert re.fullmatch(r"http://([\w-]+):\d+", one["url"])[1] in services


def test_a_query_names_no_input_column_feature_or_model_of_a_use_case() -> None:
    """So that the boards show any: what they name is the library's, the rest is chosen on them."""
    known = {"champion", "all", "validated", "actuals", "predictions", "ensemble_predictions"}
    for uid, title, expression in panel_queries():
        for label, value in re.findall(r'\b(\w+)=~?"([^"]*)"', expression):
            if label in OF_THE_USE_CASE:
                names = {name for name in value.split("|") if name not in (f"${label}", ".+")}
                assert names <= known, (uid, title, label)
