"""The features of `flight_delays`, and what became of the flight as label."""

import polars as pl

from include.targets import Multiclass
from include.usecase import Group
from include.usecases.flight_delays.features import (
    CATEGORICAL,
    DRIFT_BOUNDS,
    FEATURES,
    NUMERIC,
    OFTEN_MISSING,
    REQUIRED,
    SEASONAL,
    SEGMENT,
    SLICES,
    build_features,
)

from .schema import KEY

__all__ = [
    "CATEGORICAL", "DRIFT_BOUNDS", "FEATURES", "GROUPS", "NUMERIC", "OFTEN_MISSING", "REQUIRED",
    "SEASONAL", "SEGMENT", "SLICES", "TARGET", "build_features", "build_labels",
]  # fmt: skip

TARGET = Multiclass(["on_time", "late", "very_late", "cancelled"])
"""What became of a flight; a diverted one has no arrival and counts as cancelled."""

GROUPS: list[Group] = []

LATE_MINUTES, VERY_LATE_MINUTES = 15, 60


def build_labels(actuals: pl.DataFrame) -> pl.DataFrame:
    """The key of every flight, and what became of it."""
    delay = pl.col("arr_delay")
    outcome = (
        pl.when(delay.is_null())
        .then(pl.lit("cancelled"))
        .when(delay >= VERY_LATE_MINUTES)
        .then(pl.lit("very_late"))
        .when(delay >= LATE_MINUTES)
        .then(pl.lit("late"))
        .otherwise(pl.lit("on_time"))
    )
    return actuals.select(*KEY, label=outcome)
