"""Two runs of one partition at the same time: readers see one whole version, of either run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.lake.tables import Lake
from tests.case import CASE
from tests.unit import children
from tests.unit.conftest import NEW_DAY, OLD_DAY, History, copy_lake
from tests.unit.helpers import infer, landed, shown, watched


def finish(*processes: Any) -> None:
    for process in processes:
        process.join()
        assert process.exitcode == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("place", ["folder", "s3"])
def test_two_writers_of_one_partition_never_mix(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, start: Callable[..., Any]
) -> None:
    on_s3 = place == "s3"
    root = request.getfixturevalue("s3_root") if on_s3 else str(tmp_path)
    environment = request.getfixturevalue("s3_server") if on_s3 else {}
    lake = Lake(root)
    children.write_version(lake, 0)
    times = 4 if on_s3 else 20
    with watched(lambda: children.content(lake)) as seen:
        finish(*(start(children.write_often, environment, root, n, times) for n in (1, 2)))
    assert set(seen) <= {0, 1, 2}
    assert children.content(lake) in (1, 2)


@pytest.mark.exhaustive
def test_two_validations_of_one_day_land_and_publish_it_whole(
    lake: Lake, tmp_path: Path, start: Callable[..., Any]
) -> None:
    other = Lake(str(tmp_path / "other"))
    landed(other, "flights", NEW_DAY)
    names = ("flights", "weather")
    raw = {name: pl.read_parquet(other.landing_path(name, NEW_DAY)) for name in names}
    with watched(lambda: shown(lake, "validated", NEW_DAY)) as seen:
        root = str(lake.root)
        finish(*(start(children.validate_often, {}, root, NEW_DAY, 6) for _ in range(2)))
    published = shown(lake, "validated", NEW_DAY)
    assert published is not None
    version = lake.current("validated", NEW_DAY)
    assert all(version.read(name).equals(rows) for name, rows in raw.items())
    assert all(found in (None, published) for found in seen)
    assert shown(lake, "quarantine/validated", NEW_DAY) is not None


@pytest.mark.exhaustive
def test_two_scorings_of_one_day_publish_the_predictions_of_one(
    lake: Lake, history: History, tmp_path: Path, start: Callable[..., Any]
) -> None:
    copy_lake(history.lakes / CASE.name, tmp_path / "other")
    expected = infer(Lake(str(tmp_path / "other")), OLD_DAY, history.champion)
    environment = {"MLFLOW_TRACKING_URI": history.registry, "ML_CHUNK_ROWS": "300"}
    arguments = (environment, str(lake.root), OLD_DAY, history.champion, 3)
    with watched(lambda: shown(lake, "predictions", OLD_DAY)) as seen:
        finish(*(start(children.infer_often, *arguments) for _ in range(2)))
    published = shown(lake, "predictions", OLD_DAY)
    assert all(found in (None, published) for found in seen)
    assert lake.current("predictions", OLD_DAY).read("predictions").equals(expected)
