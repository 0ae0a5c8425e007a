"""From a day's validated inputs to features, and from its truth to labels.

Everything here is known two hours before a flight leaves. Never a feature, because it is known
only after: departure and arrival times and delays, air time. Neither is `tailnum`: it is missing
exactly for cancelled flights. The plane's facts are missing with it, but models cannot learn from
that, because a cancelled flight has no label.
"""

import polars as pl

from include.targets import Binary
from include.usecase import Group

from .schema import KEY
from .source import WEATHER, WEATHER_AGE

NUMERIC = [
    "dep_minute", "arr_minute", "block_minutes", "distance", "day_of_week", "origin_hour_flights",
    "origin_day_flights", "seats", "plane_age", *WEATHER,
]  # fmt: skip
CATEGORICAL = ["carrier", "origin", "dest"]
FEATURES = [*NUMERIC, *CATEGORICAL]

TARGET = Binary(positive="late")
"""What is asked of each row: a question with the answer yes or no."""

REQUIRED = ["dep_minute", "block_minutes", "distance", "carrier", "origin"]
"""Features without which a row is rejected instead of scored."""

GROUPS = [Group("weather", WEATHER), Group("plane", ["seats", "plane_age"])]
"""Groups of features that come together. A row that lacks a group may be scored by a model trained
without it; a row that lacks several groups, by the model of the first one."""

SLICES = ["origin", "carrier"]
"""Columns for slices: a new model may not be much worse on the rows of any value."""

SEGMENT = ["carrier", "origin"]
"""Columns that define segments: if no model is available, a row gets its segment's baseline."""

SEASONAL = ["day_of_week", "origin_hour_flights", "origin_day_flights", *WEATHER]
"""Features that normally differ from day to day; drift of the others is a fault of the data."""

OFTEN_MISSING = ["wind_gust", "pressure"]
"""Features that may have any share of nulls on any day."""

DRIFT_BOUNDS = {"block_minutes": 0.1, "distance": 0.1}
"""Features with their own bound for a day's PSI, instead of the setting's: timetables change
slowly."""

LATE_MINUTES = 15


def build_features(inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """One row per flight, in the flights' order: its key, then `FEATURES`.

    Args:
        inputs: validated rows of one day by input name; `weather` may be absent.

    Returns:
        Numeric features as Float32 and categories as strings, null where unknown. The columns of
        the key that are categories too appear once.
    """
    flights = inputs["flights"]
    rows = flights.with_columns(
        dep_minute=_minute_of_day("sched_dep_time"),
        arr_minute=_minute_of_day("sched_arr_time"),
        day_of_week=pl.col("date").dt.weekday(),
        origin_hour_flights=pl.len().over("origin", "time_hour"),
        origin_day_flights=pl.len().over("origin"),
        plane_age=pl.col("date").dt.year() - pl.col("plane_year"),
    )
    if "weather" in inputs:
        known = inputs["weather"].with_columns(pl.col("time_hour") + WEATHER_AGE)
        rows = rows.join(known, on=["origin", "time_hour"], how="left", maintain_order="left")
    else:
        rows = rows.with_columns(pl.lit(None, pl.Float64).alias(name) for name in WEATHER)
    others = [name for name in CATEGORICAL if name not in KEY]
    return rows.select(*KEY, pl.col(NUMERIC).cast(pl.Float32), *others)


def build_labels(actuals: pl.DataFrame) -> pl.DataFrame:
    """The key of every flight that arrived, and whether it was late (`label`, 0 or 1).

    Cancelled and diverted flights have no arrival delay, hence no label.
    """
    return actuals.drop_nulls("arr_delay").select(
        *KEY, label=(pl.col("arr_delay") >= LATE_MINUTES).cast(pl.Int8)
    )


def _minute_of_day(column: str) -> pl.Expr:
    return pl.col(column) // 100 * 60 + pl.col(column) % 100
