"""From a day's validated inputs to features, and from its truth to labels."""

import polars as pl

from include.targets import Binary
from include.usecase import Group

from .schema import KEY

NUMERIC = ["coinsurance", "incentive", "limitation", "diseases"]
CATEGORICAL = ["plan", "health"]
FEATURES = [*NUMERIC, *CATEGORICAL]

TARGET = Binary(positive="a visit", costs=(1, 4))
"""What is asked of each row: a question with the answer yes or no."""

REQUIRED = ["coinsurance", "plan"]
SLICES = ["plan"]
SEGMENT = ["plan"]
SEASONAL: list[str] = []
OFTEN_MISSING: list[str] = []
DRIFT_BOUNDS: dict[str, float] = {}
GROUPS: list[Group] = []


def build_features(inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """One row a person: the key, then `FEATURES`; null where the questionnaire is missing."""
    rows = inputs["enrolments"]
    if "questionnaires" in inputs:
        rows = rows.join(inputs["questionnaires"], on=KEY, how="left", maintain_order="left")
    else:
        absent = {"limitation": pl.Float64, "diseases": pl.Float64, "health": pl.String}
        rows = rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in absent.items())
    return rows.select(*KEY, pl.col(NUMERIC).cast(pl.Float32), *CATEGORICAL)


def build_labels(actuals: pl.DataFrame) -> pl.DataFrame:
    """The key of every person, and whether there was a visit (`label`, 0 or 1)."""
    return actuals.select(*KEY, label=(pl.col("visits") > 0).cast(pl.Int8))
