"""What no member of the ensemble is to blame for costs no member; what costs one heals by itself.

A real Airflow with its lake on S3, moto's server, behind a door that can be shut.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from include.inference.ensemble import TABLE
from include.registry import registry
from local import embedded
from local.client import Airflow, poll
from local.seed import seed
from tests.case import CASE, at
from tests.conftest import s3_environment
from tests.e2e.conftest import is_ready
from tests.e2e.dag_ids import ENSEMBLE_INFERENCE, MONITORING, RETRAINING
from tests.e2e.door import Door
from tests.e2e.own_airflow import own_airflow, own_data

pytestmark = pytest.mark.exhaustive  # an Airflow of its own

DAY, NEXT = "2013-01-21", "2013-01-22"
NAMES = sorted(member.name for member in CASE.members)


@pytest.fixture(scope="module")
def door(s3_server: dict[str, str]) -> Iterator[Door]:
    port = urlsplit(s3_server["AWS_ENDPOINT_URL"]).port
    assert port
    with Door(port) as opened:
        yield opened
        opened.shutdown()


@pytest.fixture(scope="module")
def airflow(door: Door, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """With three weeks of history, and a champion and its ensemble."""
    data = tmp_path_factory.mktemp("data-behind-a-door")
    s3 = s3_environment(f"http://127.0.0.1:{door.server_address[1]}")
    s3 |= {"ML_LAKE_ROOT": "s3://lake_test@bucket/behind/a/door", "AWS_MAX_ATTEMPTS": "1"}
    with own_data(data, s3) as lake:
        registry.create_store(CASE)
        assert seed(at(lake), "2013-01-01", NEXT, say=lambda _: None) == 22
        with own_airflow(data) as running:
            running.unpause(RETRAINING)
            window = {"start": "2013-01-01", "end": "2013-01-21", "holdout_days": 5}
            asked = {"reason": "the lake goes away", **window}
            run_id = running.trigger(RETRAINING, asked)
            assert running.wait(RETRAINING, run_id) == "success"
            running.pause(RETRAINING)  # the monitor asks for another one
            start_server(data)
            for dag_id in (ENSEMBLE_INFERENCE, MONITORING):
                running.unpause(dag_id)
            yield running
            door.shut = False


def start_server(data: Path) -> None:
    embedded.stop_model_server(data)
    url = embedded.start_model_server(data)
    poll(lambda: is_ready(url), timeout=120)


def published(key: str) -> dict[str, Any]:
    return CASE.lake.current(TABLE, key).manifest().metadata


def tries(airflow: Airflow, run_id: str) -> int:
    """The most tries that a task of a member has had."""
    found = airflow.task_instances(ENSEMBLE_INFERENCE, run_id)
    return max(task["try_number"] for task in found if task["task_id"].split(".")[0] in NAMES)


def states(airflow: Airflow, dag_id: str, run_id: str) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in airflow.task_instances(dag_id, run_id)}


def test_a_lake_that_is_away_for_longer_than_a_member_may_be_costs_no_member(
    airflow: Airflow, door: Door
) -> None:
    run_id = airflow.trigger(ENSEMBLE_INFERENCE, partition_key=DAY)
    poll(lambda: states(airflow, ENSEMBLE_INFERENCE, run_id)["preprocess"] == "success", 120)
    door.shut = True
    allowed = max(member.retries for member in CASE.members) + 1
    poll(lambda: tries(airflow, run_id) > allowed, timeout=240)
    door.shut = False
    assert airflow.wait(ENSEMBLE_INFERENCE, run_id) == "success"
    facts = published(DAY)
    assert sorted(facts["answers"]) == NAMES, facts["absent"]
    assert facts["fallback"] == "ensemble"


def test_a_day_heals_once_its_members_are_back_and_is_then_left_alone(airflow: Airflow) -> None:
    embedded.stop_model_server(airflow.data)
    run_id = airflow.trigger(ENSEMBLE_INFERENCE, partition_key=NEXT)
    assert airflow.wait(ENSEMBLE_INFERENCE, run_id) == "success"
    assert published(NEXT)["awaited"] == ["remote"]

    start_server(airflow.data)
    watching = airflow.trigger(MONITORING, {"act": True}, partition_key=NEXT)
    assert airflow.wait_partition(ENSEMBLE_INFERENCE, NEXT, known=1)["state"] == "success"
    facts = published(NEXT)
    assert sorted(facts["answers"]) == NAMES, facts["absent"]
    assert airflow.xcom(MONITORING, watching, "heal_ensemble") == [NEXT]

    airflow.wait(MONITORING, watching)
    again = airflow.trigger(MONITORING, {"act": True}, partition_key=NEXT)
    airflow.wait(MONITORING, again)
    assert states(airflow, MONITORING, again)["heal_ensemble"] == "skipped"
    assert len(airflow.runs(ENSEMBLE_INFERENCE, partition_key_pattern=NEXT)) == 2
