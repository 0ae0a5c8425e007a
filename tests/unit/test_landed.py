"""What a file may cost: bytes bound a slice, a text, a row and a day, before they are decoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import landed
from include.errors import BadData
from include.lake.files import to_arrow
from tests.case import CASE
from tests.unit import children

TEXTS = st.lists(
    st.one_of(st.none(), st.text(max_size=3), st.integers(0, 900).map(lambda n: "é" * n)),
    min_size=1,
    max_size=120,
)
ENCODINGS: list[dict[str, Any]] = [
    {},
    {"use_dictionary": False},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}},
    {"dictionary_pagesize_limit": 100, "data_page_size": 100, "write_batch_size": 2},
]


def read(path: Path) -> list[pl.DataFrame]:
    return list(landed.slices(CASE, path, {}))


@given(
    texts=TEXTS,
    times=st.integers(1, 30),
    encoding=st.sampled_from(ENCODINGS),
    group_rows=st.sampled_from([7, 100, 10_000]),
    most_bytes=st.sampled_from([5_000, 100_000]),
    most_rows=st.sampled_from([10, 10_000]),
)
def test_slices_are_all_of_a_file_and_none_is_large(
    texts: list[str | None],
    times: int,
    encoding: dict[str, Any],
    group_rows: int,
    most_bytes: int,
    most_rows: int,
    tmp_path: Path,
) -> None:
    rows = pl.DataFrame({"text": pl.Series(texts * times, dtype=pl.String)}).with_row_index()
    pq.write_table(to_arrow(rows), tmp_path / "x", row_group_size=group_rows, **encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landed, "SLICE_BYTES", most_bytes)
        patch.setattr(landed, "SLICE_ROWS", most_rows)
        slices = read(tmp_path / "x")
    assert pl.concat(slices).equals(rows)
    assert max(map(len, slices)) <= most_rows
    a_row = 2_000
    assert max(map(landed.size_of, slices)) <= most_bytes + a_row


def repeated(text: str, rows: int) -> pa.Array:
    """A text in each of many rows, that takes the memory of one."""
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([text]))


def write_dictionary(path: Path) -> None:
    """140 KB in the file, 50 GB in memory."""
    column = repeated("x" * 500_000, 100_000)
    pq.write_table(pa.table({"text": column}), path, compression="zstd", store_schema=False,
                   dictionary_pagesize_limit=1 << 30)  # fmt: skip


def write_prefixes(path: Path) -> None:
    """Every text is the one before it."""
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False,
                          column_encoding={"text": "DELTA_BYTE_ARRAY"}) as writer:  # fmt: skip
        writer.write_table(pa.table({"text": ["x" * 100_000] * 200}, schema=schema))


def write_lists(path: Path) -> None:
    """A row with 20 million values, none of which takes a byte in the file."""
    values = pa.nulls(20_000_000, pa.int64())
    pq.write_table(pa.table({"text": pa.ListArray.from_arrays([0, len(values)], values)}), path)


def write_lists_of_texts(path: Path) -> None:
    texts = repeated("x" * 500_000, 100_000)
    column = pa.ListArray.from_arrays(np.arange(0, 100_001, 10, dtype=np.int32), texts)
    pq.write_table(pa.table({"text": column}), path, compression="zstd", store_schema=False,
                   dictionary_pagesize_limit=1 << 30)  # fmt: skip


@pytest.mark.parametrize("write", [write_dictionary, write_lists, write_lists_of_texts])
def test_a_small_file_that_stands_for_gigabytes_is_refused_and_names_the_column(
    write: Callable[[Path], None], tmp_path: Path, start: Callable[..., Any]
) -> None:
    write(tmp_path / "x")
    assert (tmp_path / "x").stat().st_size < 1_000_000
    child = start(children.refuse_within_memory, {}, str(tmp_path / "x"), "text", 1_500)
    child.join()
    assert child.exitcode == 0


def test_a_text_that_shares_all_with_the_one_before_it_is_refused_and_names_the_column(
    tmp_path: Path,
) -> None:
    write_prefixes(tmp_path / "x")
    with pytest.raises(BadData, match="column 'text' holds a text of 100,000 bytes"):
        read(tmp_path / "x")


def test_a_text_may_be_longer_where_its_input_says_so(tmp_path: Path) -> None:
    rows = pl.DataFrame({"text": ["short", "é" * 10_000]})
    rows.write_parquet(tmp_path / "x")
    with pytest.raises(BadData, match=r"text of 20,000 bytes, more than the 10,000 .*MAX_TEXT"):
        read(tmp_path / "x")
    (found,) = landed.slices(CASE, tmp_path / "x", {"text": 20_000})
    assert found.equals(rows)


def test_more_rows_than_fit_into_memory_are_refused(
    tmp_path: Path, configure: Callable[..., None]
) -> None:
    pl.DataFrame({"number": range(300_000)}).write_parquet(tmp_path / "x")
    assert sum(map(len, read(tmp_path / "x"))) == 300_000
    configure(max_input_mb=2)
    with pytest.raises(BadData, match=r"more than 2 MB.*ML_MAX_INPUT_MB"):
        read(tmp_path / "x")


def test_a_rust_panic_caused_by_data_is_bad_data() -> None:
    wide = pa.array([None], pa.decimal256(50, 2))
    with (
        pytest.raises(BadData, match=r"the file .*types or values that cannot be read"),
        landed.foreign_data("the file"),
    ):
        pl.Series(wide)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, ZeroDivisionError])
def test_errors_that_data_cannot_cause_are_never_blamed_on_data(error: type[BaseException]) -> None:
    with pytest.raises(error), landed.foreign_data("the file"):
        raise error
