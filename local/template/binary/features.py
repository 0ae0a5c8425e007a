"""From a day's validated inputs to features, and from its truth to labels."""

import polars as pl

from include.targets import Binary
from include.usecase import Group

from .schema import KEY

NUMERIC = ["months", "spent", "weekday"]
CATEGORICAL = ["plan"]
FEATURES = [*NUMERIC, *CATEGORICAL]

TARGET = Binary(positive="leaving")
"""What is asked of each row: will the customer leave? The answer is the probability of yes."""

REQUIRED = ["months", "plan"]
"""A row without one of these is not scored."""

SLICES = ["plan"]
"""A new model may not be much worse on any value of these."""

SEGMENT = ["plan"]
"""Columns that define segments: if no model is available, a row gets its segment's baseline."""

SEASONAL = ["weekday"]
"""Features that normally differ from day to day."""

OFTEN_MISSING: list[str] = []
"""Features that may have any share of nulls on any day."""

DRIFT_BOUNDS: dict[str, float] = {}
"""Features with their own bound for drift, instead of the setting's."""

GROUPS: list[Group] = []
"""Features that come together, and may be missing together."""


def build_features(inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """One row for each row of the first input, in its order: the key, then `FEATURES`.

    Use only what is known when the row is scored.
    """
    rows = inputs["customers"].with_columns(weekday=pl.col("date").dt.weekday())
    return rows.select(*KEY, pl.col(NUMERIC).cast(pl.Float32), *CATEGORICAL)


def build_labels(truth: pl.DataFrame) -> pl.DataFrame:
    """The key of every row whose answer is known, and the answer, 0 or 1."""
    return truth.select(*KEY, label=(pl.col("spent_next") == 0).cast(pl.Int8))
