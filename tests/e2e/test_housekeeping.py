"""Housekeeping and erasure on a real Airflow: neither in a dry run nor beside another run."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.lake.tables import Lake, Version
from include.registry import registry
from local.client import Airflow
from local.in_process import validate_day
from local.seed import seed
from tests.case import CASE
from tests.e2e.dag_ids import ERASURE, HOUSEKEEPING, VALIDATION
from tests.e2e.own_airflow import own_airflow, own_data

pytestmark = pytest.mark.exhaustive  # an Airflow of its own: other tests need what this one deletes

SEEDED = ("2013-01-01", "2013-01-06")
DAY = "2013-01-05"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("housekeeping")


@pytest.fixture(scope="module")
def lake(data: Path) -> Iterator[Lake]:
    with own_data(data) as lake:
        registry.create_store(CASE)
        seed(CASE, *SEEDED, say=lambda _: None)
        yield lake


@pytest.fixture(scope="module")
def airflow(data: Path, lake: Lake) -> Iterator[Airflow]:
    with own_airflow(data, {}) as started:
        yield started


def age(folder: Path) -> None:
    """Make all that is in a folder look as if it had not changed for 100 days."""
    then = (datetime.now(UTC) - timedelta(days=100)).timestamp()
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


def clean(airflow: Airflow, **params: Any) -> dict[str, Any]:
    """What a run of housekeeping returns."""
    run_id = airflow.trigger(HOUSEKEEPING, params)
    assert airflow.wait(HOUSEKEEPING, run_id) == "success"
    found: dict[str, Any] = airflow.xcom(HOUSEKEEPING, run_id, "clean")
    return found


@pytest.fixture
def old(airflow: Airflow, lake: Lake, data: Path) -> tuple[Version, Path]:
    """A version that was replaced long ago, and the logs of a run that is as old."""
    airflow.unpause(HOUSEKEEPING)
    replaced = lake.current("validated", DAY)
    for _ in range(2):
        validate_day(CASE, "validated", DAY)
    age(Path(str(lake.partition_path("validated", DAY))))
    logs = data / "airflow" / "logs" / f"dag_id={VALIDATION}" / "run_id=old" / "task_id=x"
    logs.mkdir(parents=True)
    (logs / "attempt=1.log").write_text("text")
    age(logs.parent)
    return replaced, logs.parent


def test_it_deletes_only_if_it_is_told_to_and_no_other_run_is_open(
    airflow: Airflow, lake: Lake, old: tuple[Version, Path]
) -> None:
    replaced, logs = old
    dry = clean(airflow)
    assert dry["dry_run"] is True
    assert dry["deleted"]["replaced_versions"]["things"] == 1
    assert dry["deleted"]["logs"]["things"] == 1
    assert str(replaced.path) in Path(dry["report"]).read_text()
    assert replaced.manifest()
    assert logs.exists()

    airflow.pause(VALIDATION)  # so that its run stays queued
    waiting = airflow.trigger(VALIDATION, partition_key=DAY)
    told = clean(airflow, dry_run=False)
    assert told["stays"][0].startswith(f"Runs of {VALIDATION} are not over.")
    assert told["deleted"]["replaced_versions"]["things"] == told["deleted"]["logs"]["things"] == 0
    assert Path(str(replaced.path)).exists()
    airflow.forget(VALIDATION, waiting)

    told = clean(airflow, dry_run=False)
    assert (told["stays"], told["deleted"]) == ([], dry["deleted"])
    assert not Path(str(replaced.path)).exists()
    assert not logs.exists()
    current = lake.current("validated", DAY)
    assert {part: current.describe(part) for part in current.manifest().parts} == (
        current.manifest().parts
    )


def test_a_mistyped_parameter_deletes_nothing(airflow: Airflow) -> None:
    airflow.unpause(HOUSEKEEPING)
    run_id = airflow.trigger(HOUSEKEEPING, {"dryrun": False})
    assert airflow.wait(HOUSEKEEPING, run_id) == "failed"


def test_rows_are_erased_only_if_it_is_told_to(airflow: Airflow, lake: Lake, data: Path) -> None:
    airflow.unpause(ERASURE)
    (data / "keys.jsonl").write_text('{"carrier": "B6"}')
    found = []
    for dry_run in (True, False, False):
        conf = {"file": str(data / "keys.jsonl"), "dry_run": dry_run}
        run_id = airflow.trigger(ERASURE, conf)
        assert airflow.wait(ERASURE, run_id) == "success"
        found.append(airflow.xcom(ERASURE, run_id, "erase"))
    counted, erased, again = found
    assert (counted["state"], erased["state"]) == ("counted", "erased")
    assert counted["rows"] == erased["rows"]
    assert erased["rows"]["validated"] > 0
    assert again["rows"] == {}
    left = lake.current("validated", DAY).read("flights")
    assert "B6" not in left["carrier"].to_list()
