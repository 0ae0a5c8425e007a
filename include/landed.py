"""Reads landed files, which others write: slice by slice, in bounded memory, NaN as null.

A few kilobytes of Parquet can decode to gigabytes: a text of 500 KB in a dictionary, repeated by
100,000 rows. So a slice is bounded by bytes, not by rows. The bytes are known before decoding, from
the footer of each row group and from the values of its dictionaries. Text that many rows repeat is
read as codes, which cost nothing to repeat, and is cut into smaller slices before it is copied.

Bounded: a slice, a text, a row, and all rows of a file. Not bounded: a single page, which Arrow
decompresses as a whole; text without a dictionary whose lengths vary widely within a row group;
and a footer with false sizes.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.errors import BadData
from include.lake.files import fault_of_file, first_line, open_parquet
from include.usecase import UseCase
from include.values import greatest, leaves, without_nan
from include.wording import cut, quoted

if TYPE_CHECKING:
    from include.lake.files import AnyPath

SLICE_ROWS = 262_144
"""Maximum rows of a slice; for narrow rows this is the bound, not the bytes."""

SLICE_BYTES = 64 << 20
"""Maximum decoded bytes of a slice; two or three slices are in memory at a time."""

LEAST_ROWS = 2_048
"""Rows read at once if text is delta-encoded: nothing tells how long such a text is."""

VIEW_BYTES = 16
"""Memory of each text in a frame, in addition to its bytes."""


@contextmanager
def foreign_data(what: str) -> Iterator[None]:
    """Report the file as bad data if Arrow or Polars cannot read what others wrote.

    A Rust panic is not an `Exception`: without this it would pass all handlers and end the process.

    Args:
        what: the beginning of the message: whose data, in which step.

    Raises:
        BadData: the block raised an error that only data can cause.
    """
    try:
        yield
    except BaseException as error:
        if (fault := fault_of_file(error)) is None:
            raise
        raise BadData(f"{what} ({cut(first_line(error), 400)}): {fault}") from error


def slices(
    case: UseCase, path: "AnyPath", text_limits: Mapping[str, int], columns: list[str] | None = None
) -> Iterator[pl.DataFrame]:
    """Rows of a file, at most `SLICE_ROWS` and about `SLICE_BYTES` at a time.

    Args:
        text_limits: maximum bytes of a text, for columns with their own limit.
        columns: the columns to read; None for all.

    Raises:
        BadData: a text, a row or all rows together are larger than allowed.
        ArrowInvalid: and other errors of Arrow and Polars: the pages are damaged, or have a type
            that cannot be read; `fault_of_file` says which.
    """
    waiting: list[pl.DataFrame] = []
    size = rows = total = 0
    for batch in _batches(case, path, text_limits, columns):
        bytes_of_batch, longest = _measured(batch)
        for name, length in longest.items():
            limit = text_limits.get(name, case.settings.max_text_bytes)
            if length > limit:
                raise _too_long(case, name, f"a text of {length:,} bytes", limit)
        total += bytes_of_batch
        if total > case.settings.max_input_mb * 1e6:
            raise BadData(
                f"its rows take more than {case.settings.max_input_mb:,.0f} MB, too much for one "
                f"day's input ({case.settings.where_set('max_input_mb')}); land a smaller file, or "
                "raise that limit"
            )
        if waiting and (rows + len(batch) > SLICE_ROWS or size + bytes_of_batch > SLICE_BYTES):
            yield pl.concat(waiting)
            waiting, size, rows = [], 0, 0
        if bytes_of_batch > SLICE_BYTES:
            yield from pieces(batch, len(batch))
            continue
        waiting.append(batch)
        size, rows = size + bytes_of_batch, rows + len(batch)
    if waiting:
        yield pl.concat(waiting)


def pieces(rows: pl.DataFrame, most_rows: int) -> Iterator[pl.DataFrame]:
    """Rows in order, in pieces of at most `most_rows`, and at most one row over `SLICE_BYTES`."""
    for piece in rows.iter_slices(most_rows):
        size = size_of(piece)
        if size <= SLICE_BYTES:
            yield piece
            continue
        lengths = [_lengths(one).fill_null(0) for one in piece if _is_text(one.dtype)]
        width = (size - sum(int(one.sum()) for one in lengths)) / len(piece)
        sizes = pl.select(pl.sum_horizontal(pl.repeat(width, len(piece)), *lengths)).to_series()
        start = 0
        for length in (sizes.cum_sum() // SLICE_BYTES).rle().struct.field("len"):
            yield piece.slice(start, length)
            start += length


def size_of(rows: pl.DataFrame) -> int:
    """Bytes of rows if each text had its own copy."""
    return _measured(rows)[0]


def _measured(rows: pl.DataFrame) -> tuple[int, dict[str, int]]:
    """`size_of` rows, and the bytes of the longest text of each text column."""
    size, longest = 0, {}
    for column in rows:
        if _is_text(column.dtype):
            lengths = _lengths(column)
            size += VIEW_BYTES * len(rows) + int(lengths.sum())
            longest[column.name] = int(lengths.max() or 0)  # type: ignore[arg-type]
            continue
        size += int(column.estimated_size())
        if _has_texts(column.dtype):
            length = greatest(pl.col(column.name), column.dtype, _text_length, _is_text).max()
            longest[column.name] = int(column.to_frame().select(length).item() or 0)
    return size, longest


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Binary)


def _lengths(texts: pl.Series) -> pl.Series:
    """Bytes of each text."""
    return texts.bin.size() if texts.dtype == pl.Binary else texts.str.len_bytes()


def _too_long(case: UseCase, name: str, what: str, limit: int) -> BadData:
    return BadData(
        f"column {quoted(name)} holds {what}, more than the {limit:,} that a text may have "
        f"({case.settings.where_set('max_text_bytes')}, or max_text_bytes of the input for this "
        "column)"
    )


def _has_texts(dtype: pl.DataType) -> bool:
    return any(_is_text(leaf) for leaf in leaves(dtype))


def _text_length(text: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    return text.bin.size() if dtype == pl.Binary else text.str.len_bytes()


# --- how each row group is read -------------------------------------------------------------------


@dataclass(frozen=True)
class _Chunk:
    """One column (or one within a nested column) of a row group, as the footer describes it.

    Attributes:
        path: its dotted path in the file.
        values: number of entries, including those within lists.
        size: bytes in the file, uncompressed.
        width: bytes of a value in memory; None for text.
        is_coded: whether text is, at least in part, dictionary-encoded.
        is_delta: whether text is delta-encoded.
        is_flat: whether it is a text column itself, not one within a nested column.
    """

    column: str
    path: str
    rows: int
    values: int
    size: int
    width: int | None
    is_coded: bool
    is_delta: bool
    is_flat: bool

    @property
    def is_repeated(self) -> bool:
        """Whether to read it as codes: few values that repeat, so less than 4 bytes each."""
        return self.is_flat and self.is_coded and not self.is_delta and self.size < 4 * self.values

    def bytes_of_row(self, longest: int) -> float:
        """Maximum bytes of a row in memory; the average if no text repeats.

        Args:
            longest: bytes of the longest text that repeats.
        """
        if self.width is not None:
            return self.width * self.values / self.rows
        if self.is_repeated:
            return VIEW_BYTES
        repeated = self.values * longest if self.is_coded else self.size
        return (VIEW_BYTES * self.values + repeated) / self.rows


def _batches(
    case: UseCase, path: "AnyPath", text_limits: Mapping[str, int], columns: list[str] | None
) -> Iterator[pl.DataFrame]:
    """Batches of rows, so few at a time that no batch can be large."""
    files: dict[tuple[str, ...], pq.ParquetFile] = {}
    with ExitStack() as stack:

        def opened(codes: tuple[str, ...] = ()) -> pq.ParquetFile:
            if codes not in files:
                files[codes] = stack.enter_context(open_parquet(path, read_dictionary=list(codes)))
            return files[codes]

        for number in range(opened().num_row_groups):
            chunks = _chunks(opened(), number, columns)
            repeated = tuple(chunk.path for chunk in chunks if chunk.is_repeated)
            rows, widths = SLICE_ROWS, dict.fromkeys((chunk.column for chunk in chunks), 0.0)
            for chunk in chunks:
                limit = text_limits.get(chunk.column, case.settings.max_text_bytes)
                if chunk.width is None and chunk.size > max(limit * chunk.values, SLICE_BYTES):
                    mean = chunk.size // chunk.values
                    raise _too_long(case, chunk.column, f"text of {mean:,} bytes a value", limit)
                longest = chunk.size
                if chunk.is_delta:
                    rows = min(rows, max(LEAST_ROWS, SLICE_BYTES // chunk.size))
                elif chunk.is_coded and chunk.values * chunk.size > SLICE_BYTES:
                    longest = _longest(opened((chunk.path,)), number, chunk.path)
                    if longest > limit:
                        what = f"a text of {longest:,} bytes"
                        raise _too_long(case, chunk.column, what, limit)
                widths[chunk.column] += chunk.bytes_of_row(longest)
            width = sum(widths.values())
            if width > SLICE_BYTES:
                widest = max(widths, key=lambda name: widths[name])
                raise BadData(
                    f"a row takes {width / 1e6:,.0f} MB, most of it in column {quoted(widest)}: "
                    f"more than {SLICE_BYTES / 1e6:,.0f} MB cannot be read"
                )
            rows = min(rows, int(SLICE_BYTES // max(width, 1)))
            for batch in opened(repeated).iter_batches(rows, row_groups=[number], columns=columns):
                yield without_nan(_frame(batch, repeated))


def _chunks(file: pq.ParquetFile, number: int, columns: list[str] | None) -> list[_Chunk]:
    # Reading the footer of an encrypted or damaged column would crash the process. Reading zero
    # rows of it raises an error instead, and decodes nothing.
    next(file.reader.iter_batches(0, [number]), None)
    group, place, chunks = file.metadata.row_group(number), 0, []
    for field in file.schema_arrow:
        for _ in range(_leaves(field.type)):
            if columns is None or field.name in columns:
                chunks.append(_chunk(file, group, place, field))
            place += 1
    return [chunk for chunk in chunks if chunk.rows and chunk.values]


def _chunk(file: pq.ParquetFile, group: pq.RowGroupMetaData, place: int, field: pa.Field) -> _Chunk:
    said, schema = group.column(place), file.schema.column(place)
    is_text = schema.physical_type == "BYTE_ARRAY"
    encodings = " ".join(said.encodings)
    return _Chunk(
        column=field.name,
        path=schema.path,
        rows=group.num_rows,
        values=said.num_values,
        size=said.total_uncompressed_size,
        width=None if is_text else max(schema.length, 8),
        is_coded=is_text and (said.has_dictionary_page or "DICTIONARY" in encodings),
        is_delta=is_text and "DELTA_BYTE_ARRAY" in encodings,
        is_flat=pa.types.is_string(field.type) or pa.types.is_large_string(field.type),
    )


def _leaves(dtype: pa.DataType) -> int:
    """Number of Parquet columns that a type takes."""
    if isinstance(dtype, pa.BaseExtensionType):
        dtype = dtype.storage_type
    fields = [dtype.field(number) for number in range(dtype.num_fields)]
    return sum(_leaves(field.type) for field in fields) if fields else 1


def _longest(file: pq.ParquetFile, number: int, path: str) -> int:
    """Bytes of the longest text in the dictionary of a column that is read as codes."""
    batch = next(file.iter_batches(1, row_groups=[number], columns=[path]))
    found = batch.column(0)
    while not isinstance(found, pa.DictionaryArray):
        found = found.field(0) if isinstance(found, pa.StructArray) else found.values
    return pc.max(pc.binary_length(found.dictionary)).as_py() or 0


def _frame(batch: pa.RecordBatch, codes: tuple[str, ...]) -> pl.DataFrame:
    """A batch as a Polars frame; raises `ArrowInvalid` for text on which Polars would panic."""
    found = []
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values.validate(full=True)
            if name in codes:
                distinct = pl.Series(name, values.dictionary)
                found.append(distinct.gather(pl.Series(values.indices)))
            else:
                found.append(pl.Series(name, values))
        except BaseException as error:
            if (fault := fault_of_file(error)) is None:
                raise
            raise BadData(
                f"column {quoted(name)}: {cut(first_line(error), 400)}: {fault}"
            ) from error
    return pl.DataFrame(found)
