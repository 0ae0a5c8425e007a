"""The real DAGs on a real Airflow: scheduler, task processes, assets, retries, a power cut."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.lake.tables import Lake
from include.messages import ModelVersion
from include.usecases.flight_delays.schema import KEY
from local import embedded
from local.client import Airflow, poll
from tests.e2e.conftest import SETTINGS
from tests.e2e.dag_ids import INFERENCE, VALIDATION

pytestmark = pytest.mark.usefixtures("champion")


def validate(airflow: Airflow, key: str) -> tuple[str, str]:
    """Run `data_validation` for one day. Returns the run and its state."""
    airflow.unpause(VALIDATION)
    run_id = airflow.trigger(VALIDATION, partition_key=key)
    return run_id, airflow.wait(VALIDATION, run_id)


def assert_scored_once(lake: Lake, key: str, model: ModelVersion) -> None:
    """Every validated row is scored or rejected, none twice, by the one version."""
    scored = lake.current("predictions", key).read("predictions")
    validated = lake.current("validated", key).read("flights")
    rejected = lake.current("features", key).read("rejected")
    assert len(validated) == len(scored) + len(rejected) > 0
    assert not scored.select(KEY).is_duplicated().any()
    assert scored["model_version"].unique().to_list() == [model.version]


def test_a_validated_day_is_scored_in_chunks_and_published_with_its_lineage(
    airflow: Airflow, lake: Lake, champion: ModelVersion
) -> None:
    _, state = validate(airflow, "2013-01-22")
    assert state == "success"
    run = airflow.wait_partition(INFERENCE, "2013-01-22")
    assert run["state"] == "success"
    assert_scored_once(lake, "2013-01-22", champion)
    manifest = lake.manifest("predictions", "2013-01-22")
    assert manifest is not None
    assert manifest.metadata["dag_run"] == run["dag_run_id"]
    assert manifest.metadata["model"]["version"] == champion.version
    chunks = [
        task["rendered_map_index"]
        for task in airflow.task_instances(INFERENCE, run["dag_run_id"])
        if task["task_id"] == "score"
    ]
    assert len(chunks) == 4
    assert "rows 0 to 249" in chunks


def test_a_broken_file_fails_the_day_at_once_and_a_repaired_one_lets_it_go_on(
    airflow: Airflow, lake: Lake, champion: ModelVersion
) -> None:
    landed = lake.landing_path("flights", "2013-01-23")
    landed.parent.mkdir(parents=True, exist_ok=True)
    landed.write_bytes(b"PAR1 this is no Parquet file")

    run_id, state = validate(airflow, "2013-01-23")
    assert state == "failed"
    tasks = task_states(airflow, VALIDATION, run_id)
    assert tasks["inputs.check_contract"]["state"] == "failed"
    assert tasks["inputs.check_contract"]["try_number"] == 1, "bad data is not tried again"
    assert tasks["inputs.publish"]["state"] == "upstream_failed"
    assert tasks["truth.publish"]["state"] == "success", "the truth of the day before goes on"
    assert lake.manifest("validated", "2013-01-23") is None
    assert airflow.runs(INFERENCE, partition_key_pattern="2013-01-23") == []
    record = failure_record(airflow, VALIDATION, run_id, "inputs.check_contract")
    assert record["kind"] == "bad data"
    assert record["partition"] == "2013-01-23"
    assert str(landed) in record["message"]

    landed.unlink()
    airflow.clear(VALIDATION, run_id)
    assert airflow.wait(VALIDATION, run_id) == "success"
    assert airflow.wait_partition(INFERENCE, "2013-01-23")["state"] == "success"
    assert_scored_once(lake, "2013-01-23", champion)


def test_a_key_that_is_not_a_date_fails_with_a_message_and_publishes_nothing(
    airflow: Airflow, lake: Lake
) -> None:
    run_id, state = validate(airflow, "2013-3-1")
    assert state == "failed"
    record = failure_record(airflow, VALIDATION, run_id, "inputs.land")
    assert "'2013-3-1' is not a partition" in record["message"]
    assert not [path for path in lake.root.rglob("*") if "2013-3-1" in path.name]


@pytest.mark.exhaustive
def test_a_power_cut_loses_nothing_and_duplicates_nothing(
    airflow: Airflow, data: Path, lake: Lake, champion: ModelVersion
) -> None:
    airflow.unpause(VALIDATION)
    keys = ["2013-01-24", "2013-01-25"]
    for key in keys:
        airflow.trigger(VALIDATION, partition_key=key)
    poll(lambda: any_running(airflow, INFERENCE, "score"), timeout=120, every=0.1)
    port = int(airflow.url.rsplit(":", 1)[1])
    cut_the_power(data)

    revived = embedded.start(data, port, extra=SETTINGS)

    for key in keys:
        assert revived.wait_partition(INFERENCE, key)["state"] == "success"
        assert_scored_once(lake, key, champion)


def test_a_second_run_of_a_day_gives_the_same_predictions_without_scoring_again(
    airflow: Airflow, lake: Lake
) -> None:
    before = lake.current("predictions", "2013-01-22")
    run_id = airflow.trigger(INFERENCE, partition_key="2013-01-22")
    assert airflow.wait(INFERENCE, run_id) == "success"
    after = lake.current("predictions", "2013-01-22")
    assert after.name != before.name
    assert after.read("predictions").equals(before.read("predictions"))
    assert "is already scored" in airflow.log(INFERENCE, run_id, "score", map_index=0)


@pytest.mark.exhaustive
def test_a_run_that_was_overtaken_is_skipped_and_starts_nothing(
    airflow: Airflow, lake: Lake, champion: ModelVersion
) -> None:
    key = "2013-01-26"
    validate(airflow, key)
    airflow.wait_partition(INFERENCE, key)
    published = lake.current("validated", key)
    manifest = published.manifest()
    published.publish([*manifest.parts], manifest.metadata, made_from="inputs of the future")
    before = airflow.runs(INFERENCE, partition_key_pattern=key)

    run_id, state = validate(airflow, key)

    assert state == "success"
    tasks = task_states(airflow, VALIDATION, run_id)
    assert tasks["inputs.publish"]["state"] == "skipped"
    assert "was made from newer inputs" in airflow.log(VALIDATION, run_id, "inputs.publish")
    assert lake.current("validated", key).name == published.name
    assert len(airflow.runs(INFERENCE, partition_key_pattern=key)) == len(before)


def task_states(airflow: Airflow, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
    return {task["task_id"]: task for task in airflow.task_instances(dag_id, run_id)}


def failure_record(airflow: Airflow, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
    """The one structured record in the log of a failed task."""
    lines = airflow.log(dag_id, run_id, task_id).splitlines()
    [record] = [line for line in lines if line.startswith("task_failed ")]
    found: dict[str, Any] = json.loads(record.removeprefix("task_failed "))
    return found


def any_running(airflow: Airflow, dag_id: str, task_id: str) -> bool:
    return any(
        task["task_id"] == task_id and task["state"] == "running"
        for run in airflow.runs(dag_id, state="running")
        for task in airflow.task_instances(dag_id, run["dag_run_id"])
    )


def cut_the_power(data: Path) -> None:
    """Kill every process of the embedded Airflow at once, tasks included, with no goodbye."""
    state = json.loads((data / "airflow" / "state.json").read_text())
    sessions = {leader["pid"] for leader in state["leaders"].values()}
    doomed = [process for process in psutil.process_iter() if _session(process) in sessions]
    for process in doomed:
        process.send_signal(signal.SIGKILL)
    psutil.wait_procs(doomed, timeout=10)


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None
