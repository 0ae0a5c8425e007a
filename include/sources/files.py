"""Files that others drop under a prefix: Parquet, CSV or JSON lines, any number for a day.

from include.sources import files
from .schema import ORDERS

def fetch(input_name, day):
return files.read("s3://shop@drop/orders", "%Y/%m/%d/*.csv", day, ORDERS)
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from include.errors import BadData, MissingData
from include.lake.files import (
    asking,
    fault_of_file,
    first_line,
    identity,
    open_file,
    open_parquet,
    store_of,
)  # fmt: skip
from include.sources.declared import column, types_of
from include.usecase import Fetched, Input
from include.wording import cut, listed

if TYPE_CHECKING:
    from include.lake.files import AnyPath

ROWS = 65_536
"""Rows of a Parquet file that are read at once."""

BLOCK_BYTES = 8 << 20
"""Bytes of a text file that are read at once; a row must fit into them."""

FORMATS = (".parquet", ".csv", ".jsonl", ".ndjson")


def read(root: str, pattern: str, day: date, like: Input) -> Fetched | None:
    """The rows of the files of a day, in the order of their names; None if there is no file.

    Args:
        root: a folder, or a URI such as `s3://connection@bucket/prefix`.
        pattern: path under it, with the day as in `strftime`, and `*`: `%Y/%m/%d/*.csv`.
        like: the input that the rows are for; text files are read as the types that it declares.
    """
    if not (paths := _matching(root, day.strftime(pattern))):
        return None
    origin: dict[str, Any] = {"files": []}
    return Fetched(_frames(paths, like, origin["files"]), origin)


def _matching(root: str, pattern: str) -> list["AnyPath"]:
    if "://" not in root or root.startswith("file://"):
        folder = Path(root.removeprefix("file://"))
        return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(root)
    with asking(place):
        found = store_of(place).glob(f"{place.path.rstrip('/')}/{pattern}")
    start = len(place.path.rstrip("/")) + 1
    return [place / name[start:] for name in sorted(found)]


def _frames(
    paths: list["AnyPath"], like: Input, told: list[dict[str, Any]]
) -> Iterator[pl.DataFrame]:
    """The rows of files, and what each file was.

    Raises:
        BadData: a file cannot be read as what its name says, or has other columns than the first.
        MissingData: a file was changed while it was read.
    """
    names: list[str] = []
    for path in paths:
        before, rows = identity(path), 0
        for frame in _of_file(path, like):
            names = names or frame.columns
            if frame.columns != names:
                raise BadData(
                    f"{path} has the columns {listed(frame.columns, 30)}, and {paths[0]} has "
                    f"{listed(names, 30)}. Nothing landed. Have the files of a day written with "
                    "the same columns."
                )
            rows += len(frame)
            yield frame
        if identity(path) != before:
            raise MissingData(
                f"{path} was changed while it was read. Nothing landed; the retry reads it again. "
                "Have it written under another name and renamed when it is complete."
            )
        told.append({"path": str(path), "file": before, "rows": rows})


def _of_file(path: "AnyPath", like: Input) -> Iterator[pl.DataFrame]:
    ending = next((one for one in FORMATS if path.name.endswith(one)), None)
    if ending is None:
        raise BadData(
            f"{path} is of a kind that is not read: its name ends with none of "
            f"{listed(FORMATS)}. Nothing landed; change the pattern in source.py."
        )
    reader = {".parquet": _parquet, ".csv": _csv}.get(ending, _json_lines)
    try:
        for batch in reader(path, like):
            frame = pl.DataFrame(pl.from_arrow(batch))
            yield frame if reader is not _json_lines else _dated(frame, like)
    except BadData as error:
        raise BadData(
            f"{path} has rows that the contract does not allow: {error}. Nothing landed. Have it "
            "written again, or change the contract in schema.py."
        ) from error
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        fault = fault_of_file(error) or "it is not as its name or the contract says"
        raise BadData(
            f"{path} cannot be read as {ending[1:]} ({cut(first_line(error), 400)}): {fault}. "
            "Nothing landed. Have it written again, or change the contract in schema.py."
        ) from error


def _parquet(path: "AnyPath", _: Input) -> Iterator[pa.RecordBatch]:
    with open_parquet(path) as file:
        yield from file.iter_batches(ROWS)


def _csv(path: "AnyPath", like: Input) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv

    convert = csv.ConvertOptions(
        column_types=_arrow_schema(like), strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    options = csv.ReadOptions(block_size=BLOCK_BYTES)
    with open_file(path) as data, csv.open_csv(data, options, convert_options=convert) as batches:
        yield from batches


def _json_lines(path: "AnyPath", like: Input) -> Iterator[pa.RecordBatch]:
    """JSON has no dates: they come as text."""
    from pyarrow import json

    fields = [
        pa.field(one.name, pa.string() if pa.types.is_temporal(one.type) else one.type)
        for one in _arrow_schema(like)
    ]
    parse = json.ParseOptions(explicit_schema=pa.schema(fields))
    options = json.ReadOptions(block_size=BLOCK_BYTES)
    with open_file(path) as data, json.open_json(data, options, parse) as batches:
        yield from batches


def _dated(frame: pl.DataFrame, like: Input) -> pl.DataFrame:
    types = {name: one for name, one in types_of(like).items() if one.is_temporal()}
    return frame.with_columns(
        column(name, frame[name].to_list(), one) for name, one in types.items() if name in frame
    )


def _arrow_schema(like: Input) -> pa.Schema:
    """The declared types, as Arrow's readers know them."""
    empty = pl.DataFrame(schema=types_of(like))
    return empty.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
