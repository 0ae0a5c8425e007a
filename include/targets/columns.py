"""Predictions as columns of tables.

Published predictions have one column for each number of a prediction (`Target.columns`). Where
several models' predictions stand side by side, each model has one column: of numbers if a
prediction is one number, else of lists with as many numbers as `Target.columns`.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
import pyarrow as pa

from include.targets import Target

PACKED = "score"
"""Column of one model's predictions, where they are in one column."""


def fields(target: Target) -> list[pa.Field]:
    """The columns of published predictions."""
    numbers = [pa.field(name, pa.float32()) for name in target.columns]
    return [*numbers, *(pa.field(name, kind) for name, kind in target.other_columns.items())]


def arrays(target: Target, predictions: np.ndarray) -> list[pa.Array]:
    """Predictions as the columns `fields`; NaN becomes null."""
    matrix = predictions.reshape(len(predictions), len(target.columns)).astype(np.float32)
    numbers = [pa.array(np.ascontiguousarray(column), from_pandas=True) for column in matrix.T]
    others = target.others(predictions)
    return [*numbers, *(others[name] for name in target.other_columns)]


def read(target: Target, frame: pl.DataFrame) -> np.ndarray:
    """The predictions in a table with the columns `fields`; null becomes NaN."""
    found = [frame[name].cast(pl.Float32).to_numpy() for name in target.columns]
    return found[0] if len(found) == 1 else np.column_stack(found)


def are_in(target: Target, names: Iterable[str]) -> bool:
    """Whether a table has the columns of this target, and not those of another one."""
    return set(target.columns) <= set(names)


def packed_type(target: Target) -> pa.DataType:
    """The type of a column with a model's predictions."""
    size = len(target.columns)
    return pa.float32() if size == 1 else pa.list_(pa.float32(), size)


def packed(target: Target, predictions: np.ndarray) -> pa.Array:
    """Predictions as one column."""
    flat = pa.array(predictions.astype(np.float32).ravel())
    size = len(target.columns)
    return flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)


def pack(target: Target) -> pl.Expr:
    """The columns `fields` of a table as one column; null where a row has no prediction."""
    first = pl.col(target.columns[0])
    if len(target.columns) == 1:
        return first.alias(PACKED)
    array = pl.concat_arr(pl.col(name).cast(pl.Float32) for name in target.columns)
    return pl.when(first.is_not_null()).then(array).alias(PACKED)


def watched(target: Target, predictions: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of predictions whose distributions are compared, by column."""
    matrix = predictions.reshape(len(predictions), len(target.columns))
    places = {name: place for place, name in enumerate(target.columns)}
    return {name: matrix[:, places[name]] for name in target.watched}


def agreement(target: Target, one: np.ndarray, other: np.ndarray) -> float | None:
    """Correlation of two models' predictions of the same rows; None if one never differs.

    Of several numbers, each is compared with its own mean.
    """
    sides = []
    for predictions in (one, other):
        columns = np.column_stack(list(watched(target, predictions).values())).astype(np.float64)
        sides.append((columns - columns.mean(axis=0)).ravel())
    if not all(side.std() > 0 for side in sides):
        return None
    return float(np.corrcoef(*sides)[0, 1])


def profiled(
    target: Target, predictions: np.ndarray, members: Mapping[str, np.ndarray]
) -> pl.DataFrame:
    """The columns of a day's predictions that are profiled: of each member, the first one."""
    columns = dict(watched(target, predictions))
    for name, given in members.items():
        columns[name] = given.reshape(len(given), len(target.columns))[:, 0]
    return pl.DataFrame(columns)
