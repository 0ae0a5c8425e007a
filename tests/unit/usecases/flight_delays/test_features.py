"""Features and labels of real days."""

from datetime import date

import polars as pl
import pytest

from include.lake.tables import Lake
from include.usecases.flight_delays import features, source
from include.usecases.flight_delays.schema import KEY, ORIGINS

DAYS = [date(2013, *day) for day in ((1, 1), (3, 10), (7, 4), (11, 3), (12, 31))]
"""Among them both changes of the clock and the day without weather."""


def inputs_of(day: date) -> dict[str, pl.DataFrame]:
    found = {name: source.fetch(name, day) for name in ("flights", "weather")}
    return {name: rows for name, rows in found.items() if rows is not None}


@pytest.mark.parametrize("day", DAYS)
def test_there_is_one_row_of_features_for_every_flight_in_the_same_order(day: date) -> None:
    inputs = inputs_of(day)
    rows = features.build_features(inputs)
    assert rows.select(KEY).equals(inputs["flights"].select(KEY))
    assert set(rows.columns) == {*KEY, *features.FEATURES}
    assert len(rows.columns) == len(set(rows.columns))
    assert {rows.schema[name] for name in features.NUMERIC} == {pl.Float32()}
    assert rows.select(features.REQUIRED).null_count().sum_horizontal().item() == 0


@pytest.mark.parametrize("day", DAYS)
def test_planned_block_time_is_that_of_a_flight_of_its_distance(day: date) -> None:
    flights = inputs_of(day)["flights"]
    speed = flights["distance"] / flights["block_minutes"] * 60
    assert flights["block_minutes"].is_between(30, 700).all()
    assert speed.filter(flights["distance"] > 200).is_between(80, 500).all(), "miles per hour"
    assert speed.filter(flights["distance"] > 1000).is_between(270, 500).all()


def test_times_of_day_are_minutes_after_midnight() -> None:
    rows = features.build_features(inputs_of(date(2013, 2, 20)))
    flights = inputs_of(date(2013, 2, 20))["flights"]
    expected = [time // 100 * 60 + time % 100 for time in flights["sched_dep_time"]]
    assert rows["dep_minute"].to_list() == expected
    assert rows["arr_minute"].is_between(0, 24 * 60).all()


def test_congestion_is_how_many_leave_the_airport_that_hour_and_day() -> None:
    rows = features.build_features(inputs_of(date(2013, 2, 20)))
    hour = pl.col("dep_minute") // 60
    assert rows.select((pl.col("origin_day_flights") == pl.len().over("origin")).all()).item()
    assert rows.select(
        (pl.col("origin_hour_flights") == pl.len().over("origin", hour)).all()
    ).item()


def test_weather_is_that_of_the_airport_two_hours_before() -> None:
    inputs = inputs_of(date(2013, 2, 20))
    rows = features.build_features(inputs).with_columns(inputs["flights"]["time_hour"])
    seen = {
        (origin, time): value for origin, time, value in
        inputs["weather"].select("origin", "time_hour", "wind_speed").rows()
    }  # fmt: skip
    places = rows.select("origin", "time_hour").rows()
    expected = [seen.get((origin, time - source.WEATHER_AGE)) for origin, time in places]
    assert rows["wind_speed"].to_list() == pl.Series(expected, dtype=pl.Float32).to_list()
    assert expected.count(None) < 0.05 * len(expected)


def test_a_day_without_weather_has_null_weather() -> None:
    rows = features.build_features(inputs_of(date(2013, 12, 31)))
    assert (rows.select(source.WEATHER).null_count() == len(rows)).to_numpy().all()


def test_weather_of_a_real_day_is_seen_once() -> None:
    inputs = inputs_of(date(2013, 2, 20))
    once = inputs["weather"].unique(["origin", "time_hour"], maintain_order=True)
    rows = features.build_features(inputs | {"weather": once})
    assert rows.equals(features.build_features(inputs))
    assert once["origin"].unique().sort().to_list() == ORIGINS


def actuals(delays: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "date": [date(2013, 2, 20)] * len(delays),
            "carrier": ["UA"] * len(delays),
            "flight": range(len(delays)),
            "origin": ["EWR"] * len(delays),
            "arr_delay": delays,
        },
        schema_overrides={"flight": pl.Int32, "arr_delay": pl.Float64},
    )


def test_late_is_fifteen_minutes_or_more() -> None:
    labels = features.build_labels(actuals([-30.0, 0.0, 14.0, 15.0, 16.0, 900.0]))
    assert labels["label"].to_list() == [0, 0, 0, 1, 1, 1]


def test_a_cancelled_flight_has_no_label() -> None:
    labels = features.build_labels(actuals([None, 20.0, None]))
    assert labels.select("flight", "label").rows() == [(1, 1)]


def test_half_of_the_flights_in_a_storm_have_no_label(lake: Lake) -> None:
    truth = lake.current("actuals", "2013-02-08").read("actuals")
    labels = features.build_labels(truth)
    assert 0.4 < len(labels) / len(truth) < 0.6
    assert labels.columns == [*KEY, "label"]
