"""The features of `flight_delays`, and the delay in minutes as label."""

import polars as pl

from include.targets import Regression
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

TARGET = Regression("minutes", error="absolute", interval=0.8)
"""Minutes of delay. The absolute error asks for the median, which a few days late do not move."""

GROUPS: list[Group] = []


def build_labels(actuals: pl.DataFrame) -> pl.DataFrame:
    """The key of every flight that arrived, and by how many minutes it was late."""
    return actuals.drop_nulls("arr_delay").select(*KEY, label=pl.col("arr_delay").cast(pl.Float64))
