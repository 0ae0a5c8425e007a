"""Real days through the running stack: numbers, alerts, killed workers, restarted servers."""

import json
import re
import subprocess
import time
from typing import Any

import httpx
import pytest

from include.usecase import UseCase
from local.client import poll
from tests.case import CASE
from tests.integration.conftest import DAYS, OTHER, REPO, YESTERDAY, Stack
from tests.integration.panels import panel_queries, without_fallback

SCRAPE_SECONDS = 20

Days = dict[UseCase, list[str]]

each_case = pytest.mark.parametrize("case", [CASE, OTHER], ids=str)

SERIES = re.compile(r"\b(?:ml|airflow|up|alertmanager|statsd_exporter)\w*(?:\{[^}]*\})?|\{[^}]*\}")
"""The series that an expression looks at."""


NOT_WHEN_ALL_IS_WELL = {
    "ALERTS",
    "airflow_scheduler_tasks_killed_externally_total",
    "airflow_task_instances_without_heartbeats_killed_total",
    "ml_pages_total",
    "ml_profiles_outlier_share",  # not after so few days
    "ml_quarantined_rows_total",
    "statsd_exporter_events_conflict_total",
    "statsd_exporter_events_error_total",
    "statsd_exporter_sample_errors_total",
}
"""What boards ask for that is not there yet, so that they show 0 or "none" instead."""


def posted_alerts(stack: Stack) -> list[dict[str, Any]]:
    """Every alert that has reached the receiver, oldest first."""
    lines = stack.compose("logs", "--no-log-prefix", "--no-color", "receiver").splitlines()
    posts = [
        line[line.index("{") :] for line in lines if "{" in line
    ]  # a terminal's codes before it
    return [alert for post in posts for alert in json.loads(post)["alerts"]]


def assert_complete(stack: Stack, key: str) -> None:
    """Nothing of a day is lost, and nothing is there twice."""
    day = stack.python("facts.py", CASE.name, "day", key)
    for table in ("predictions", "ensemble_predictions"):
        assert day[table] == day["validated"] - day["rejected"] > 0
        assert day[f"{table} twice"] == 0


def tries(stack: Stack, pipeline: str, key: str) -> dict[str, int]:
    """How often each task of a day's run was tried, at most."""
    dag_id = CASE.dag_id(pipeline)
    [run] = stack.airflow.runs(dag_id, partition_key_pattern=key)
    found: dict[str, int] = {}
    for task in stack.airflow.task_instances(dag_id, run["dag_run_id"]):
        found[task["task_id"]] = max(found.get(task["task_id"], 0), task["try_number"])
    return found


def test_make_up_says_where_everything_is(running: Stack) -> None:
    done = subprocess.run(
        ["make", "up"], cwd=running.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for service, port in (("airflow-apiserver", 8080), ("prometheus", 9090), ("mlflow", 5000)):
        assert running.address(service, port) in done.stdout


def test_every_port_is_open_to_this_machine_only(running: Stack) -> None:
    listed = running.compose("ps", "--format", "{{.Ports}}")
    published = [part for line in listed.split() for part in line.split(",") if "->" in part]
    assert len(published) >= 5
    assert [part for part in published if not part.startswith("127.0.0.1:")] == []


def test_no_container_runs_as_root(running: Stack) -> None:
    for service in running.compose("ps", "--services").split():
        assert running.compose("exec", "-T", service, "id", "-u").strip() != "0", service


def test_no_dag_fails_to_import_and_every_member_has_its_pool(running: Stack) -> None:
    assert running.airflow.import_errors() == []
    pools = {pool["name"] for pool in running.airflow.request("GET", "/pools")["pools"]}
    pipelines = {path.stem for path in (REPO / "dags").glob("*.py")} - {"broken_usecases"}
    for case in (CASE, OTHER):
        assert {case.pool(member) for member in case.members} <= pools
    dags = {dag["dag_id"] for dag in running.airflow.dags()}
    assert dags == {case.dag_id(one) for case in (CASE, OTHER) for one in pipelines}


def test_without_a_login_airflow_says_nothing(running: Stack) -> None:
    url = running.address("airflow-apiserver", 8080)
    assert httpx.get(f"{url}/api/v2/dags", trust_env=False).status_code == 401
    for path in ("/model-health/", f"/model-health/{CASE}", f"/reports/{OTHER}/2013-01-22"):
        answer = httpx.get(url + path, trust_env=False)
        assert "/auth/login" in answer.headers["Location"]
        assert answer.text == ""


def told(stack: Stack, status: str, case: UseCase) -> dict[str, Any] | None:
    """The first time that the receiver was told of a failed validation, or of its end."""
    wanted = ("ValidationFailing", case.name, status)
    for alert in posted_alerts(stack):
        labels = alert["labels"]
        if (labels["alertname"], labels.get("usecase"), alert["status"]) == wanted:
            return alert
    return None


@each_case
def test_a_failed_validation_reaches_a_person_with_board_and_runbook(
    stack: Stack, case: UseCase
) -> None:
    fired = poll(lambda: told(stack, "firing", case), 300, every=2)
    assert fired["labels"]["severity"] == "page"
    notes = fired["annotations"]
    assert notes["runbook_url"].endswith("#validationfailing")
    assert notes["summary"].startswith(f"{case}: ")
    runs = f"{stack.address('airflow-apiserver', 8080)}/dags/{case}.data_validation/runs"
    assert notes["dag_runs"] == runs
    board = rf"http://127.0.0.1:\d+/d/data-quality\?var-usecase={case}"
    assert re.fullmatch(board, notes["dashboard"])
    assert set(fired["labels"]) == {"alertname", "dag", "severity", "usecase"}


@each_case
def test_counters_come_to_what_the_lake_holds(stack: Stack, days: Days, case: UseCase) -> None:
    def value(name: str, **labels: str) -> float:
        chosen = ",".join(f'{label}="{one}"' for label, one in {"usecase": case, **labels}.items())
        return stack.value(f"{name}{{{chosen}}}")

    time.sleep(SCRAPE_SECONDS)
    found = stack.python("facts.py", case.name, "counts")
    for table, rows in found["published"].items():
        if (table, len(days[case])) == ("outcomes", 1):  # whose truth comes with the next day
            assert rows == 0
            continue
        assert value("ml_published_rows_total", table=table) == rows > 0, table
    for name, results in found["validated"].items():
        for result, rows in results.items():
            labels = {"input": name, "result": result}
            assert value("ml_validation_rows_total", **labels) == rows, labels
    for model, chunks in found["chunks"].items():
        assert value("ml_inference_seconds_count", model=model) == chunks > 0, model
    for model, rows in found["scored"].items():
        assert value("ml_scored_rows_total", model=model) == rows > 0, model
    published = found["published"]["predictions"]
    if case is CASE:
        assert found["scored"][found["model"]] == 2 * published, "the champion, and its shadow"
        assert found["paths"] == {"champion": published, "challenger": 0}
        for path, rows in found["paths"].items():
            assert value("ml_path_rows_total", path=path) == rows, path
        assert value("ml_state_path_available", path="challenger") == 1
    else:
        assert found["scored"][found["model"]] == published
    for dag in ("batch_inference", "ensemble_inference"):
        passed = {"dag": dag, "stage": "infer", "result": "passed"}
        assert value("ml_stage_runs_total", **passed) == len(days[case])
    assert value("ml_ensemble_runs_total", fallback="ensemble") == len(days[case])
    assert value("ml_champion_version") == int(found["champion"])


@each_case
def test_gauges_are_the_figures_of_the_history(stack: Stack, days: Days, case: UseCase) -> None:
    figures = stack.python("facts.py", case.name, "figures", days[case][-1])
    assert len(figures) > (200 if case is CASE else 50)
    said = {
        (name, frozenset(series["metric"].items())): float(series["value"][1])
        for name in {figure["name"] for figure in figures}
        for series in stack.query(f"ml_{name}")
    }
    server = {"instance": "statsd-exporter:9102", "job": "statsd-exporter", "usecase": case.name}
    for figure in figures:
        labels = {"__name__": f"ml_{figure['name']}", **figure["labels"], **server}
        value = said[figure["name"], frozenset(labels.items())]
        assert str(value) == str(figure["value"]), figure  # NaN too


def test_every_figure_of_the_project_is_about_one_use_case(stack: Stack, days: Days) -> None:
    found = stack.query('count by (usecase) ({__name__=~"ml_.+"})')
    assert {series["metric"].get("usecase") for series in found} == {CASE.name, OTHER.name}


def test_airflows_own_metrics_come_once_and_with_labels(stack: Stack, days: Days) -> None:
    for case, keys in days.items():
        labels = f'dag_id="{case}.batch_inference",task_id="publish",state="success"'
        assert stack.value(f"airflow_ti_finish_total{{{labels}}}") == len(keys)
    assert stack.query('{__name__=~"airflow_.*batch_inference.*"}') == []
    stack.tell_exporter("airflow.dag_processing.processes,action=stop:-1|c")  # as Airflow does
    time.sleep(SCRAPE_SECONDS)
    assert stack.value("sum(statsd_exporter_events_conflict_total) or vector(0)") == 0
    assert stack.value("sum(statsd_exporter_events_error_total) or vector(0)") == 0


@pytest.mark.parametrize("component", ["scheduler", "dag_processor", "triggerer", "worker"])
def test_every_component_beats(stack: Stack, days: Days, component: str) -> None:
    assert stack.value(f"sum(rate(airflow_{component}_heartbeat_total[2m]))") > 0


def test_every_query_of_every_board_returns_data(stack: Stack, days: Days) -> None:
    queries = panel_queries()
    empty = [query for query in queries if not stack.query(query[-1])]
    assert empty == []
    without_data = {
        series
        for *_, expression in queries
        if not stack.query(without_fallback(expression))
        for series in re.findall(r"\b(?:ml|airflow|statsd|alertmanager)_\w+|ALERTS", expression)
    }
    assert without_data <= NOT_WHEN_ALL_IS_WELL


def test_every_alert_can_be_answered_and_what_it_looks_at_is_there(
    stack: Stack, days: Days
) -> None:
    """A rule that names what nobody sends would be quiet for ever."""
    rules = httpx.get(f"{stack.address('prometheus', 9090)}/api/v1/rules", trust_env=False).json()
    alerts = [rule for group in rules["data"]["groups"] for rule in group["rules"]]
    assert len(alerts) > 12
    wrong = {rule["name"]: rule.get("lastError") for rule in alerts if rule["health"] != "ok"}
    assert wrong == {}
    looked_at = {
        # Of a DAG that has never failed there is only when it succeeded.
        (rule["name"], found.replace("ml_run_failed", "ml_run_succeeded"))
        for rule in alerts
        for found in SERIES.findall(rule["query"])
    }
    assert {name for name, _ in looked_at} == {rule["name"] for rule in alerts}
    assert [pair for pair in sorted(looked_at) if not stack.query(pair[1])] == []


@each_case
def test_model_health_and_the_days_report_are_in_airflow(
    stack: Stack, days: Days, case: UseCase
) -> None:
    page = stack.airflow.page(f"/model-health/{case}")
    champion = stack.python("facts.py", case.name, "counts")["champion"]
    assert f"Version {champion}" in page
    assert all(key in page for key in days[case])
    other = OTHER if case is CASE else CASE
    assert f'href="/model-health/{other}"' in page
    assert days[case][-1] in stack.airflow.page(f"/reports/{case}/{days[case][-1]}")


def test_the_model_server_answers_with_the_champion_of_each_use_case(
    stack: Stack, days: Days
) -> None:
    for case in days:
        [remote] = [member.name for member in case.members if member.kind == "remote"]
        answered = f'ml_ensemble_member_available{{usecase="{case}",member="{remote}"}}'
        assert stack.value(answered) == 1


def test_a_scored_day_is_in_the_warehouse(stack: Stack, days: Days) -> None:
    [day] = DAYS[OTHER]
    query = f"SELECT count(*), count(DISTINCT person) FROM expected_visits WHERE day = '{day}'"
    psql = ("exec", "-T", "postgres", "psql", "-U", "airflow", "-d", "warehouse", "-tAc", query)
    poll(lambda: stack.compose(*psql).strip() == "160|160", timeout=120)


def test_rows_come_from_the_stacks_postgres_by_a_query(stack: Stack, days: Days) -> None:
    [day] = DAYS[OTHER]
    found = stack.python("query.py", day, where="airflow-worker")
    assert found == {"rows": 160, "days": [day], "parameters": {"day": day}}


def test_a_day_that_is_repaired_as_the_runbook_says_is_scored(stack: Stack, days: Days) -> None:
    file = f"data/lake/{CASE}/landing/{CASE.inputs[0].name}/{YESTERDAY}.parquet"
    stack.compose("exec", "-T", "airflow-worker", "rm", file)
    dag_id = CASE.dag_id("data_validation")
    *_, run = stack.airflow.runs(dag_id, partition_key_pattern=YESTERDAY)
    stack.airflow.clear(dag_id, run["dag_run_id"])
    stack.end_day(YESTERDAY)
    assert_complete(stack, YESTERDAY)


def test_a_worker_killed_in_the_middle_of_a_chunk_loses_nothing(stack: Stack, days: Days) -> None:
    key = "2013-01-25"
    server = stack.address("model-server", 8500)
    faults = httpx.Client(base_url=server, trust_env=False)
    asked = faults.get("/faults/counts").json()["requests"]
    faults.put("/faults", json={"delay_seconds": 8}).raise_for_status()
    stack.start_day(key)
    poll(lambda: faults.get("/faults/counts").json()["requests"] > asked, 300, every=0.1)
    stack.compose("kill", "--signal", "KILL", "airflow-worker")
    faults.put("/faults", json={}).raise_for_status()
    stack.compose("up", "--detach", "--wait", "--no-recreate", "airflow-worker")
    stack.end_day(key)
    assert_complete(stack, key)
    assert max(tries(stack, "ensemble_inference", key).values()) > 1, "nothing was killed"
    day = stack.python("facts.py", CASE.name, "day", key)
    assert (day["fallback"], day["absent"]) == ("ensemble", {})


@pytest.mark.parametrize(
    ("service", "key"),
    [
        ("postgres", "2013-01-26"),
        ("redis", "2013-01-27"),
        ("mlflow", "2013-01-28"),
        ("statsd-exporter", "2013-01-29"),  # the last, for the test that follows
    ],
)
def test_a_server_restarted_in_the_middle_of_a_run_loses_nothing(
    stack: Stack, days: Days, service: str, key: str
) -> None:
    stack.start_day(key)
    dag_id = CASE.dag_id("batch_inference")
    poll(lambda: stack.airflow.runs(dag_id, partition_key_pattern=key), 300, every=0.2)
    [run] = stack.airflow.runs(dag_id, partition_key_pattern=key)
    assert run["state"] in ("queued", "running")
    stack.compose("restart", service)
    stack.end_day(key)
    assert_complete(stack, key)


def test_metrics_go_on_after_the_exporter_was_restarted(stack: Stack, days: Days) -> None:
    time.sleep(SCRAPE_SECONDS)
    published = f'ml_published_rows_total{{usecase="{CASE}",table="predictions"}}'
    assert stack.value(published) > 0
    assert stack.value("sum(rate(airflow_scheduler_heartbeat_total[1m]))") > 0


def test_a_second_worker_takes_its_share_of_the_chunks(stack: Stack, days: Days) -> None:
    key = "2013-01-30"
    more = ["--scale", "airflow-worker=2", "airflow-worker"]
    stack.compose("up", "--detach", "--wait", "--no-recreate", "--no-deps", *more)
    stack.run_day(key)
    assert_complete(stack, key)
    hosts = set()
    for dag_id in (CASE.dag_id("batch_inference"), CASE.dag_id("ensemble_inference")):
        [run] = stack.airflow.runs(dag_id, partition_key_pattern=key)
        tasks = stack.airflow.task_instances(dag_id, run["dag_run_id"])
        hosts |= {task["hostname"] for task in tasks if task["task_id"].endswith("score")}
    assert len(hosts) == 2


def test_the_page_was_taken_back_when_the_day_was_repaired(stack: Stack, days: Days) -> None:
    poll(lambda: told(stack, "resolved", CASE), 600, every=2)
    failing = 'ALERTS{alertname="ValidationFailing",alertstate="firing",usecase="%s"}'
    assert stack.query(failing % CASE) == []
    assert stack.query(failing % OTHER) != [], "nobody has repaired the other use case's day"
    assert told(stack, "resolved", OTHER) is None


def test_days_that_were_scored_stay_as_they_were(stack: Stack, days: Days) -> None:
    for key in days[CASE]:
        assert_complete(stack, key)
