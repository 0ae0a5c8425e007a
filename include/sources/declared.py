"""Values as their contract declares them, or a message that says which ones are something else."""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from types import NoneType
from typing import Any

import numpy as np
import polars as pl

from include.errors import BadData
from include.usecase import Input
from include.wording import cut, quoted

FAULTS = (TypeError, ArithmeticError, ValueError, pl.exceptions.PolarsError)

EXACT = Context(prec=80)


def types_of(one: Input) -> dict[str, pl.DataType]:
    """Column → the Polars type that the contract of an input declares."""
    return {
        name: column.dtype.type
        for name, column in one.schema.columns.items()
        if column.dtype is not None
    }


def column(name: str, values: Sequence[Any], dtype: pl.DataType | None) -> pl.Series:
    """Values of a database as a column of the declared type.

    Args:
        dtype: the declared type; None if the column is not in the contract.

    Raises:
        BadData: a value is of another type, or would change in this one.
    """
    if dtype is None:
        return pl.Series(name, [None if one is None else str(one) for one in values], pl.String)
    if not set(map(type, values)) <= {NoneType, _natural(dtype)}:
        convert = _conversion(dtype)
        values = [None if one is None else convert(name, one, dtype) for one in values]
    try:
        return pl.Series(name, values, dtype, strict=True)
    except FAULTS:
        for value in values:
            try:
                pl.Series(name, [value], dtype, strict=True)
            except FAULTS as error:
                raise _wrong(name, value, dtype, "it is out of range") from error
        raise


def _natural(dtype: pl.DataType) -> type:
    """The type of Python whose values need no look; others are converted one by one."""
    if dtype.is_float() and dtype == pl.Float64:
        return float
    if dtype.is_integer():
        return int
    natural: dict[type, type] = {pl.String: str, pl.Boolean: bool, pl.Binary: bytes, pl.Date: date}
    return natural.get(dtype.base_type(), NoneType)


def _conversion(dtype: pl.DataType) -> Callable[[str, Any, Any], Any]:
    """What converts a value to a type, or raises BadData if it is of another one or would change.

    It is chosen once for a column, because comparing types takes longer than converting.
    """
    if dtype.is_float():
        return _float
    if dtype.is_integer():
        return _whole
    found: dict[type, Callable[[str, Any, Any], Any]] = {
        pl.Boolean: _truth, pl.Date: _day, pl.Datetime: _moment, pl.Decimal: _decimal,
        pl.Binary: _bytes,
    }  # fmt: skip
    return found.get(dtype.base_type(), _same)


SAME: dict[type, type] = {pl.String: str, pl.Time: time, pl.Duration: timedelta}
"""Types whose values are taken as they are, and the type of Python that they must have."""


def _same(name: str, value: Any, dtype: pl.DataType) -> Any:
    if isinstance(value, SAME.get(dtype.base_type(), ())):
        return value
    raise _other(name, value, dtype)


def _bytes(name: str, value: Any, dtype: pl.DataType) -> bytes:
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    raise _other(name, value, dtype)


def _truth(name: str, value: Any, dtype: pl.DataType) -> bool:
    if value in (0, 1):
        return bool(value)
    raise _other(name, value, dtype)


def _whole(name: str, value: Any, dtype: pl.DataType) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _other(name, value, dtype)
    if not math.isfinite(value) or value != int(value):
        raise _wrong(name, value, dtype, "it is not whole")
    return int(value)


def _float(name: str, value: Any, dtype: pl.DataType) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _other(name, value, dtype)
    number = np.float32(value) if dtype == pl.Float32 else np.float64(value)
    # The shortest text that means this number must be the value that was given.
    if not isinstance(value, float) and np.isfinite(number) and Decimal(str(number)) != value:
        raise _wrong(name, value, dtype, "it would be rounded; declare pl.Decimal")
    return float(number)


def _decimal(name: str, value: Any, dtype: pl.Decimal) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise _other(name, value, dtype)
    try:
        number = Decimal(str(value))
        fits = number == number.quantize(Decimal(1).scaleb(-(dtype.scale or 0)), context=EXACT)
    except ArithmeticError as error:
        raise _wrong(name, value, dtype, "it is not such a number") from error
    if not fits:
        raise _wrong(name, value, dtype, "it would be rounded")
    return number


def _day(name: str, value: Any, dtype: pl.DataType) -> date:
    if isinstance(value, datetime):
        if value.tzinfo is not None or value.time() != time():
            raise _wrong(name, value, dtype, "it has a time of day")
        return value.date()
    try:
        return value if isinstance(value, date) else date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _wrong(name, value, dtype, "it is not a date") from error


def _moment(name: str, value: Any, dtype: pl.Datetime) -> datetime:
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _wrong(name, value, dtype, "it is not a time stamp") from error
    if (found.tzinfo is None) != (dtype.time_zone is None):
        zone = "has no time zone" if found.tzinfo is None else "has a time zone"
        raise _wrong(name, value, dtype, f"it {zone}; select it AT TIME ZONE 'UTC', for instance")
    if dtype.time_unit == "ms" and found.microsecond % 1000:
        raise _wrong(name, value, dtype, "it has microseconds, which would be cut off")
    return found.astimezone(UTC) if found.tzinfo is not None else found


def _other(name: str, value: Any, dtype: pl.DataType) -> BadData:
    return _wrong(name, value, dtype, f"it is a {type(value).__name__}")


def _wrong(name: str, value: Any, dtype: pl.DataType, why: str) -> BadData:
    return BadData(f"column {quoted(name)} holds {cut(repr(value), 80)}, not {dtype}: {why}")
