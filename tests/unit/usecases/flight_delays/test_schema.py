"""The contracts: which rows belong to a day, and what a clock time and a flight are."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from include.usecases.flight_delays import source
from include.usecases.flight_delays.schema import FLIGHTS, INPUTS, KEY, TRUTH, WEATHER

DAY = date(2013, 2, 20)


@pytest.fixture
def flight() -> pl.DataFrame:
    found = source.fetch("flights", DAY)
    assert found is not None
    return found[:1]


@pytest.mark.parametrize(
    ("time", "right"),
    [(1, True), (59, True), (2359, True), (2400, True), (0, False), (60, False), (1260, False),
     (2401, False), (-1, False)],
)  # fmt: skip
def test_a_clock_time_is_hhmm(time: int, right: bool, flight: pl.DataFrame) -> None:
    rows = flight.with_columns(sched_dep_time=pl.lit(time, pl.Int32))
    if right:
        FLIGHTS.schema.validate(rows)
    else:
        with pytest.raises(Exception, match="clock_time_hhmm"):
            FLIGHTS.schema.validate(rows)


@pytest.mark.parametrize(
    ("hour", "belongs"),
    [
        (datetime(2013, 2, 20, 5, tzinfo=UTC), True),  # midnight in New York
        (datetime(2013, 2, 21, 4, tzinfo=UTC), True),  # its last hour
        (datetime(2013, 2, 19, 23, tzinfo=UTC), False),
        (datetime(2013, 2, 22, 0, tzinfo=UTC), False),
    ],
)
def test_a_day_in_new_york_ends_on_the_next_one_in_utc(hour: datetime, belongs: bool) -> None:
    rows = pl.DataFrame({"date": [DAY], "time_hour": [hour]})
    for one in (FLIGHTS, WEATHER):
        assert rows.select(one.belongs(DAY)).item() == belongs


def test_truth_of_another_day_does_not_belong() -> None:
    rows = pl.DataFrame({"date": [DAY, date(2013, 2, 21)]})
    assert rows.select(TRUTH.belongs(DAY)).to_series().to_list() == [True, False]


@pytest.mark.parametrize("one", [*INPUTS, TRUTH], ids=lambda one: one.name)
def test_a_real_day_is_as_its_contract_says_and_each_row_has_a_key_of_its_own(one) -> None:
    rows = source.fetch(one.name, DAY)
    assert rows is not None
    one.schema.validate(rows)
    assert not rows.select(one.key).is_duplicated().any()
    assert rows.select(one.belongs(DAY)).to_series().all()


def test_two_flights_of_one_number_leave_from_two_airports_on_a_day() -> None:
    rows = source.fetch("flights", date(2013, 6, 8))
    assert rows is not None
    assert rows.select([name for name in KEY if name != "origin"]).is_duplicated().any()
    assert not rows.select(KEY).is_duplicated().any()
