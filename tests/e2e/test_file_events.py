"""A file that lands in a folder or a bucket starts its day, hours before the schedule would."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from include import usecases
from include.usecase import UseCase
from local.client import Airflow, poll
from tests.conftest import notified_queue
from tests.e2e.own_airflow import own_airflow, own_data

pytestmark = pytest.mark.exhaustive  # an Airflow of its own

SHOP = Path(__file__).resolve().parents[1] / "usecases" / "diamond_prices"
TODAY = datetime.now(UTC).date()
BEFORE, DAY, TOMORROW = (TODAY + timedelta(days=days) for days in (-2, -1, 1))


@pytest.fixture(scope="module")
def sqs(s3_server: dict[str, str]) -> Iterator[str]:
    """A queue that the bucket notifies."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.items():
            patch.setenv(name, value)
        yield notified_queue("bucket")


@pytest.fixture(scope="module")
def case(sqs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UseCase]:
    """The use case, with a bucket that reports its new files to a queue, too."""
    folder = tmp_path_factory.mktemp("usecases") / SHOP.name
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    more = f"file_events=[FileEvent('s3://lake_test@bucket', '%Y-%m-%d/*.csv', {sqs!r}), "
    declared = folder / "__init__.py"
    declared.write_text(declared.read_text().replace("file_events=[", more))
    with own_data(tmp_path_factory.mktemp("data"), {"ML_USECASES": str(folder)}):
        yield usecases.find(SHOP.name)


@pytest.fixture(scope="module")
def airflow(case: UseCase) -> Iterator[Airflow]:
    data = case.settings.data_dir
    (data / "drop").mkdir()
    with own_airflow(data) as running:
        for pipeline in ("file_events", "validation_on_file"):
            running.unpause(case.dag_id(pipeline))
        yield running


def test_a_dropped_file_has_its_day_validated(airflow: Airflow, case: UseCase) -> None:
    case.source.shop.drop(DAY)

    run = airflow.wait_partition(case.dag_id("validation_on_file"), str(DAY), 180)

    assert run["state"] == "success"
    published = case.lake.current("validated", str(DAY)).read("stones")
    offered = case.source.shop.stones(DAY)
    assert sorted(published["stone"]) == sorted(offered["stone"])
    assert set(published["date"]) == {DAY}


def test_an_object_in_a_bucket_has_its_day_validated(airflow: Airflow, case: UseCase) -> None:
    boto3.client("s3").put_object(Bucket="bucket", Key=f"{BEFORE}/offers.csv")

    run = airflow.wait_partition(case.dag_id("validation_on_file"), str(BEFORE), 180)

    assert run["state"] == "success"
    assert len(case.lake.current("validated", str(BEFORE)).read("stones")) == 160


def test_what_starts_no_day_is_logged_and_harms_nothing(airflow: Airflow, case: UseCase) -> None:
    file_events = case.dag_id("file_events")
    before = {run["dag_run_id"] for run in airflow.runs(file_events)}
    drop = case.settings.data_dir / "drop"
    (drop / "notes.txt").touch()
    (drop / f"{DAY:%Y/%m/%d}/_SUCCESS").unlink()
    case.source.shop.drop(TOMORROW)

    [run_id] = poll(
        lambda: [
            run["dag_run_id"]
            for run in airflow.runs(file_events)
            if run["dag_run_id"] not in before
        ],
        120,
    )

    assert airflow.wait(file_events, run_id) == "success"
    said = airflow.log(file_events, run_id, "find_days", 1)
    assert f"{TOMORROW} has not begun" in said
    assert len(airflow.runs(case.dag_id("validation_on_file"))) == 2
