"""From a day's validated inputs to features, and from its truth to labels."""

import polars as pl

from include.targets import Regression
from include.usecase import Group

from .schema import KEY

NUMERIC = ["log_carat", "depth", "table", "length", "width", "height"]
CATEGORICAL = ["cut", "color", "clarity"]
FEATURES = [*NUMERIC, *CATEGORICAL]

TARGET = Regression("dollars", error="absolute", interval=0.8, log=True, least=0)
"""Models are fitted on the logarithm, because an error of a tenth is as bad for every stone."""

REQUIRED = ["log_carat", "cut", "color", "clarity"]
SLICES = ["cut", "color"]
SEGMENT = ["clarity"]
SEASONAL: list[str] = []
OFTEN_MISSING: list[str] = []
DRIFT_BOUNDS: dict[str, float] = {}
GROUPS: list[Group] = []


def build_features(inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """One row a stone: the key, then `FEATURES`."""
    rows = inputs["stones"].with_columns(log_carat=pl.col("carat").log())
    return rows.select(*KEY, pl.col(NUMERIC).cast(pl.Float32), *CATEGORICAL)


def build_labels(actuals: pl.DataFrame) -> pl.DataFrame:
    """The key of every stone that was sold, and its price."""
    return actuals.select(*KEY, label="price")
