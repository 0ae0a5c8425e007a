"""Every figure of monitoring, in one append-only table.

A row has one figure (`value`, from `n` rows) and what it is about: the day (`time`), the pipeline,
the version of a model, the metric, and `labels` as a JSON object with sorted keys. These five are
its identity. A day may be monitored again, for instance when truth is late: unchanged figures are
not added again, and of changed ones the newest row counts.
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
        pipeline: the part of monitoring that found it.
        metric: its name, including the unit if it has one.
        value: NaN if undefined, such as a rate of zero rows.
        n: number of rows, runs or days behind it.
        model_version: version of the model that it is about; empty if it is not about a model.
        labels: what else it is about.
    """

    pipeline: str
    metric: str
    value: float
    n: int = 1
    model_version: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def base(loss: str) -> str:
    """The name of the baseline's figure beside that of a model."""
    return f"base_{loss}"


def append(case: UseCase, key: str, figures: Iterable[Figure]) -> int:
    """Append figures about a day, except those that the history already has.

    A figure that another version of the model has replaced since is appended again.

    Only one process at a time may append. A process that dies has added all figures or none.

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
    if len(known):  # the clock may have been set back
        now = max(now, cast(datetime, known["recorded_at"].max()) + timedelta(microseconds=1))
    table = to_arrow(new.with_columns(recorded_at=pl.lit(now, SCHEMA["recorded_at"])))
    path = case.lake.partition_path(TABLE, key) / f"{now.strftime(VERSION_TIME)}.parquet"
    with write_parquet(path, table.schema) as writer:
        writer.write_table(table)
    return len(new)


def to_frame(key: str, figures: Iterable[Figure]) -> pl.DataFrame:
    """Figures about a day as rows of the history; the last one of an identity counts."""
    time, now = parse_key(key), datetime.now(UTC)
    rows = [
        (time, f.pipeline, f.model_version, f.metric, _labels(f.labels), float(f.value), f.n, now)
        for f in figures
    ]
    frame = pl.DataFrame(rows, SCHEMA, orient="row")
    return frame.unique(IDENTITY, keep="last", maintain_order=True)


def read(case: UseCase, last: str, days: int, unreadable: list[str] | None = None) -> pl.DataFrame:
    """The figures of the `days` days up to and including `last`; days may be missing.

    Args:
        unreadable: a list to which unreadable files are added with the reason, so that reading
            continues. Without it they raise an error.

    Returns:
        Columns as in `SCHEMA`, the newest row of each identity, ordered by time.
    """
    keys = [days_before(last, back) for back in reversed(range(days))]
    return current(_read_files(case, keys, unreadable))


def current(rows: pl.DataFrame) -> pl.DataFrame:
    """The newest row of each identity."""
    return (
        rows.sort("recorded_at", maintain_order=True)
        .unique(IDENTITY, keep="last", maintain_order=True)
        .sort("time", maintain_order=True)
    )


def label(name: str) -> pl.Expr:
    """A label by its name; null if a row does not have it."""
    return pl.col("labels").str.json_path_match(f"$.{name}")


def select(rows: pl.DataFrame, metric: str, **labels: str) -> pl.DataFrame:
    """The rows of a metric that have these labels."""
    rows = rows.filter(pl.col("metric") == metric)
    return rows.filter(*(label(name) == value for name, value in labels.items()))


def newest(rows: pl.DataFrame) -> date | None:
    """The last day in the rows; None without rows."""
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
    with ThreadPoolExecutor(8) as readers:  # with an object store, most of the time is waiting
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
    """The rows of a file, cached because files never change."""
    with open_parquet(path, whole=True) as file:
        try:
            return pl.DataFrame(pl.from_arrow(file.read())).cast(SCHEMA)
        except Exception as error:
            if fault_of_file(error) is None:
                raise
            raise BadData(
                f"{path} is not a file of the history, or is damaged ({first_line(error)}). "
                "Nothing was decided. Restore it from a copy, or move it away and do without its "
                "figures."
            ) from error
