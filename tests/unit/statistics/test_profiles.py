"""Profiles are kept beside the rows that they describe; days without one are left out."""

from pathlib import Path

import polars as pl
import pytest

from include.lake.files import put_text
from include.lake.tables import PROFILE, Lake, Version
from include.statistics import profiles
from include.statistics.profile import profile_of

DAYS = ["2013-03-01", "2013-03-02", "2013-03-03"]


def publish(lake: Lake, key: str, number: int, with_profile: bool = True) -> Version:
    """A day of so many rows that are all of that number."""
    rows = pl.DataFrame({"x": [float(number)] * number})
    version = lake.new_version("table", key)
    version.write_frame("a", rows)
    if with_profile:
        profiles.keep(version, "a", profile_of(rows))
    version.publish(["a"])
    return version


def test_a_profile_is_read_as_it_was_stored(root: str) -> None:
    version = publish(Lake(root), DAYS[0], 3)
    found = profiles.read(version, "a")
    assert found is not None
    column = found["x"]
    assert (column.rows, column.mean, column.least, column.most) == (3, 3, 3, 3)


def test_the_window_is_all_rows_of_its_days(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for number, key in enumerate(DAYS, 1):
        publish(lake, key, number)
    column = profiles.read_window(lake, "table", "a", DAYS)["x"]
    assert (column.rows, column.mean) == (6, pytest.approx(14 / 6))
    assert profiles.read_window(lake, "table", "a", []) == {}


def test_a_day_without_a_profile_or_without_a_version_is_left_out(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    publish(lake, DAYS[0], 1)
    older = publish(lake, DAYS[1], 2, with_profile=False)
    assert profiles.read(older, "a") is None
    assert list(profiles.read_days(lake, "table", "a", DAYS)) == [DAYS[0]]


def test_a_damaged_profile_is_named_and_stops_no_other_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake(str(tmp_path))
    for key in DAYS[:2]:
        version = publish(lake, key, 2)
    path = version.part_path(f"a{PROFILE}")
    put_text(path, "no Parquet")
    assert list(profiles.read_days(lake, "table", "a", DAYS)) == [DAYS[0]]
    assert str(path) in caplog.text
