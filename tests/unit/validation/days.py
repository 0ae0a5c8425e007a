"""Days as they should not be, and their validation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from include.lake.tables import Lake
from local.in_process import validate_day
from tests.case import at

Frame = Callable[[pl.DataFrame], pl.DataFrame]


def with_value(rows: pl.DataFrame, place: int, column: str, value: Any) -> pl.DataFrame:
    """A frame with one value changed."""
    here = pl.int_range(pl.len()) == place
    new = pl.when(here).then(pl.lit(value, rows.schema[column])).otherwise(pl.col(column))
    return rows.with_columns(new.alias(column))


def with_share(column: str, value: object, share: float) -> Frame:
    """Change that share of a column's values."""
    return lambda rows: rows.with_columns(
        pl.when(pl.int_range(pl.len()) < share * pl.len())
        .then(pl.lit(value, rows.schema[column]))
        .otherwise(pl.col(column))
        .alias(column)
    )


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def validate(lake: Lake, key: str) -> None:
    assert validate_day(at(lake), "validated", key)


def reports(lake: Lake, key: str) -> list[tuple[dict, str]]:
    """All reports of a day, oldest first: JSON and page."""
    folder = lake.partition_path("validated", key)
    assert isinstance(folder, Path)
    paths = sorted(folder.glob("*/report.json"), key=lambda path: path.stat().st_mtime_ns)
    return [(json.loads(p.read_text()), p.with_suffix(".html").read_text()) for p in paths]
