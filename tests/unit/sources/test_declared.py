"""Values of databases as declared types: exact, or refused."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import BadData
from include.sources.declared import column


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, None, 0], pl.Boolean(), [True, None, False]),
        ([Decimal("0.10"), 2], pl.Float64(), [0.1, 2.0]),
        ([Decimal(3), 4.0], pl.Int16(), [3, 4]),
        (["2026-11-03", None], pl.Date(), [date(2026, 11, 3), None]),
        ([Decimal("1.25")], pl.Decimal(10, 2), [Decimal("1.25")]),
        ([memoryview(b"x")], pl.Binary(), [b"x"]),
        ([float("nan")], pl.Float32(), [float("nan")]),
        ([Decimal("0.1")], pl.Float32(), [0.10000000149011612]),
        ([datetime(2026, 11, 3)], pl.Date(), [date(2026, 11, 3)]),
        ([time(8, 30)], pl.Time(), [time(8, 30)]),
    ],
)
def test_a_value_keeps_its_meaning(values: list[Any], dtype: pl.DataType, expected: Any) -> None:
    found = column("a", values, dtype)
    assert found.dtype == dtype
    assert str(found.to_list()) == str(expected)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ("1", pl.Int32()), (1.5, pl.Int32()), (2**31, pl.Int32()), (1, pl.String()),
        ("yes", pl.Boolean()), (2, pl.Boolean()), ("03.11.2026", pl.Date()),
        (datetime(2026, 11, 3), pl.Datetime("us", "UTC")),
        (datetime(2026, 11, 3, tzinfo=UTC), pl.Datetime("us")),
        (Decimal("0.1234567890123456789"), pl.Float64()), ("text", pl.Binary()),
        (Decimal("1.255"), pl.Decimal(10, 2)), ("1.255", pl.Decimal(10, 2)),
        (1.255, pl.Decimal(10, 2)), ("", pl.Decimal(10, 2)), (True, pl.Float64()),
        (True, pl.Int32()), (2**53 + 1, pl.Float64()), (Decimal(16777217), pl.Float32()),
        (Decimal("NaN"), pl.Int32()), (float("inf"), pl.Int32()),
        (datetime(2026, 11, 3, 8), pl.Date()),
        (datetime(2026, 11, 3, 8, 0, 0, 1, tzinfo=UTC), pl.Datetime("ms", "UTC")),
    ],
)  # fmt: skip
def test_a_value_that_would_change_is_named_with_its_column(value: Any, dtype: pl.DataType) -> None:
    with pytest.raises(BadData, match="column 'a' holds"):
        column("a", [None, value], dtype)


@given(st.lists(st.none() | st.decimals(allow_nan=False, allow_infinity=False)))
def test_a_decimal_is_exact_or_refused(values: list[Decimal | None]) -> None:
    try:
        found = column("a", values, pl.Float64())
    except BadData:
        return
    for value, given_back in zip(values, found, strict=True):
        assert (value is None) == (given_back is None)
        assert value is None or Decimal(repr(given_back)) == value


def test_a_column_that_is_not_declared_becomes_text_for_the_contract_to_refuse() -> None:
    assert column("a", [1, None, "x"], None).to_list() == ["1", None, "x"]
