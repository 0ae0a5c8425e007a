"""The monitor on a real Airflow: a page reaches a person, a retraining is asked for once."""

from datetime import date
from typing import Any

import httpx
import pytest

from include.lake.tables import Lake
from include.messages import ModelVersion
from include.monitoring import daily, history
from local.client import Airflow
from local.in_process import batch_inference
from local.seed import seed
from tests.case import CASE
from tests.e2e.conftest import Pages
from tests.e2e.dag_ids import MONITORING, RETRAINING, VALIDATION

SCORED, UNSCORED = "2013-01-28", "2013-01-10"


@pytest.fixture(autouse=True, scope="module")
def monitor(airflow: Airflow, lake: Lake, champion: ModelVersion) -> None:
    assert seed(CASE, SCORED, SCORED, say=lambda _: None) == 1
    batch_inference(CASE, SCORED, champion)
    airflow.unpause(MONITORING)


def look(airflow: Airflow, key: str, act: bool = True) -> tuple[str, str]:
    run_id = airflow.trigger(MONITORING, {"act": act}, partition_key=key)
    return run_id, airflow.wait(MONITORING, run_id)


def decided(airflow: Airflow, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = airflow.xcom(MONITORING, run_id, "decide")
    return found


def states(airflow: Airflow, run_id: str) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in airflow.task_instances(MONITORING, run_id)}


def test_a_page_reaches_the_notifier_and_the_decision_stands_while_that_is_down(
    airflow: Airflow, lake: Lake, pages: Pages
) -> None:
    pages.down = True
    run_id, state = look(airflow, UNSCORED)
    assert state == "failed", "who is not told must be seen"
    assert decided(airflow, run_id)["action"] == "page"
    rows = history.read(CASE, UNSCORED, 1)
    assert history.select(rows, "decision")["value"].to_list() == [3]
    assert states(airflow, run_id)["request_retraining"] == "skipped", "faulty data never retrain"
    tries = [t for t in airflow.task_instances(MONITORING, run_id) if t["task_id"] == "notify"]
    log = airflow.log(MONITORING, run_id, "notify", tries[0]["try_number"], map_index=0)
    assert '"kind": "dependency down"' in log
    assert "secret" not in log

    pages.down = False
    airflow.clear(MONITORING, run_id, only_failed=True)
    assert airflow.wait(MONITORING, run_id) == "success"
    [page] = [page for page in pages.taken if UNSCORED in page["title"]]
    assert page["title"].startswith(f"{CASE} {UNSCORED}: ")
    assert "no predictions" in page["title"]
    assert f"{airflow.url}/reports/{CASE}/{UNSCORED}" in page["message"]


def test_a_retraining_is_requested_once_and_not_waited_for(airflow: Airflow, lake: Lake) -> None:
    """The settings of these tests say that a champion is old after a day."""
    airflow.pause(RETRAINING)  # so that it waits, and nothing is trained
    asked = f"monitoring__{SCORED}"
    try:
        first, state = look(airflow, SCORED)
        assert state == "success"
        assert decided(airflow, first)["action"] == "retrain"
        [run] = [r for r in airflow.runs(RETRAINING) if r["dag_run_id"] == asked]
        assert run["state"] == "queued"
        assert run["conf"]["reason"] == decided(airflow, first)["why"]
        assert run["conf"]["end"] == daily.train_until(CASE, SCORED) < SCORED
        second, _ = look(airflow, SCORED)
        assert decided(airflow, second)["action"] == "retrain", "the same day, the same decision"
        assert states(airflow, second)["request_retraining"] == "skipped", "one waits already"
        noted = history.select(history.read(CASE, SCORED, 1), "retraining")
        assert noted["time"].to_list() == [date.fromisoformat(SCORED)]
    finally:
        airflow.forget(RETRAINING, asked)
        airflow.unpause(RETRAINING)


def test_a_failed_run_is_counted_and_the_report_is_where_the_task_says(
    airflow: Airflow, lake: Lake
) -> None:
    landed = lake.landing_path("flights", "2013-03-15")
    landed.parent.mkdir(parents=True, exist_ok=True)
    landed.write_bytes(b"no Parquet")
    airflow.unpause(VALIDATION)
    failing = airflow.trigger(VALIDATION, partition_key="2013-03-15")
    assert airflow.wait(VALIDATION, failing) == "failed", "to note it is no success"
    run_id, _ = look(airflow, SCORED, act=False)
    assert states(airflow, run_id)["request_retraining"] == "skipped", "it was told not to act"
    failed = history.select(
        history.read(CASE, SCORED, 1), "failed_runs", dag="data_validation", stage="validate"
    )
    assert failed["value"][0] > 0

    address = airflow.xcom(MONITORING, run_id, "write_report")
    page = httpx.get(address, trust_env=False)
    assert page.status_code == 200
    assert SCORED in page.text
    links = airflow.request(
        "GET", f"/dags/{MONITORING}/dagRuns/{run_id}/taskInstances/write_report/links"
    )
    assert links["extra_links"] == {"Daily report": address}
