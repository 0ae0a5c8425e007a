"""A file with a column of any type that Arrow knows is published, or refused by a named breach."""

from pathlib import Path
from typing import Any

import pandera.polars as pa_polars
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from include.errors import BadData
from include.lake.tables import Lake
from include.landed import foreign_data
from include.usecase import Input
from local.in_process import validate_day
from tests.case import at, with_inputs

KEY = "2026-03-01"
ROWS = 3

INTEGERS = [
    pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()
]  # fmt: skip
UNITS = st.sampled_from(["s", "ms", "us", "ns"])
ZONES = st.sampled_from([None, "UTC", "Z", "+05:30", "Asia/Tokyo", "America/New_York"])

FLAT = st.one_of(
    st.sampled_from(
        [
            *INTEGERS, pa.null(), pa.bool_(), pa.float16(), pa.float32(), pa.float64(), pa.date32(),
            pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"),
            pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
            pa.binary_view(), pa.binary(0), pa.binary(5), pa.month_day_nano_interval(),
            pa.uuid(), pa.json_(), pa.bool8(), pa.opaque(pa.int32(), "type", "vendor"),
        ]
    ),
    st.builds(pa.timestamp, UNITS, ZONES),
    st.builds(pa.duration, UNITS),
    st.builds(pa.decimal128, st.integers(10, 38), st.integers(-3, 10)),
    st.builds(pa.decimal256, st.integers(10, 76), st.integers(-3, 10)),
    st.builds(pa.decimal32, st.integers(1, 9), st.integers(0, 1)),
    st.builds(pa.decimal64, st.integers(1, 18), st.integers(0, 1)),
    st.builds(pa.dictionary, st.sampled_from(INTEGERS), st.sampled_from([pa.string(), pa.int32()])),
)  # fmt: skip


def nested(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    fields = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(pa.list_, inner),
        st.builds(pa.large_list, inner),
        st.builds(pa.list_view, inner),
        st.builds(pa.list_, inner, st.integers(0, 3)),
        fields.map(lambda types: pa.struct([(f"{n}", one) for n, one in enumerate(types)])),
        st.builds(pa.map_, st.sampled_from([pa.string(), pa.int32()]), inner),
        st.builds(pa.run_end_encoded, st.just(pa.int32()), inner),
    )


TYPES = st.recursive(FLAT, nested, max_leaves=4)


def values(data: st.DataObject, dtype: pa.DataType, count: int = ROWS) -> pa.Array:
    """Some values of a type, wild ones among them; nulls where it is not known how to make any."""
    if pa.types.is_floating(dtype):
        numbers = st.floats(width=16 if pa.types.is_float16(dtype) else 32)
        return pa.array([data.draw(numbers) for _ in range(count)]).cast(dtype)
    if pa.types.is_integer(dtype) or pa.types.is_temporal(dtype):
        bits = min(dtype.bit_width, 63)
        numbers = st.integers(
            0 if "uint" in str(dtype) else -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        )
        as_numbers = pa.int32() if dtype.bit_width == 32 else pa.int64()
        found = pa.array([data.draw(numbers) for _ in range(count)], pa.int64())
        if pa.types.is_integer(dtype):
            return found.cast(dtype)
        return (
            found.cast(as_numbers).view(dtype) if dtype.bit_width < 128 else pa.nulls(count, dtype)
        )
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return pa.array([data.draw(st.text(max_size=5)) for _ in range(count)], dtype)
    if pa.types.is_decimal(dtype):
        return (
            pa.array([data.draw(st.integers(-9, 9)) for _ in range(count)])
            .cast(pa.decimal128(38, 10))
            .cast(dtype, safe=False)
        )
    if pa.types.is_struct(dtype):
        fields = [dtype.field(number) for number in range(dtype.num_fields)]
        parts = [values(data, field.type, count) for field in fields]
        return pa.StructArray.from_arrays(parts, fields=fields)
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        kind = pa.ListArray if pa.types.is_list(dtype) else pa.LargeListArray
        return kind.from_arrays(
            [0, *range(2, count + 2)], values(data, dtype.value_type, count + 1)
        )
    return pa.nulls(count, dtype)


def as_contract(dtype: pa.DataType) -> Any:
    """What a contract would ask for so that the type is right; text if Polars has none for it."""
    try:
        with foreign_data("the type"):
            return pl.Series(pa.array([], dtype)).dtype
    except BadData:
        return pl.String


@given(data=st.data(), dtype=TYPES, page=st.sampled_from(["1.0", "2.0"]))
@settings(max_examples=60)
def test_a_column_of_any_type_is_published_or_refused_by_name(
    data: st.DataObject, dtype: pa.DataType, page: str, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    path = lake.landing_path("any", KEY)
    assert isinstance(path, Path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        table = pa.table({"id": pa.array(range(ROWS)), "value": values(data, dtype)})
        pq.write_table(table, path, data_page_version=page)
    except (pa.ArrowException, OSError):
        return  # no Parquet has it
    schema = pa_polars.DataFrameSchema(
        {
            "id": pa_polars.Column(pl.Int64),
            "value": pa_polars.Column(as_contract(dtype), nullable=True),
        }
    )
    declared = Input("any", schema, ["id"], belongs=lambda day: pl.lit(True))
    refusal = None
    try:
        validate_day(with_inputs(at(lake), declared), "validated", KEY)
    except BadData as error:
        refusal = str(error)
    if refusal is None:
        assert len(lake.current("validated", KEY).read("any")) == ROWS
    else:
        assert str(path) in refusal
        assert "'value'" in refusal or "value:" in refusal
