"""The ensemble on a real Airflow, with a real model server that is stopped, and told to fail."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from include.inference.ensemble import TABLE
from include.lake.tables import Lake
from include.messages import CHAMPION, ModelVersion
from include.registry import registry
from include.usecases.flight_delays.schema import KEY
from local import embedded
from local.client import Airflow, poll
from tests.case import CASE
from tests.e2e.conftest import is_ready
from tests.e2e.dag_ids import ENSEMBLE_INFERENCE

DAY = "2013-01-21"


@pytest.fixture(autouse=True)
def on(airflow: Airflow, champion: ModelVersion) -> Iterator[None]:
    """The DAG is on for these tests only: in others every validated day would start it."""
    airflow.unpause(ENSEMBLE_INFERENCE)
    yield
    airflow.pause(ENSEMBLE_INFERENCE)


@pytest.fixture
def server(airflow: Airflow, data: Path) -> Iterator[str]:
    """The model server, which can be told to fail; as it was afterwards."""
    embedded.stop_model_server(data)
    url = embedded.start_model_server(data, faults=True)
    poll(lambda: is_ready(url), timeout=60)
    yield url
    embedded.stop_model_server(data)
    embedded.start_model_server(data)


def score(
    airflow: Airflow, lake: Lake, again: str | None = None
) -> tuple[dict[str, str], dict[str, Any]]:
    """Run the ensemble for a day, or a run of it once more, all of it.

    Returns:
        States of its tasks, and what the day says of it.
    """
    run_id = again or airflow.trigger(ENSEMBLE_INFERENCE, partition_key=DAY)
    if again:
        airflow.clear(ENSEMBLE_INFERENCE, again)
    assert airflow.wait(ENSEMBLE_INFERENCE, run_id) == "success"
    published = lake.current(TABLE, DAY)
    rows, facts = published.read("predictions"), published.manifest().metadata
    assert facts["dag_run"] == run_id
    assert len(rows) == len(lake.current("validated", DAY).read("flights"))
    assert not rows.select(KEY).is_duplicated().any()
    return states(airflow, run_id), facts


def states(airflow: Airflow, run_id: str) -> dict[str, str]:
    """State of each task, of mapped ones that of the last."""
    return {
        task["task_id"]: task["state"]
        for task in airflow.task_instances(ENSEMBLE_INFERENCE, run_id)
    }


def test_all_members_answer_then_one_is_down_without_affecting_the_others(
    airflow: Airflow, lake: Lake, data: Path, server: str
) -> None:
    pools = {pool["name"] for pool in airflow.request("GET", "/pools")["pools"]}
    assert {CASE.pool(member) for member in CASE.members} <= pools
    found, facts = score(airflow, lake)
    assert facts["fallback"] == "ensemble"
    assert sorted(facts["answers"]) == sorted(member.name for member in CASE.members)
    assert found["fall_back"] == "skipped"

    # The same run once more: what the member has said before must not count again.
    embedded.stop_model_server(data)
    found, facts = score(airflow, lake, again=facts["dag_run"])
    assert facts["fallback"] == "ensemble"
    assert list(facts["absent"]) == ["remote"]
    assert "Connection refused" in facts["absent"]["remote"]
    assert {task for task, state in found.items() if "failed" in state} == {
        "remote.plan", "remote.score", "remote.check"
    }  # fmt: skip


def test_a_server_that_says_when_to_come_back_is_asked_then_and_holds_no_worker_meanwhile(
    airflow: Airflow, lake: Lake, server: str
) -> None:
    busy = {"error_rate": 1, "status": 503, "retry_after": 8}
    httpx.put(f"{server}/faults", json=busy).raise_for_status()
    run_id = airflow.trigger(ENSEMBLE_INFERENCE, partition_key=DAY)
    poll(lambda: states(airflow, run_id)["remote.score"] == "up_for_retry", timeout=60)
    httpx.put(f"{server}/faults", json={}).raise_for_status()
    assert airflow.wait(ENSEMBLE_INFERENCE, run_id) == "success"
    facts = lake.current(TABLE, DAY).manifest().metadata
    assert "remote" in facts["answers"]
    assert "wants to be asked again in 8 s" in airflow.log(
        ENSEMBLE_INFERENCE, run_id, "remote.score", map_index=0
    )


def test_with_every_model_out_of_reach_each_segment_gets_its_baseline(
    airflow: Airflow, lake: Lake, data: Path, champion: ModelVersion, server: str
) -> None:
    run_id = score(airflow, lake)[1]["dag_run"]
    embedded.stop_model_server(data)
    shutil.rmtree(lake.partition_path(TABLE, DAY))  # else the ensemble's day stays
    with registry.connection(CASE) as client:
        client.delete_registered_model_alias(CASE.name, CHAMPION)
    try:
        found, facts = score(airflow, lake, again=run_id)
    finally:
        with registry.connection(CASE) as client:
            client.set_registered_model_alias(CASE.name, CHAMPION, champion.version)
    assert facts["fallback"] == "baseline"
    assert found["combine"] == "skipped"
    assert "There is no champion" in facts["absent"]["xgboost"]
    assert facts["lacking"] == "0 members answered, 2 have to"
    assert "There is no champion" in facts["failed"]["champion"]
    log = airflow.log(ENSEMBLE_INFERENCE, run_id, "publish", try_number=2)
    assert "Traceback" not in log
    assert "error calling listener" not in log
