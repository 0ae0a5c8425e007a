"""A fault changes what lands of a day, only in what it is called after."""

from datetime import date

import polars as pl
import pytest

from include.usecases.flight_delays import source
from include.usecases.flight_delays.faults import FAULTS

CHANGED = {
    "local time read as UTC": {"sched_dep_time", "sched_arr_time", "time_hour"},
    "miles as kilometres": {"distance"},
    "HHMM not parsed": {"sched_dep_time", "sched_arr_time"},
    "a carrier renamed": {"carrier"},
    "20 % of destinations in lower case": {"dest"},
    "30 % of seats null": {"seats"},
    "plane age off by 3 years": {"plane_year"},
    "10 % of block times zeroed": {"block_minutes"},
}
GONE = "an airport's feed missing"


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    found = source.fetch("flights", date(2013, 2, 20))
    assert found is not None
    return found


@pytest.mark.parametrize("name", CHANGED)
def test_a_fault_changes_the_columns_that_it_is_about_and_no_type(
    name: str, rows: pl.DataFrame
) -> None:
    wrong = FAULTS[name](rows)
    assert wrong.schema == rows.schema
    assert {one for one in rows.columns if not wrong[one].equals(rows[one])} == CHANGED[name]


def test_a_share_of_rows_is_the_share_that_its_name_says(rows: pl.DataFrame) -> None:
    nulls = FAULTS["30 % of seats null"](rows)["seats"].null_count() / len(rows)
    assert nulls == pytest.approx(0.3 + 0.7 * rows["seats"].null_count() / len(rows), abs=0.02)
    lower = FAULTS["20 % of destinations in lower case"](rows)["dest"].str.contains("[a-z]")
    assert lower.mean() == pytest.approx(0.2, abs=0.01)


def test_without_an_airports_feed_its_flights_are_not_there(rows: pl.DataFrame) -> None:
    left = FAULTS[GONE](rows)
    assert set(rows["origin"]) - set(left["origin"]) == {rows["origin"].mode().sort()[0]}


def test_an_hour_after_midnight_in_utc_is_on_the_day_before(rows: pl.DataFrame) -> None:
    one = rows[:1].with_columns(sched_dep_time=pl.lit(515, pl.Int32))
    assert FAULTS["local time read as UTC"](one)["sched_dep_time"].to_list() == [15]
    early = rows[:1].with_columns(sched_dep_time=pl.lit(30, pl.Int32))
    assert FAULTS["local time read as UTC"](early)["sched_dep_time"].to_list() == [1930]


def test_every_fault_is_tried_here() -> None:
    assert {*CHANGED, GONE} == set(FAULTS)
