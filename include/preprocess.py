"""Validated rows to features, and truth to labels, for scoring and for training alike.

The one door to what a use case builds: whatever its code leaves as NaN is null beyond it.
"""

import polars as pl

from include.lake import Version
from include.usecase import features
from include.usecase.schema import TRUTH
from include.values import without_nan


def features_of(validated: Version) -> pl.DataFrame:
    """The key and the features of every row of a validated day, in its order."""
    inputs = {name: validated.read(name) for name in validated.manifest().parts}
    return without_nan(features.build_features(inputs))


def labels_of(truth: Version) -> pl.DataFrame:
    """The key and the `label` of every row of a day whose truth is known."""
    return without_nan(features.build_labels(truth.read(TRUTH.name)))


def is_usable() -> pl.Expr:
    """True for rows of features that can be scored and trained on: complete and finite."""
    missing = [pl.col(name).is_null() for name in features.REQUIRED]
    nan = [pl.col(name).is_nan() for name in features.REQUIRED if name in features.NUMERIC]
    infinite = [pl.col(name).is_infinite() for name in features.NUMERIC]
    return ~pl.any_horizontal(*missing, *nan, *infinite).fill_null(False)
