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

from include.errors import BadData, MissingData, PipelineError
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


def read(root: str, pattern: str, day: date, like: Input, marker: str = "") -> Fetched | None:
    """The rows of the files of a day, in the order of their names; None if there is no file.

    Files whose name begins with a dot or an underscore are skipped. A landed day is not read again:
    if files come one after the other, have the last one followed by a marker.

    Args:
        root: a folder, or a URI such as `s3://connection@bucket/prefix`.
        pattern: path under it, with the day as in `strftime`, and `*`: `%Y/%m/%d/*.csv`.
        like: the input that the rows are for; text files are read as the types that it declares.
        marker: path of a file that says that the day is complete, such as `%Y/%m/%d/_SUCCESS`;
            without it there is nothing yet.
    """
    if marker and not _matching(root, day.strftime(marker)):
        return None
    paths = [path for path in _matching(root, day.strftime(pattern)) if path.name[0] not in "._"]
    if not paths:
        return None
    origin: dict[str, Any] = {"files": []}
    return Fetched(_frames(paths, like, origin["files"]), origin)


def _matching(root: str, pattern: str) -> list["AnyPath"]:
    if "://" not in root or root.startswith("file://"):
        folder = Path(root.removeprefix("file://"))
        return sorted(folder.glob(pattern))
    from airflow.sdk import ObjectStoragePath

    place = ObjectStoragePath(root)
    with asking(place):
        found = store_of(place).glob(f"{place.path.rstrip('/')}/{pattern}", detail=True)
    start = len(place.path.rstrip("/")) + 1
    return [place / name[start:] for name in sorted(found) if found[name]["type"] == "file"]


def _frames(
    paths: list["AnyPath"], like: Input, told: list[dict[str, Any]]
) -> Iterator[pl.DataFrame]:
    """The rows of files, and what each file was.

    Raises:
        BadData: a file cannot be read as what its name says, or has other columns than the first.
        MissingData: a file was changed while it was read.
    """
    schema: pl.Schema | None = None
    for path in paths:
        before, rows = _identity(path), 0
        for frame in _of_file(path, like):
            schema = schema or frame.schema
            if frame.schema != schema:
                ours, theirs = (
                    [f"{name} {kind}" for name, kind in one.items()]
                    for one in (frame.schema, schema)
                )
                raise BadData(
                    f"{path} has the columns {listed(ours, 30)}, and {paths[0]} has "
                    f"{listed(theirs, 30)}. Nothing landed. Have the files of a day written with "
                    "the same columns and types."
                )
            rows += len(frame)
            yield frame
        if _identity(path) != before:
            raise MissingData(
                f"{path} was changed while it was read. Nothing landed; the retry reads it again. "
                "Have it written under another name and renamed when it is complete."
            )
        told.append({"path": str(path), "file": before, "rows": rows})
    if like.may_be_empty and not any(one["rows"] for one in told):
        yield pl.DataFrame(schema=schema or types_of(like))


def _identity(path: "AnyPath") -> str:
    try:
        return identity(path)
    except FileNotFoundError as error:
        raise MissingData(
            f"{path} was removed before it was read. Nothing landed; the retry looks again."
        ) from error


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
            yield frame if reader is not _json_lines else _dated(path, frame, like)
    except PipelineError:
        raise
    except Exception as error:
        if fault_of_file(error) is None:
            raise
        raise BadData(
            f"{path} cannot be read as {ending[1:]} with the types of {like.name}: "
            f"{cut(first_line(error), 400)}. Nothing landed. Have it written again, or change the "
            "contract in schema.py."
        ) from error


def _parquet(path: "AnyPath", _: Input) -> Iterator[pa.RecordBatch]:
    with open_parquet(path) as file:
        yield from file.iter_batches(ROWS)


def _csv(path: "AnyPath", like: Input) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv

    convert = csv.ConvertOptions(
        column_types=_arrow_schema(like), null_values=[""],
        strings_can_be_null=True, quoted_strings_can_be_null=False,
    )  # fmt: skip
    options = csv.ReadOptions(block_size=BLOCK_BYTES)
    parse = csv.ParseOptions(newlines_in_values=True)
    with open_file(path) as data, csv.open_csv(data, options, parse, convert) as batches:
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


def _dated(path: "AnyPath", frame: pl.DataFrame, like: Input) -> pl.DataFrame:
    types = {name: one for name, one in types_of(like).items() if one.is_temporal()}
    try:
        return frame.with_columns(
            column(name, frame[name].to_list(), one) for name, one in types.items() if name in frame
        )
    except BadData as error:
        raise BadData(
            f"{path} has rows that the contract does not allow: {error}. Nothing landed. Have it "
            "written again, or change the contract in schema.py."
        ) from error


def _arrow_schema(like: Input) -> pa.Schema:
    """The declared types, as Arrow's readers know them."""
    types = {
        name: pl.String if isinstance(kind, pl.Categorical | pl.Enum) else kind
        for name, kind in types_of(like).items()
    }
    empty = pl.DataFrame(schema=types)
    return empty.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
