"""From a day's validated inputs to features, and from its truth to labels."""

import polars as pl

from include.usecase import Group

from .schema import KEY

NUMERIC = ["months", "spent", "weekday"]
CATEGORICAL = ["plan"]
FEATURES = [*NUMERIC, *CATEGORICAL]

REQUIRED = ["months", "plan"]
"""Without these a row is not scored."""

SLICES = ["plan"]
"""No new model may be much worse on any value of these."""

SEGMENT = ["plan"]
"""Where no model is left, the base rate of a row's segment is its score."""

SEASONAL = ["weekday"]
"""These honestly differ from day to day."""

OFTEN_MISSING: list[str] = []
"""Of these any share may be null on any day."""

DRIFT_BOUNDS: dict[str, float] = {}
"""For these another drift than the setting's calls a person."""

GROUPS: list[Group] = []
"""Features that come together, and may be missing together."""


def build_features(inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """One row for each of the first input, in its order: the key, then `FEATURES`.

    Only what is known when the row is scored belongs here.
    """
    rows = inputs["customers"].with_columns(weekday=pl.col("date").dt.weekday())
    return rows.select(*KEY, pl.col(NUMERIC).cast(pl.Float32), *CATEGORICAL)


def build_labels(truth: pl.DataFrame) -> pl.DataFrame:
    """The key of every row whose answer is known, and the answer, 0 or 1."""
    return truth.select(*KEY, label=pl.col("has_left").cast(pl.Int8))
