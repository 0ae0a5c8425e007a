"""Parquet as other programs write it, each with every codec it has: read, and published unchanged.

What cannot be read for good, encrypted or of an unknown codec, is refused with that reason.
"""

import base64
import random
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import fastparquet
import pandera.polars as pa_polars
import polars as pl
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from include.errors import BadData
from include.lake.files import to_arrow
from include.usecase import Input, UseCase
from local.in_process import validate_day
from tests.case import CASE, with_inputs

DAY = date(2026, 3, 1)
ROWS = 3_000

CODECS = ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]


def rows() -> pl.DataFrame:
    """A row of every kind that a contract may ask for: short and long, few and many texts."""
    chance, numbers = random.Random(7), range(ROWS)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    return pl.DataFrame(
        {
            "id": pl.Series(numbers, dtype=pl.Int32),
            "code": [f"{number % 7}" for number in numbers],
            "name": [f"name {number:09d} größe" for number in numbers],
            "note": [None if number % 5 else "x" * (number % 97) for number in numbers],
            "price": [None if number % 11 == 0 else chance.random() for number in numbers],
            "weight": pl.Series([chance.random() for _ in numbers], dtype=pl.Float32),
            "is_new": [number % 3 == 0 for number in numbers],
            "day": pl.Series([DAY] * ROWS, dtype=pl.Date),
            "time": pl.Series(
                [noon + timedelta(seconds=n) for n in numbers], dtype=pl.Datetime("us", "UTC")
            ),
            "amount": pl.Series([Decimal(n) / 100 for n in numbers], dtype=pl.Decimal(12, 2)),
        }
    )


def contract(frame: pl.DataFrame) -> Input:
    """What allows a frame's columns, and null in them."""
    columns = {name: pa_polars.Column(dtype, nullable=True) for name, dtype in frame.schema.items()}
    schema = pa_polars.DataFrameSchema(columns, strict=True, ordered=True)
    return Input("zoo", schema, ["id"], belongs=lambda day: pl.lit(True))


@pytest.fixture
def land() -> Iterator[Callable[[pl.DataFrame], Path]]:
    """Declares the columns of a frame as a contract; gives the path where its file lands."""
    path = CASE.lake.landing_path("zoo", str(DAY))
    assert isinstance(path, Path)
    path.parent.mkdir(parents=True)

    def declare(frame: pl.DataFrame) -> Path:
        DECLARED["zoo"] = with_inputs(CASE, contract(frame))
        return path

    yield declare
    DECLARED.clear()


DECLARED: dict[str, UseCase] = {}
"""The use case that a test has declared."""


def published(path: Path) -> pl.DataFrame:
    """Validate the landed file; returns what is published of it."""
    case = DECLARED["zoo"]
    validate_day(case, "validated", str(DAY))
    return case.lake.current("validated", str(DAY)).read("zoo")


def refusal(path: Path) -> str:
    """Why the landed file is not published: a message that names it."""
    case = DECLARED["zoo"]
    with pytest.raises(BadData) as failure:
        validate_day(case, "validated", str(DAY))
    assert case.lake.manifest("validated", str(DAY)) is None
    assert str(path) in str(failure.value)
    return str(failure.value)


Write = Callable[[pl.DataFrame, Path], None]


def pyarrow(codec: str, **options: Any) -> Write:
    return lambda frame, path: pq.write_table(
        to_arrow(frame), path, compression=codec, row_group_size=1_000, **options
    )


def delta_encoded(encoding: str, codec: str, **options: Any) -> Write:
    encodings = {"id": "DELTA_BINARY_PACKED", "price": "BYTE_STREAM_SPLIT"}
    encodings |= dict.fromkeys(["code", "name", "note"], encoding)
    return pyarrow(codec, use_dictionary=False, column_encoding=encodings, **options)


def polars(codec: Any) -> Write:
    return lambda frame, path: frame.write_parquet(path, compression=codec, row_group_size=1_000)


def duck(version: str, codec: str) -> Write:
    def write(frame: pl.DataFrame, path: Path) -> None:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("landed", to_arrow(frame))
            connection.execute(
                f"COPY landed TO '{path}' (FORMAT parquet, PARQUET_VERSION {version}, "
                f"COMPRESSION {codec})"
            )

    return write


def fast(codec: str) -> Write:
    return lambda frame, path: fastparquet.write(str(path), frame.to_pandas(), compression=codec)


def delta_rs(codec: str) -> Write:
    def write(frame: pl.DataFrame, path: Path) -> None:
        table = path.parent / "table"
        properties = deltalake.WriterProperties(compression=codec)  # type: ignore[arg-type]
        deltalake.write_deltalake(
            table, to_arrow(frame), mode="overwrite", writer_properties=properties
        )
        (part,) = deltalake.DeltaTable(table).file_uris()
        Path(part).replace(path)

    return write


def spark(codec: str, **options: Any) -> Write:
    return pyarrow(
        codec, flavor="spark", store_schema=False, use_compliant_nested_type=False, **options
    )


def write_as(kind: str) -> dict[str, Write]:
    """Every writer with one codec."""
    return {
        f"pyarrow {kind}": pyarrow(kind),
        f"pyarrow pages v2 {kind}": pyarrow(kind, version="2.6", data_page_version="2.0"),
        f"pyarrow delta {kind}": delta_encoded("DELTA_BYTE_ARRAY", kind),
        f"pyarrow delta length {kind}": delta_encoded(
            "DELTA_LENGTH_BYTE_ARRAY", kind, data_page_version="2.0"
        ),
        f"Polars {kind}": polars({"none": "uncompressed"}.get(kind, kind)),
        f"DuckDB V1 {kind}": duck("V1", {"none": "uncompressed", "lz4": "lz4_raw"}.get(kind, kind)),
        f"DuckDB V2 {kind}": duck("V2", {"none": "uncompressed", "lz4": "lz4_raw"}.get(kind, kind)),
        f"delta-rs {kind}": delta_rs(
            {"none": "UNCOMPRESSED", "lz4": "LZ4_RAW"}.get(kind, kind.upper())
        ),
        f"Spark {kind}": spark(kind),
        f"Spark decimals as integers {kind}": spark(kind, store_decimal_as_integer=True),
    }


QUICK = write_as("snappy")
ALL = {name: write for codec in CODECS for name, write in write_as(codec).items()}


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ALL if one not in QUICK)],
)
def test_a_file_of_another_writer_is_published_unchanged(
    name: str, land: Callable[[pl.DataFrame], Path]
) -> None:
    frame = rows()
    if name.startswith("Spark"):  # whose INT96 is a time in nanoseconds, and of no zone
        naive = pl.col("time").dt.replace_time_zone(None).cast(pl.Datetime("ns"))
        frame = frame.with_columns(naive)
    path = land(frame)
    ALL[name](frame, path)
    assert published(path).equals(frame)


@pytest.mark.parametrize("codec", ["UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4"])
def test_a_file_of_fastparquet_is_published_unchanged(
    codec: str, land: Callable[[pl.DataFrame], Path]
) -> None:
    frame = rows().drop("day", "amount")  # it has no types for these
    path = land(frame)
    fast(codec)(frame, path)
    assert published(path).equals(frame)


class Keys(encryption.KmsClient):
    """Keeps every key in the file itself."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:
        return base64.b64encode(key_bytes).decode()

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


@pytest.mark.parametrize("plain_footer", [True, False], ids=["a column", "all of it"])
def test_an_encrypted_file_is_refused_as_encrypted(
    plain_footer: bool, land: Callable[[pl.DataFrame], Path]
) -> None:
    frame = rows()
    path = land(frame)
    factory = encryption.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(
        encryption.KmsConnectionConfig(),
        encryption.EncryptionConfiguration(
            footer_key="footer", column_keys={"column": ["name"]}, plaintext_footer=plain_footer
        ),
    )
    table = to_arrow(frame)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    assert "it is encrypted" in refusal(path)


def test_a_codec_that_cannot_be_read_is_named(land: Callable[[pl.DataFrame], Path]) -> None:
    frame = rows()
    path = land(frame)
    pyarrow("gzip")(frame, path)
    gzip, lzo = (b"\x04name\x15" + bytes([2 * codec]) for codec in (2, 3))  # in the footer
    content = path.read_bytes()
    assert gzip in content
    path.write_bytes(content.replace(gzip, lzo))
    assert "LZO" in refusal(path)
    assert "its compression cannot be read here" in refusal(path)


def test_a_damaged_page_is_called_damaged(land: Callable[[pl.DataFrame], Path]) -> None:
    frame = rows()
    path = land(frame)
    pyarrow("zstd", write_page_checksum=True)(frame, path)
    content = bytearray(path.read_bytes())
    content[1_000:1_100] = b"\xff" * 100
    path.write_bytes(bytes(content))
    assert "it is damaged" in refusal(path)
