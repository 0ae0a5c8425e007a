"""An A/B test and models for rows of a kind on a real Airflow, whose settings turn both on."""

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.inference.branching import draw
from include.lake.tables import Lake
from include.messages import CHALLENGER, CHAMPION, ModelVersion
from include.monitoring import history
from include.registry import registry
from include.usecases.flight_delays import features
from local.client import Airflow
from local.seed import seed
from tests.case import CASE, at
from tests.e2e.dag_ids import INFERENCE, MONITORING, RETRAINING, VALIDATION
from tests.e2e.own_airflow import own_airflow, own_data

pytestmark = pytest.mark.exhaustive  # an Airflow of its own: a minute and a half

FIRST, LAST = "2013-01-01", "2013-01-21"
DAYS = ["2013-01-22", "2013-01-23"]
SHARE = 0.3


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Three weeks of history in a data folder of its own, and a day that lacks some weather."""
    with own_data(tmp_path_factory.mktemp("branching")) as lake:
        registry.create_store(CASE)
        seed(at(lake), FIRST, LAST, say=lambda _: None)
        yield lake


@pytest.fixture(scope="module")
def airflow(lake: Lake) -> Iterator[Airflow]:
    """An Airflow whose DAGs branch."""
    branching = {
        "ML_GROUP_MODELS": "true", "ML_EXPERIMENT": "ab", "ML_AB_SHARE": str(SHARE)
    }  # fmt: skip
    with own_airflow(CASE.settings.data_dir, branching) as running:
        for name in (RETRAINING, VALIDATION, INFERENCE, MONITORING):
            running.unpause(name)
        yield running


@pytest.fixture(scope="module")
def challenger(airflow: Airflow) -> ModelVersion:
    """Another model of the champion's training, as a version that has not been promoted."""
    window = {"start": FIRST, "end": LAST, "holdout_days": 5}
    run_id = airflow.trigger(RETRAINING, {"reason": "end-to-end test", **window})
    assert airflow.wait(RETRAINING, run_id) == "success"
    champion = registry.champion(CASE)
    others = registry.members(CASE, champion)
    assert {group.path for group in features.GROUPS} <= others.keys()
    runs = [others[name].run_id for name in ("xgboost", "hist_gradient_boosting")]
    return registry.register(CASE, next(run for run in runs if run != champion.run_id))


def score(airflow: Airflow, key: str) -> str:
    """Have a day validated and scored. Returns the run that has scored it."""
    airflow.trigger(VALIDATION, partition_key=key)
    run = airflow.wait_partition(INFERENCE, key, 300)
    assert run["state"] == "success"
    return str(run["dag_run_id"])


def states(airflow: Airflow, run_id: str) -> dict[str, set[str]]:
    """States of each task, of all that were mapped from it."""
    found: dict[str, set[str]] = {}
    for task in airflow.task_instances(INFERENCE, run_id):
        found.setdefault(task["task_id"], set()).add(task["state"])
    return found


def published(lake: Lake, key: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    version = lake.current("predictions", key)
    rows = version.read("predictions").with_columns(pl.col("path").cast(pl.String))
    facts = version.manifest().metadata
    assert len(rows) == facts["check"]["scored"]
    assert dict(rows["path"].value_counts().iter_rows()) == {
        path: number for path, number in facts["branches"]["rows"].items() if number
    }
    return rows, facts


def test_each_row_takes_its_path_and_the_monitor_compares_the_two(
    airflow: Airflow, lake: Lake, challenger: ModelVersion
) -> None:
    for key in DAYS:
        found = states(airflow, score(airflow, key))
        assert {state for name in found for state in found[name]} == {"success"}
        rows, facts = published(lake, key)
        groups = {group.path for group in features.GROUPS}
        assert facts["branches"]["absent"] == {}
        assert set(rows["path"]) >= {CHAMPION, CHALLENGER, "without_plane"}
        rest = rows.filter(~pl.col("path").is_in(groups))
        is_drawn = draw(CASE, rest, str(challenger)) < SHARE
        assert ((rest["path"] == CHALLENGER).to_numpy() == is_drawn).all()
    run_id = airflow.trigger(MONITORING, {"act": False}, partition_key=DAYS[-1])
    assert airflow.wait(MONITORING, run_id) == "success"
    decision = airflow.xcom(MONITORING, run_id, "decide")
    [said] = [one["found"] for one in decision["reasons"] if one["rule"] == "experiment"]
    assert f"version {challenger.version}" in said
    assert "confidence of 50%" in said, "the truth of one day is known, of which nothing follows"
    known = history.read(CASE, DAYS[-1], 2)
    first = known.filter(pl.col("time") == date.fromisoformat(DAYS[0]))
    [judged] = history.select(first, "log_loss", model=CHALLENGER, slice="all")["n"]
    taken = published(lake, DAYS[0])[1]["branches"]["rows"][CHALLENGER]
    assert 0.8 * taken < judged <= taken, "all that have arrived"
    assert len(history.select(known, "gain", against=registry.champion(CASE).version)) == 1
    report = lake.partition_path("reports", DAYS[-1]) / "report.html"
    assert "Challenger&#39;s gain" in report.read_text()


def test_a_challenger_that_fails_holds_nothing_back_and_the_champion_scores_its_rows(
    airflow: Airflow, lake: Lake, challenger: ModelVersion
) -> None:
    key = DAYS[-1]
    [run] = airflow.runs(INFERENCE, partition_key_pattern=key)
    run_id = run["dag_run_id"]
    [folder] = Path(str(lake.partition_path("scores", key))).glob(
        f"*-{challenger.name}-{challenger.version}-*"
    )
    shutil.rmtree(folder)
    folder.write_text("not a folder: no score of the challenger can be written here")
    before = published(lake, key)[0]
    airflow.clear(INFERENCE, run_id)
    ended, found = airflow.wait(INFERENCE, run_id), states(airflow, run_id)
    assert ended == "success", found
    assert found["others.score"] == {"failed", "success"}, "the model of a group has answered"
    rows, facts = published(lake, key)
    assert list(facts["branches"]["absent"]) == [CHALLENGER]
    assert folder.name in facts["branches"]["absent"][CHALLENGER], "it says what has failed"
    assert facts["branches"]["rows"][CHALLENGER] == 0
    others = before["path"] != CHALLENGER
    assert rows["score"].filter(others).equals(before["score"].filter(others))
    assert set(rows["path"].filter(~others)) == {CHAMPION}
