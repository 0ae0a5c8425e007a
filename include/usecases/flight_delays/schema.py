"""The contracts of the inputs: the rules for a row and for a day of each.

Ranges are physical limits, not those of the sample: a breach is a fault, not a rare day.
"""

from datetime import date, timedelta

import pandera.polars as pa
import polars as pl

from include.usecase import Input

KEY = ["date", "carrier", "flight", "origin"]
"""A flight. The origin is part of the key, because some flight numbers leave from two airports."""

ORIGINS = ["EWR", "JFK", "LGA"]
CARRIERS = [
    "9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"
]  # fmt: skip

UTC_TIME = pl.Datetime("us", "UTC")


def _within(least: float, most: float) -> pa.Check:
    return pa.Check.in_range(least, most, n_failure_cases=10)


def _one_of(allowed: list[str]) -> pa.Check:
    return pa.Check.isin(allowed, n_failure_cases=10)


def _hhmm() -> pa.Check:
    """A clock time written as the number HHMM, 0001 to 2400."""
    return pa.Check(
        lambda data: data.lazyframe.select(
            pl.col(data.key).is_between(1, 2400) & (pl.col(data.key) % 100 < 60)
        ),
        name="clock_time_hhmm",
        n_failure_cases=10,
    )


def _in_utc(day: date) -> pl.Expr:
    """Whether `time_hour` is on a New York day, which ends on the next day in UTC."""
    return pl.col("time_hour").dt.date().is_between(day, day + timedelta(days=1))


FLIGHTS = Input(
    name="flights",
    schema=pa.DataFrameSchema(
        {
            "date": pa.Column(pl.Date),
            "carrier": pa.Column(pl.String, _one_of(CARRIERS)),
            "flight": pa.Column(pl.Int32, _within(1, 9999)),
            "origin": pa.Column(pl.String, _one_of(ORIGINS)),
            "dest": pa.Column(pl.String, pa.Check.str_matches(r"^[A-Z]{3}$", n_failure_cases=10)),
            "tailnum": pa.Column(pl.String, nullable=True),
            "sched_dep_time": pa.Column(pl.Int32, _hhmm()),
            "sched_arr_time": pa.Column(pl.Int32, _hhmm()),
            "block_minutes": pa.Column(pl.Int32, _within(20, 1000)),
            "distance": pa.Column(pl.Int32, _within(10, 11_000)),
            "seats": pa.Column(pl.Int32, _within(1, 900), nullable=True),
            "plane_year": pa.Column(pl.Int32, _within(1930, 2100), nullable=True),
            "time_hour": pa.Column(UTC_TIME),
        },
        strict=True,
        ordered=True,
    ),
    key=KEY,
    belongs=lambda day: (pl.col("date") == day) & _in_utc(day),
    event_time="time_hour",
    time_zone="America/New_York",
    max_event_age_hours=3,
    max_null_rate={"tailnum": 0.3, "seats": 0.4, "plane_year": 0.4},
)

WEATHER = Input(
    name="weather",
    schema=pa.DataFrameSchema(
        {
            "origin": pa.Column(pl.String, _one_of(ORIGINS)),
            "time_hour": pa.Column(UTC_TIME),
            "temp": pa.Column(pl.Float64, _within(-40, 130), nullable=True),
            "dewp": pa.Column(pl.Float64, _within(-60, 100), nullable=True),
            "humid": pa.Column(pl.Float64, _within(0, 100), nullable=True),
            "wind_dir": pa.Column(pl.Float64, _within(0, 360), nullable=True),
            "wind_speed": pa.Column(pl.Float64, _within(0, 150), nullable=True),
            "wind_gust": pa.Column(pl.Float64, _within(0, 200), nullable=True),
            "precip": pa.Column(pl.Float64, _within(0, 15), nullable=True),
            "pressure": pa.Column(pl.Float64, _within(870, 1085), nullable=True),
            "visib": pa.Column(pl.Float64, _within(0, 100), nullable=True),
        },
        strict=True,
        ordered=True,
    ),
    key=["origin", "time_hour"],
    belongs=lambda day: _in_utc(day),
    event_time="time_hour",
    time_zone="America/New_York",
    max_event_age_hours=7,
    max_null_rate={
        "temp": 0.1, "dewp": 0.1, "humid": 0.1, "wind_dir": 0.3, "wind_speed": 0.1, "precip": 0.1,
        "visib": 0.1, "wind_gust": 1.0, "pressure": 1.0,
    },
    required=False,
)  # fmt: skip

ACTUALS = Input(
    name="actuals",
    schema=pa.DataFrameSchema(
        {
            "date": pa.Column(pl.Date),
            "carrier": pa.Column(pl.String, _one_of(CARRIERS)),
            "flight": pa.Column(pl.Int32, _within(1, 9999)),
            "origin": pa.Column(pl.String, _one_of(ORIGINS)),
            "arr_delay": pa.Column(pl.Float64, _within(-300, 3000), nullable=True),
        },
        strict=True,
        ordered=True,
    ),
    key=KEY,
    belongs=lambda day: pl.col("date") == day,
    max_null_rate={"arr_delay": 1.0},
)

INPUTS = [FLIGHTS, WEATHER]
"""The inputs from which a day is scored. The rows of the first are scored."""

TRUTH = ACTUALS
"""The input that becomes known a day later, from which labels are built."""
