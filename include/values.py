"""What NaN and infinity mean, in the whole project: NaN is missing, infinity is never a value.

Sources, libraries and models write NaN where there is no number, so it becomes null wherever rows
of others come in: a landed file (`landed`), and what a use case builds (`preprocess`). A row with
an infinite number is quarantined when it is validated, and rejected when it is a feature.
"""

import math
from collections.abc import Callable
from typing import Any

import polars as pl


def without_nan(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows, null wherever a float is NaN, within lists and structs too."""
    return rows.with_columns(
        _filled(pl.col(name), dtype).alias(name) for name, dtype in _not_finite(rows).items()
    )


def infinite(rows: pl.DataFrame) -> dict[str, pl.Series]:
    """Which rows hold an infinite number, by column; only columns that have such a row."""
    found = {
        name: rows.select(
            greatest(pl.col(name), dtype, _is_infinite, _is_float).fill_null(0) == 1
        ).to_series()
        for name, dtype in _not_finite(rows).items()
    }
    return {name: marks for name, marks in found.items() if marks.any()}


def _not_finite(rows: pl.DataFrame) -> dict[str, pl.DataType]:
    """The columns that may hold NaN or infinity: floats whose sum is finite hold neither."""
    floats = [name for name, dtype in rows.schema.items() if dtype.is_float()]
    sums = rows.select(pl.col(floats).sum()).row(0) if floats and len(rows) else ()
    finite = {name for name, total in zip(floats, sums, strict=False) if math.isfinite(total)}
    return {
        name: dtype
        for name, dtype in rows.schema.items()
        if name not in finite and _has_floats(dtype)
    }


def leaves(dtype: pl.DataType) -> list[pl.DataType]:
    """The types of the values within a type: itself, or what its lists and structs hold."""
    if isinstance(dtype, pl.List | pl.Array):
        return leaves(dtype.inner)  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return [leaf for field in dtype.fields for leaf in leaves(field.dtype)]  # type: ignore[arg-type]
    return [dtype]


def _has_floats(dtype: pl.DataType) -> bool:
    return any(map(_is_float, leaves(dtype)))


def _is_float(dtype: pl.DataType) -> bool:
    return dtype.is_float()


def _filled(one: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return one.fill_nan(None)
    if isinstance(dtype, pl.List):
        return one.list.eval(_filled(pl.element(), dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Array):
        return one.arr.eval(_filled(pl.element(), dtype.inner))  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return one.struct.with_fields(
            _filled(pl.field(field.name), field.dtype).alias(field.name)  # type: ignore[arg-type]
            for field in dtype.fields
            if _has_floats(field.dtype)  # type: ignore[arg-type]
        )
    return one


def _is_infinite(value: pl.Expr, _: pl.DataType) -> pl.Expr:
    return value.is_infinite().cast(pl.UInt8)  # an array of booleans has no greatest


def greatest(
    one: pl.Expr,
    dtype: pl.DataType,
    measure: Callable[[pl.Expr, pl.DataType], pl.Expr],
    counts: Callable[[pl.DataType], bool],
) -> pl.Expr:
    """The greatest measure of the values within each row of a column: of its lists and structs.

    Args:
        one: the column, of a type that has a leaf that counts.
        measure: a number for each value, given its type.
        counts: whether values of a type are measured.
    """

    def within(one: pl.Expr, dtype: Any) -> pl.Expr:
        if isinstance(dtype, pl.List):
            return one.list.eval(within(pl.element(), dtype.inner)).list.max()
        if isinstance(dtype, pl.Array):
            return one.arr.eval(within(pl.element(), dtype.inner)).arr.max()
        if isinstance(dtype, pl.Struct):
            return pl.max_horizontal(
                within(one.struct.field(field.name), field.dtype)
                for field in dtype.fields
                if any(map(counts, leaves(field.dtype)))  # type: ignore[arg-type]
            )
        return measure(one, dtype)

    return within(one, dtype)
