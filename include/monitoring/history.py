"""Every figure that monitoring ever found, in one table to which rows are only ever added.

A row says what one figure was (`value`, of `n` rows) and what it is about: the day (`time`), the
pipeline, the version of a model, the metric, and `labels` as a JSON object with sorted keys. These
five are its identity. A day may be looked at again, as truth comes late: what is then the same is
not added again, and of what has changed the newest row counts.
"""

import json
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import polars as pl

from include.errors import BadData
from include.lake.files import (
    fault_of_file,
    first_line,
    list_folder,
    open_parquet,
    to_arrow,
    write_parquet,
)
from include.lake.tables import VERSION_TIME
from include.partitions import days_before, parse_key
from include.usecase import UseCase

if TYPE_CHECKING:
    from include.lake.files import AnyPath

log = logging.getLogger(__name__)

TABLE = "history"
ABOUT = ["time", "pipeline", "metric", "labels"]
IDENTITY = [*ABOUT, "model_version"]
SCHEMA = pl.Schema(
    {
        "time": pl.Date(),
        "pipeline": pl.String(),
        "model_version": pl.String(),
        "metric": pl.String(),
        "labels": pl.String(),
        "value": pl.Float64(),
        "n": pl.Int64(),
        "recorded_at": pl.Datetime("us", "UTC"),
    }
)


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        pipeline: where it comes from.
        metric: its name; the unit is part of the name where it has one.
        value: NaN where there is nothing to say, as of a rate of no rows.
        n: rows, runs or days that it was found in.
        model_version: whose figure it is; empty if it is not a model's.
        labels: what else it is about.
    """

    pipeline: str
    metric: str
    value: float
    n: int = 1
    model_version: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def append(case: UseCase, key: str, figures: Iterable[Figure]) -> int:
    """Add figures about a day. What the history says already is not added again.

    A figure that another version of the model has replaced since is no longer what it says.

    One process at a time may do so; one that dies has added all or nothing.

    Returns:
        Rows added.
    """
    known = _read_files(case, [key])
    found = to_frame(key, figures)
    replaced = known.group_by(ABOUT).agg(newest=pl.col("recorded_at").max())
    stands = (
        current(known).join(replaced, on=ABOUT).filter(pl.col("recorded_at") == pl.col("newest"))
    )
    new = found.join(stands, on=[*IDENTITY, "value", "n"], how="anti")
    if new.is_empty():
        return 0
    now = found["recorded_at"][0]
    if len(known):  # the clock may have gone back since
        now = max(now, cast(datetime, known["recorded_at"].max()) + timedelta(microseconds=1))
    table = to_arrow(new.with_columns(recorded_at=pl.lit(now, SCHEMA["recorded_at"])))
    path = case.lake.partition_path(TABLE, key) / f"{now.strftime(VERSION_TIME)}.parquet"
    with write_parquet(path, table.schema) as writer:
        writer.write_table(table)
    return len(new)


def to_frame(key: str, figures: Iterable[Figure]) -> pl.DataFrame:
    """Figures about a day as rows of the history; of the same identity the last one counts."""
    time, now = parse_key(key), datetime.now(UTC)
    rows = [
        (time, f.pipeline, f.model_version, f.metric, _labels(f.labels), float(f.value), f.n, now)
        for f in figures
    ]
    frame = pl.DataFrame(rows, SCHEMA, orient="row")
    return frame.unique(IDENTITY, keep="last", maintain_order=True)


def read(case: UseCase, last: str, days: int, unreadable: list[str] | None = None) -> pl.DataFrame:
    """What is known of the `days` days up to `last`, that one included; days may be missing.

    Args:
        unreadable: where to say which files cannot be read, and why, and to go on without them.
            Without it they are an error.

    Returns:
        Columns as in `SCHEMA`, the newest row of each identity, in the order of time.
    """
    keys = [days_before(last, back) for back in reversed(range(days))]
    return current(_read_files(case, keys, unreadable))


def current(rows: pl.DataFrame) -> pl.DataFrame:
    """Of the rows with the same identity, the one that was recorded last."""
    return (
        rows.sort("recorded_at", maintain_order=True)
        .unique(IDENTITY, keep="last", maintain_order=True)
        .sort("time", maintain_order=True)
    )


def label(name: str) -> pl.Expr:
    """One of the labels; null where there is none of this name."""
    return pl.col("labels").str.json_path_match(f"$.{name}")


def select(rows: pl.DataFrame, metric: str, **labels: str) -> pl.DataFrame:
    """The rows of one metric that have these labels."""
    rows = rows.filter(pl.col("metric") == metric)
    return rows.filter(*(label(name) == value for name, value in labels.items()))


def newest(rows: pl.DataFrame) -> date | None:
    """The last day that rows are about; None without rows."""
    return cast(date | None, rows["time"].max())


def _labels(labels: dict[str, str]) -> str:
    return json.dumps(labels, sort_keys=True)


def _read_files(
    case: UseCase, keys: list[str], unreadable: list[str] | None = None
) -> pl.DataFrame:
    def read_one(path: "AnyPath") -> pl.DataFrame:
        try:
            return _read(path)
        except BadData as error:
            if unreadable is None:
                raise
            log.warning("%s", error)
            unreadable.append(str(error))
            return SCHEMA.to_frame()

    there = {folder.name for folder in list_folder(case.lake.root / TABLE)}
    folders = [
        folder for key in keys if (folder := case.lake.partition_path(TABLE, key)).name in there
    ]
    with ThreadPoolExecutor(8) as readers:  # on an object store it is the waiting that takes time
        paths = [path for found in readers.map(_files, folders) for path in found]
        tables = list(readers.map(read_one, paths))
    return pl.concat([SCHEMA.to_frame(), *tables])


def _files(folder: "AnyPath") -> "list[AnyPath]":
    return [
        path
        for path in list_folder(folder)
        if path.name.endswith(".parquet") and path.name[0] != "."
    ]


@lru_cache(maxsize=1024)
def _read(path: "AnyPath") -> pl.DataFrame:
    """The rows of a file; none is ever changed."""
    with open_parquet(path, whole=True) as file:
        try:
            return pl.DataFrame(pl.from_arrow(file.read())).cast(SCHEMA)
        except Exception as error:
            if fault_of_file(error) is None:
                raise
            raise BadData(
                f"{path} is no file of the history, or damaged ({first_line(error)}). Nothing was "
                "decided; bring it back from a copy, or move it away and do without its figures."
            ) from error
