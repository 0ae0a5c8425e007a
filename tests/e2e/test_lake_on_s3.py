"""Every pipeline on a real Airflow with its lake on S3: what it leaves there is what a folder has.

The S3 is moto's server. The same days go through the same steps on a folder, without Airflow: every
part that is published has to have the same rows and the same hash.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from include.inference.ensemble import TABLE as ENSEMBLE
from include.lake.files import Part, list_folder
from include.lake.tables import Lake
from include.messages import ModelVersion
from include.monitoring import daily, history
from include.partitions import days_before
from include.registry import registry
from include.training import snapshot
from include.usecases.flight_delays.schema import KEY
from local import embedded
from local.client import Airflow, poll
from local.in_process import batch_inference, validate_day
from local.seed import seed
from tests.case import CASE, at
from tests.e2e.conftest import SETTINGS, is_ready
from tests.e2e.dag_ids import INFERENCE
from tests.e2e.own_airflow import own_airflow, own_data

pytestmark = pytest.mark.exhaustive  # an Airflow of its own

SEEDED = ("2013-01-01", "2013-01-21")
DAYS = ["2013-01-22", "2013-01-23"]
WATCHED = DAYS[0]
PATIENT = {"ML_REMOTE_GIVE_UP_SECONDS": "60"}


@dataclass(frozen=True)
class Stack:
    """What runs, and where it keeps its data."""

    airflow: Airflow
    lake: Lake
    data: Path

    def run(self, pipeline: str, key: str | None = None, conf: dict[str, Any] | None = None) -> str:
        """Run a DAG that has to succeed. Returns the run."""
        dag_id = CASE.dag_id(pipeline)
        self.airflow.unpause(dag_id)
        run_id = self.airflow.trigger(dag_id, conf, partition_key=key)
        assert self.airflow.wait(dag_id, run_id) == "success"
        return run_id


@pytest.fixture(scope="module")
def stack(s3_server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An Airflow that is told of S3 by environment variables only, as README.md says."""
    data = tmp_path_factory.mktemp("data-beside-s3")
    place = {"ML_LAKE_ROOT": "s3://lake_test@bucket/every/pipeline"}
    chunks = {"ML_CHUNK_ROWS": SETTINGS["ML_CHUNK_ROWS"]}
    with own_data(data, s3_server | place | chunks) as lake:
        registry.create_store(CASE)
        assert seed(at(lake), *SEEDED, say=lambda _: None) == 21
        with own_airflow(data, PATIENT) as airflow:
            yield Stack(airflow, lake, data)


@pytest.fixture(scope="module")
def champion(stack: Stack) -> ModelVersion:
    """All DAGs, in the order in which a day meets them. Returns the champion that they made."""
    window = {"start": SEEDED[0], "end": SEEDED[1], "holdout_days": 5}
    stack.run("model_retraining", conf={"reason": "the lake is on S3", **window})
    stack.airflow.unpause(INFERENCE)
    for key in DAYS:
        stack.run("data_validation", key)
        assert stack.airflow.wait_partition(INFERENCE, key)["state"] == "success"
    stack.run("model_monitoring", WATCHED, {"act": False})
    embedded.stop_model_server(stack.data)
    server = embedded.start_model_server(stack.data)  # it serves the champion from its start on
    poll(lambda: is_ready(server), timeout=60)
    stack.run("ensemble_inference", WATCHED)
    return registry.champion(CASE)


@pytest.fixture(scope="module")
def folder(stack: Stack, champion: ModelVersion, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The same days in a folder, with the champion's training and evaluation beside them."""
    place = tmp_path_factory.mktemp("folder")
    for table in ("training", "evaluations"):
        there = stack.lake.root / table
        there.fs.get(there.path, str(place / table), recursive=True)
    lake = Lake(str(place))
    seed(at(lake), SEEDED[0], WATCHED, say=lambda _: None)
    validate_day(at(lake), "validated", DAYS[1])  # its truth comes with the day after it
    for key in DAYS:
        batch_inference(at(lake), key, champion)
    daily.observe(at(lake), WATCHED, datetime.now(UTC))
    return lake


def parts(lake: Lake, table: str, key: str) -> dict[str, Part] | None:
    """The published parts of a day, each read again: they are what the manifest promises."""
    if (manifest := lake.manifest(table, key)) is None:
        return None
    version = lake.current(table, key)
    assert {part: version.describe(part) for part in manifest.parts} == manifest.parts
    return manifest.parts


@pytest.mark.parametrize("table", ["validated", "actuals", "features", "predictions", "outcomes"])
def test_s3_and_a_folder_publish_the_same(stack: Stack, folder: Lake, table: str) -> None:
    keys = [days_before(DAYS[-1], back) for back in range(23)]
    found = {key: parts(stack.lake, table, key) for key in keys}
    assert found == {key: parts(folder, table, key) for key in keys}
    assert found[WATCHED], "the day that all pipelines have met"


def test_the_training_rows_are_the_same(stack: Stack, folder: Lake, champion: ModelVersion) -> None:
    reference = registry.param(CASE, champion.run_id, "snapshot")
    assert snapshot.verify(at(stack.lake), reference) == reference
    same = snapshot.take(at(folder), *SEEDED, holdout_days=5)
    assert snapshot.fingerprint(stack.lake.version(reference)) == snapshot.fingerprint(
        folder.version(same)
    )


def test_every_member_of_the_ensemble_has_scored_every_row(stack: Stack) -> None:
    published = stack.lake.current(ENSEMBLE, WATCHED)
    rows, alone = published.read("predictions"), stack.lake.current("predictions", WATCHED)
    assert sorted(published.manifest().metadata["answers"]) == sorted(m.name for m in CASE.members)
    assert rows.select(KEY).equals(alone.read("predictions").select(KEY))


def test_the_monitor_has_found_the_same_figures(stack: Stack, folder: Lake) -> None:
    def figures(lake: Lake) -> list[tuple[Any, ...]]:
        rows = history.read(at(lake), WATCHED, 1)
        rows = rows.filter(~pl.col("pipeline").is_in(["stages", "decision"]))  # of Airflow's runs
        return sorted(rows.drop("recorded_at").rows())

    assert figures(stack.lake) == figures(folder)


def test_the_pages_in_the_ui_show_what_is_on_s3(stack: Stack, champion: ModelVersion) -> None:
    health = httpx.get(f"{stack.airflow.url}/model-health/{CASE}", timeout=60, trust_env=False)
    assert health.status_code == 200
    assert f"Version {champion.version}" in health.text
    assert f"Decision about {WATCHED}" in health.text
    assert "cannot be read" not in health.text
    report = httpx.get(f"{stack.airflow.url}/reports/{CASE}/{WATCHED}", timeout=60, trust_env=False)
    assert report.status_code == 200
    assert WATCHED in report.text


def test_nothing_of_the_lake_is_left_on_the_machine(stack: Stack, champion: ModelVersion) -> None:
    assert not (stack.data / "lake").exists()
    tables = {path.name for path in list_folder(stack.lake.root)}
    assert {"landing", "validated", "predictions", ENSEMBLE, "training", "history"} <= tables
