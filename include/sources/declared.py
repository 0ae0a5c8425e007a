"""Values as their contract declares them, or a message that says which ones are something else."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from include.errors import BadData
from include.usecase import Input
from include.wording import cut, quoted

FAULTS = (TypeError, OverflowError, ValueError, pl.exceptions.PolarsError)


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
    # Polars rounds decimals, guesses the format of dates, and takes a time without a zone for UTC.
    is_guessed = dtype.is_temporal() or any(isinstance(one, Decimal) for one in values)
    given = [_converted(name, one, dtype) for one in values] if is_guessed else values
    try:
        return pl.Series(name, given, dtype, strict=True)
    except FAULTS:
        return _one_by_one(name, values, dtype)


def _one_by_one(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """As `column`, but slowly, to find the value that is at fault."""
    found = []
    for value in values:
        try:
            found.append(pl.Series(name, [_converted(name, value, dtype)], dtype, strict=True))
        except FAULTS as error:
            raise _wrong(name, value, dtype, "it is out of range") from error
    return pl.concat(found) if found else pl.Series(name, [], dtype)


def _converted(name: str, value: Any, dtype: pl.DataType) -> Any:
    """A value as the type holds it.

    Raises:
        BadData: it is of another type, or would change.
    """
    if value is None:
        return None
    if dtype.is_float() and isinstance(value, int | float | Decimal):
        number = float(value)
        if isinstance(value, Decimal) and value.is_finite() and Decimal(repr(number)) != value:
            raise _wrong(name, value, dtype, "it would be rounded; declare pl.Decimal")
        return number
    if dtype.is_integer() and isinstance(value, int | Decimal | float) and value == int(value):
        return int(value)
    if dtype == pl.Boolean and value in (0, 1):
        return bool(value)
    if dtype == pl.String and isinstance(value, str):
        return value
    if dtype == pl.Date:
        return _day(name, value, dtype)
    if isinstance(dtype, pl.Datetime):
        return _moment(name, value, dtype)
    if isinstance(dtype, pl.Decimal) and isinstance(value, int | Decimal | str):
        return Decimal(value)
    if dtype == pl.Binary and isinstance(value, bytes | memoryview):
        return bytes(value)
    raise _wrong(name, value, dtype, f"it is a {type(value).__name__}")


def _day(name: str, value: Any, dtype: pl.DataType) -> date:
    if isinstance(value, datetime):
        value = value.isoformat()
    try:
        return value if isinstance(value, date) else date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _wrong(name, value, dtype, "it is no date") from error


def _moment(name: str, value: Any, dtype: pl.Datetime) -> datetime:
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _wrong(name, value, dtype, "it is no time stamp") from error
    if (found.tzinfo is None) != (dtype.time_zone is None):
        zone = "has no time zone" if found.tzinfo is None else "has a time zone"
        raise _wrong(name, value, dtype, f"it {zone}; select it AT TIME ZONE 'UTC', for instance")
    return found.astimezone(UTC) if found.tzinfo is not None else found


def _wrong(name: str, value: Any, dtype: pl.DataType, why: str) -> BadData:
    return BadData(f"column {quoted(name)} holds {cut(repr(value), 80)}, not {dtype}: {why}")
