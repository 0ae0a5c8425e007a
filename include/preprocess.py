"""From validated rows to features, and from truth to labels, for both scoring and training.

The only callers of a use case's `build_features` and `build_labels`: they turn NaN into null.
"""

from datetime import date

import polars as pl

from include.errors import BadData
from include.lake.tables import Version
from include.usecase import UseCase
from include.values import without_nan
from include.wording import listed, quoted


def features_of(case: UseCase, validated: Version) -> pl.DataFrame:
    """The key and the features of every row of a validated day, in the same order.

    Raises:
        BadData: the features have other rows or another order.
    """
    inputs = {name: validated.read(name) for name in validated.manifest().parts}
    rows = without_nan(case.features.build_features(inputs))
    check_keys(case, rows, inputs[case.inputs[0].name], f"{case.inputs[0].name} of {validated.key}")
    return rows


def check_keys(case: UseCase, rows: pl.DataFrame, main: pl.DataFrame, what: str) -> None:
    """Check that features have the rows of the first input, each once and in the same order.

    Args:
        rows: rows with the key's columns.
        main: the validated rows of the first input.
        what: the name of the first input in messages.

    Raises:
        BadData: naming the first difference.
    """
    given, wanted = rows.select(case.key), main.select(case.key)
    if given.equals(wanted):
        return
    if len(given) != len(wanted):
        found = f"{len(given)} rows of features for {len(wanted)} rows of {what}"
    elif given.schema != wanted.schema:
        found = f"keys of other types than those of {what}: {listed(given.dtypes)}"
    else:
        pairs = enumerate(zip(given.iter_rows(), wanted.iter_rows(), strict=True))
        number, (one, other) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
        found = (
            f"other rows than those of {what}, or another order: row {number} has the key "
            f"{quoted(one)}, not {quoted(other)}"
        )
    raise BadData(
        f"build_features gives {found}. Nothing was scored; change it: one row of features for "
        'each row of the first input, in its order (joins need `maintain_order="left"`).'
    )


def labels_of(case: UseCase, truth: Version) -> pl.DataFrame:
    """The key and the `label` of every row of a day whose truth is known.

    Raises:
        BadData: a label is impossible.
    """
    rows = without_nan(case.features.build_labels(truth.read(case.truth.name)))
    if wrong := case.target.wrong_labels(rows["label"]):
        where = rows.filter(~case.target.possible(rows["label"])).select(case.key)
        keys = [" ".join(map(str, key)) for key in where.iter_rows()]
        rows_named = f" ({len(keys)} rows: {listed(keys, 3)})" if keys else ""
        raise BadData(
            f"The label that build_labels gives for {case.truth.name} of {truth.key} {wrong}"
            f"{rows_named}. No row of this day was used; change features.py or its TARGET, or "
            "correct the truth and clear this run."
        )
    return rows.with_columns(label=case.target.codes(rows["label"]))


def labelled(case: UseCase, day: date, validated: Version, truth: Version) -> pl.DataFrame:
    """The rows of a validated day whose truth is known: key, features, `label` and `day`."""
    rows = features_of(case, validated).filter(is_usable(case))
    joined = rows.join(labels_of(case, truth), on=case.key, how="inner", maintain_order="left")
    return joined.with_columns(day=pl.lit(day))


def is_usable(case: UseCase) -> pl.Expr:
    """True for rows of features that can be scored and trained on: complete and finite."""
    missing = [pl.col(name).is_null() for name in case.features.REQUIRED]
    nan = [
        pl.col(name).is_nan() for name in case.features.REQUIRED if name in case.features.NUMERIC
    ]
    infinite = [pl.col(name).is_infinite() for name in case.features.NUMERIC]
    return ~pl.any_horizontal(*missing, *nan, *infinite).fill_null(False)
