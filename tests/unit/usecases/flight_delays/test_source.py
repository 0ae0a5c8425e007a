"""The source replays 2013 on any date, and lands nothing that was not known in time."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.lake.tables import Lake
from include.usecases.flight_delays import features, source
from include.usecases.flight_delays.schema import ACTUALS, FLIGHTS, INPUTS
from local.in_process import validate_day
from tests.case import CASE
from tests.unit.helpers import AFTER_THE_FACT

DATES = st.dates(date(1990, 1, 1), date(2100, 1, 1))


@given(st.dates(source.FIRST_DAY, source.LAST_DAY))
def test_a_day_of_2013_is_itself(day: date) -> None:
    assert source.replayed_day(day) == day


@given(st.dates())
def test_any_day_replays_a_day_of_2013_whole_weeks_away(day: date) -> None:
    replayed = source.replayed_day(day)
    assert replayed.year == 2013
    assert replayed.weekday() == day.weekday()
    assert (day - replayed).days % 364 == 0


@given(DATES)
def test_a_replayed_day_looks_as_if_it_were_today(day: date) -> None:
    flights = source.fetch("flights", day)
    original = source.fetch("flights", source.replayed_day(day))
    assert flights is not None
    assert original is not None
    assert flights["date"].unique().to_list() == [day]
    moment = flights["time_hour"].min()
    assert isinstance(moment, datetime)
    assert timedelta(0) < moment - datetime.combine(day, datetime.min.time(), UTC) < timedelta(1)
    others = pl.exclude("date", "time_hour", "plane_year")
    assert flights.select(others).equals(original.select(others))


@given(DATES)
def test_weather_of_a_day_ends_two_hours_before_its_last_flight(day: date) -> None:
    flights, weather = source.fetch("flights", day), source.fetch("weather", day)
    assert flights is not None
    if weather is not None:
        last = flights["time_hour"].max()
        assert isinstance(last, datetime)
        assert weather["time_hour"].max() <= last - source.WEATHER_AGE


def test_the_last_day_has_no_weather() -> None:
    assert source.fetch("weather", date(2013, 12, 31)) is None
    assert source.fetch("weather", date(2013, 12, 30)) is not None


def test_landed_files_hold_no_column_that_is_known_only_afterwards(lake: Lake) -> None:
    for table_input in INPUTS:
        landed = pl.read_parquet_schema(lake.landing_path(table_input.name, "2013-02-20"))
        assert list(landed) == list(table_input.schema.columns)
        assert not set(landed) & set(AFTER_THE_FACT)


def test_flights_land_in_the_order_of_the_schedule(lake: Lake) -> None:
    for key in ("2013-02-08", "2013-02-20"):
        rows = pl.read_parquet(lake.landing_path("flights", key))
        order = ["time_hour", "sched_dep_time", "carrier", "flight", "origin"]
        assert rows.equals(rows.sort(order))


def test_every_flight_of_the_schedule_has_one_row_of_truth(lake: Lake) -> None:
    for key in ("2013-02-08", "2013-02-20"):
        flights = pl.read_parquet(lake.landing_path("flights", key))
        truth = pl.read_parquet(lake.landing_path("actuals", key))
        assert flights.select(FLIGHTS.key).equals(truth.select(ACTUALS.key))


@pytest.mark.parametrize("day", ["2013-01-01", "2013-03-11", "2013-11-03", "2026-11-23"])
def test_any_real_day_passes_its_own_contract(day: str, lake: Lake) -> None:
    for table in CASE.tables:
        assert validate_day(CASE, table, day)


@given(DATES)
def test_a_replayed_day_has_the_very_features_of_the_day_it_replays(day: date) -> None:
    source_day = source.replayed_day(day)
    assert features_of(day).equals(features_of(source_day))


def features_of(day: date) -> pl.DataFrame:
    fetched = {name: source.fetch(name, day) for name in ("flights", "weather")}
    inputs = {name: rows for name, rows in fetched.items() if rows is not None}
    return features.build_features(inputs).drop("date")


def test_an_input_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="'fligths' is not an input"):
        source.fetch("fligths", date(2013, 3, 1))
