"""What NaN and infinity mean, in the whole project: NaN is missing, infinity is never a value.

Sources, libraries and models write NaN where there is no number, so it becomes null wherever rows
of others come in: a landed file (`landed`), and what a use case builds (`preprocess`). A row with
an infinite number is quarantined when it is validated, and rejected when it is a feature.
"""

import math

import polars as pl


def without_nan(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows, null wherever a float is NaN, within lists and structs too."""
    return rows.with_columns(
        _filled(pl.col(name), dtype).alias(name) for name, dtype in _not_finite(rows).items()
    )


def infinite(rows: pl.DataFrame) -> dict[str, pl.Series]:
    """Which rows hold an infinite number, by column; only columns that have such a row."""
    found = {
        name: rows.select(_is_infinite(pl.col(name), dtype).fill_null(False)).to_series()
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
    return any(one.is_float() for one in leaves(dtype))


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


def _is_infinite(one: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return one.is_infinite()
    if isinstance(dtype, pl.List):
        return one.list.eval(_is_infinite(pl.element(), dtype.inner)).list.any()  # type: ignore[arg-type]
    if isinstance(dtype, pl.Array):
        return one.arr.eval(_is_infinite(pl.element(), dtype.inner)).arr.any()  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return pl.any_horizontal(
            _is_infinite(one.struct.field(field.name), field.dtype)  # type: ignore[arg-type]
            for field in dtype.fields
            if _has_floats(field.dtype)  # type: ignore[arg-type]
        )
    raise AssertionError(dtype)
