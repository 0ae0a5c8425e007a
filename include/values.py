"""The meaning of NaN and infinity in the whole project: NaN is missing, infinity is never a value.

Sources, libraries and models write NaN where there is no number. So NaN becomes null wherever rows
enter: from a landed file (`landed`), and from a use case's code (`preprocess`). A row with an
infinite number is quarantined in validation, and rejected among the features.
"""

import math
from collections.abc import Callable
from typing import Any

import polars as pl


def without_nan(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows with null instead of NaN, also within lists and structs."""
    return rows.with_columns(
        _filled(pl.col(name), dtype).alias(name) for name, dtype in _not_finite(rows).items()
    )


def infinite(rows: pl.DataFrame) -> dict[str, pl.Series]:
    """Column → which rows have an infinite number; only columns with such a row."""
    found = {
        name: rows.select(
            greatest(pl.col(name), dtype, _is_infinite, _is_float).fill_null(0) == 1
        ).to_series()
        for name, dtype in _not_finite(rows).items()
    }
    return {name: marks for name, marks in found.items() if marks.any()}


def _not_finite(rows: pl.DataFrame) -> dict[str, pl.DataType]:
    """The columns that may have NaN or infinity: floats with a finite sum have neither."""
    floats = [name for name, dtype in rows.schema.items() if dtype.is_float()]
    sums = rows.select(pl.col(floats).sum()).row(0) if floats and len(rows) else ()
    finite = {name for name, total in zip(floats, sums, strict=False) if math.isfinite(total)}
    return {
        name: dtype
        for name, dtype in rows.schema.items()
        if name not in finite and _has_floats(dtype)
    }


def leaves(dtype: pl.DataType) -> list[pl.DataType]:
    """The types of the values within a type: itself, or those of its lists and structs."""
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
    return value.is_infinite().cast(pl.UInt8)  # an array of booleans has no maximum


def greatest(
    one: pl.Expr,
    dtype: pl.DataType,
    measure: Callable[[pl.Expr, pl.DataType], pl.Expr],
    counts: Callable[[pl.DataType], bool],
) -> pl.Expr:
    """The largest measure of the values in each row of a column, also within lists and structs.

    Args:
        one: the column; its type has at least one leaf type that `counts`.
        measure: a number for each value, given its type.
        counts: whether values of a type are to be measured.
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
