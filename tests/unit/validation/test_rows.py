"""Bad rows go to quarantine, each with its reasons; all others are published unchanged."""

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from math import inf, nan
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import landed as landed_module
from include.lake.tables import Lake, Version
from include.messages import RowCheck
from include.validation import contract, rows
from tests.case import at
from tests.unit.conftest import NEW_DAY
from tests.unit.helpers import landed, replace
from tests.unit.validation.days import with_value

DAY = date.fromisoformat(NEW_DAY)

BAD_VALUES: list[tuple[str, Any]] = [
    ("date", None), ("date", DAY - timedelta(1)), ("date", DAY + timedelta(364)),
    ("carrier", "ZZ"), ("carrier", None), ("carrier", "ua"), ("carrier", ""), ("carrier", "ÜA"),
    ("flight", 0), ("flight", -1), ("flight", 10_000), ("flight", None),
    ("origin", "BOS"), ("origin", "EWR "), ("origin", None),
    ("dest", "MÜC"), ("dest", "lax"), ("dest", "東京都"), ("dest", "LAXX"), ("dest", None),
    ("sched_dep_time", 0), ("sched_dep_time", 1260), ("sched_dep_time", 2401),
    ("sched_arr_time", -5), ("sched_arr_time", None),
    ("block_minutes", 0), ("block_minutes", 1440), ("block_minutes", None),
    ("distance", 0), ("distance", 2_000_000), ("distance", None),
    ("seats", 0), ("seats", 5000), ("plane_year", 0), ("plane_year", 1903), ("time_hour", None),
    ("time_hour", datetime(1970, 1, 1, tzinfo=UTC)),
    ("time_hour", datetime.combine(DAY + timedelta(2), datetime.min.time(), UTC)),
]  # fmt: skip

MOMENTS = ["date", "time_hour"]

NO_FAULTS: list[tuple[str, Any]] = [
    ("tailnum", None), ("tailnum", "Ñ108-ЖØ"), ("tailnum", ""), ("seats", None),
    ("plane_year", None), ("dest", "XQX"), ("sched_arr_time", 2400), ("sched_dep_time", 1),
]  # fmt: skip


def check(lake: Lake, input_name: str, table: str = "validated") -> RowCheck:
    """Check the rows of a landed file, once its contract is checked."""
    files = contract.check_contract(at(lake), table, NEW_DAY)
    (file,) = [file for file in files if file.input_name == input_name]
    return rows.check_rows(at(lake), file)


def split(lake: Lake, found: RowCheck) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The valid rows, and the quarantined ones with their reasons."""
    version = lake.version(found.version)
    return version.read(found.input), rows.quarantine_of(version).read(found.input)


@given(data=st.data())
def test_every_row_is_valid_or_in_quarantine_with_its_reasons(
    lake: Lake, data: st.DataObject
) -> None:
    path = landed(lake, "flights", NEW_DAY)
    if not (good := path.with_suffix(".good")).exists():
        pl.read_parquet(path).head(60).write_parquet(good)
    rows = pl.read_parquet(good)
    spoilt = data.draw(st.dictionaries(st.integers(0, 59), st.sampled_from(BAD_VALUES)))
    harmless = data.draw(st.dictionaries(st.integers(0, 59), st.sampled_from(NO_FAULTS)))
    for place, change in [*harmless.items(), *spoilt.items()]:
        rows = with_value(rows, place, *change)
    replace(path, rows)
    found = check(lake, "flights")
    valid, quarantined = split(lake, found)
    is_bad = pl.Series([place in spoilt for place in range(60)])
    assert (found.rows, found.valid, found.quarantined) == (60, 60 - len(spoilt), len(spoilt))
    assert valid.equals(rows.filter(~is_bad))
    assert quarantined.drop("reasons").equals(rows.filter(is_bad))
    columns = [spoilt[place][0] for place in sorted(spoilt)]
    for reasons, column in zip(quarantined["reasons"], columns, strict=True):
        named = [reason.partition(":")[0] for reason in reasons]
        assert column in named or (column in MOMENTS and "row of another day" in named)
    assert sum(found.failures.values()) == quarantined["reasons"].list.len().sum()


def test_a_row_with_several_faults_has_several_reasons(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    rows = pl.read_parquet(path)
    for column, value in [("carrier", "ZZ"), ("distance", -1), ("dest", None)]:
        rows = with_value(rows, 5, column, value)
    replace(path, rows)
    _, quarantined = split(lake, check(lake, "flights"))
    (reasons,) = quarantined["reasons"].to_list()
    assert sorted(reason.partition(":")[0] for reason in reasons) == ["carrier", "dest", "distance"]
    assert "dest: missing" in reasons


def test_rows_that_share_their_key_are_all_in_quarantine(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    rows = pl.read_parquet(path)
    replace(path, pl.concat([rows, rows[10:12], rows[10:11]]))
    found = check(lake, "flights")
    valid, quarantined = split(lake, found)
    assert (found.duplicates, found.quarantined) == (5, 5)
    assert set(quarantined["reasons"].list.first()) == {"key: not unique"}
    assert valid.equals(pl.concat([rows[:10], rows[12:]]))


@pytest.mark.parametrize("value", [inf, -inf, -1.0, 1048.0])
def test_infinity_and_no_plausible_number_of_an_observation_is_in_quarantine(
    value: float, lake: Lake
) -> None:
    path = landed(lake, "weather", NEW_DAY)
    rows = pl.read_parquet(path)
    replace(path, with_value(rows, 3, "wind_speed", value))
    found = check(lake, "weather")
    valid, quarantined = split(lake, found)
    assert valid.equals(pl.concat([rows[:3], rows[4:]]))
    assert quarantined["time_hour"].to_list() == [rows["time_hour"][3]]
    (reasons,) = quarantined["reasons"].to_list()
    assert [reason.partition(":")[0] for reason in reasons] == ["wind_speed"]


def test_nan_is_missing_to_every_rule_and_null_in_what_is_published(lake: Lake) -> None:
    path = landed(lake, "weather", NEW_DAY)
    rows = pl.read_parquet(path)
    replace(path, with_value(rows, 3, "wind_speed", nan))
    with_null = with_value(rows, 3, "wind_speed", None)
    found = check(lake, "weather")
    assert found.quarantined == 0
    assert found.null_rates["wind_speed"] == with_null["wind_speed"].null_count() / len(rows)
    assert split(lake, found)[0].equals(with_null)


@pytest.mark.parametrize("value", [inf, -inf, 99_999.0])
def test_truth_that_is_not_plausible_is_quarantined(value: float, lake: Lake) -> None:
    path = landed(lake, "actuals", NEW_DAY, "actuals")
    replace(path, with_value(pl.read_parquet(path), 0, "arr_delay", value))
    found = check(lake, "actuals", "actuals")
    assert (found.quarantined, list(found.failures)) == (1, ["arr_delay: in_range(-300, 3000)"])


@pytest.mark.parametrize("input_name", ["flights", "weather"])
def test_times_in_another_unit_are_in_quarantine(input_name: str, lake: Lake) -> None:
    path = landed(lake, input_name, NEW_DAY)
    rows = pl.read_parquet(path)
    time = pl.col("time_hour")
    replace(path, rows.with_columns((time.cast(pl.Int64) * 1000).cast(rows.schema["time_hour"])))
    found = check(lake, input_name)
    assert found.failures == {"row of another day": len(rows)}
    assert (found.valid, found.last_event) == (0, None)


def test_weather_of_another_day_is_in_quarantine(lake: Lake) -> None:
    path = landed(lake, "weather", NEW_DAY)
    rows = pl.read_parquet(path)
    replace(path, with_value(rows, 0, "time_hour", rows["time_hour"][0] + timedelta(days=3)))
    found = check(lake, "weather")
    assert found.failures == {"row of another day": 1}


def test_the_impossible_wind_of_12_february_2013_is_in_quarantine_and_the_day_goes_on(
    lake: Lake,
) -> None:
    key = "2013-02-12"
    manifest = lake.manifest("validated", key)
    assert manifest is not None
    quarantined = Version(lake, "quarantine/validated", key, manifest.version).read("weather")
    assert quarantined["origin"].to_list() == ["EWR"]
    assert quarantined["wind_speed"].to_list() == pytest.approx([1048], abs=1)
    assert any("wind_speed" in reason for reason in quarantined["reasons"][0])
    assert manifest.parts["flights"].rows == 893


@pytest.mark.parametrize("slice_rows", [1, 40, 77, 10_000])
def test_the_result_does_not_depend_on_the_slices(
    slice_rows: int, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = landed(lake, "flights", NEW_DAY)
    rows = pl.read_parquet(path)[:150]
    rows = pl.concat([rows, rows[:3], rows[140:]])
    for place, (column, value) in enumerate(BAD_VALUES):
        rows = with_value(rows, 4 * place, column, value)
    replace(path, rows, row_group_size=40)
    whole = check(lake, "flights")
    monkeypatch.setattr(landed_module, "SLICE_ROWS", slice_rows)
    sliced = check(lake, "flights")
    assert asdict(whole) | {"version": ""} == asdict(sliced) | {"version": ""}
    for expected, found in zip(split(lake, whole), split(lake, sliced), strict=True):
        reasons = [name for name in ("reasons",) if name in found.columns]
        ordered = [frame.with_columns(pl.col(reasons).list.sort()) for frame in (expected, found)]
        assert ordered[0].equals(ordered[1])


def test_the_last_event_is_that_of_the_valid_rows(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    rows = pl.read_parquet(path)
    last = rows["time_hour"].max()
    assert isinstance(last, datetime)
    rows = with_value(rows, 0, "time_hour", last + timedelta(hours=5))
    replace(path, with_value(rows, 0, "carrier", "ZZ"))
    assert check(lake, "flights").last_event == last.isoformat()
