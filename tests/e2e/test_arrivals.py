"""A file that lands in a folder starts its day, hours before the schedule would."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include import usecases
from include.usecase import UseCase
from local.client import Airflow, poll
from tests.e2e.own_airflow import own_airflow, own_data

pytestmark = pytest.mark.exhaustive  # an Airflow of its own

FOLDER = Path(__file__).resolve().parents[1] / "usecases" / "diamond_prices"
DAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UseCase]:
    with own_data(tmp_path_factory.mktemp("data"), {"ML_USECASES": str(FOLDER)}):
        yield usecases.find("diamond_prices")


@pytest.fixture(scope="module")
def airflow(case: UseCase) -> Iterator[Airflow]:
    data = case.settings.data_dir
    (data / "drop").mkdir()
    with own_airflow(data) as running:
        for pipeline in ("arrivals", "validation_on_arrival"):
            running.unpause(case.dag_id(pipeline))
        yield running


def test_a_dropped_file_has_its_day_validated(airflow: Airflow, case: UseCase) -> None:
    case.source.shop.drop(DAY)

    run = airflow.wait_partition(case.dag_id("validation_on_arrival"), str(DAY), 180)

    assert run["state"] == "success"
    published = case.lake.current("validated", str(DAY)).read("stones")
    offered = case.source.shop.stones(DAY)
    assert sorted(published["stone"]) == sorted(offered["stone"])
    assert set(published["date"]) == {DAY}


def test_what_starts_no_day_is_logged_and_harms_nothing(airflow: Airflow, case: UseCase) -> None:
    arrivals = case.dag_id("arrivals")
    before = {run["dag_run_id"] for run in airflow.runs(arrivals)}
    drop = case.settings.data_dir / "drop"
    tomorrow = DAY + timedelta(days=2)
    (drop / "notes.txt").touch()
    (drop / f"{DAY:%Y/%m/%d}/_SUCCESS").unlink()
    case.source.shop.drop(tomorrow)

    [run_id] = poll(
        lambda: [
            run["dag_run_id"] for run in airflow.runs(arrivals) if run["dag_run_id"] not in before
        ],
        120,
    )

    assert airflow.wait(arrivals, run_id) == "success"
    said = airflow.log(arrivals, run_id, "find_days", 1)
    assert f"{tomorrow} has not begun" in said
    assert len(airflow.runs(case.dag_id("validation_on_arrival"))) == 1
