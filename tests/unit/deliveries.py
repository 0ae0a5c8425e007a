"""Published days, use cases with destinations, and what is there after a delivery."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
from sqlalchemy import text

from include.database import connected
from include.destinations import DeltaTable, Destination
from include.inference import delta_table
from include.inference.delta_table import PATIENCE
from include.lake.tables import Lake, Version
from include.usecase import UseCase
from tests.case import at

FIRST, SECOND = "2013-02-20", "2013-02-21"


def rows_of(key: str, scores: list[float | None], **more: list[Any]) -> pl.DataFrame:
    number = len(scores)
    return pl.DataFrame(
        {
            "date": [date.fromisoformat(key)] * number,
            "carrier": ["UA", "a,b", 'a "quoted"', "", "line\nbreak"][:number],
            "flight": list(range(number)),
            "origin": ["EWR"] * number,
            "score": scores,
            **more,
            "model": ["flight_delays"] * number,
            "model_version": ["7"] * number,
        },
        schema_overrides={
            "date": pl.Date, "origin": pl.String, "model_version": pl.String,
            "score": pl.Float32, "flight": pl.Int32, "model": pl.Categorical, "carrier": pl.String,
        },
    )  # fmt: skip


def publish(lake: Lake, key: str, rows: pl.DataFrame, table: str = "predictions") -> Version:
    version = lake.new_version(table, key)
    version.write_frame("predictions", rows)
    version.publish(["predictions"], {"model": {"version": "7"}})
    return version


def case_of(root: str | Path, *destinations: Destination) -> UseCase:
    return replace(at(Lake(str(root))), destinations=destinations)


def delta_of(case: UseCase, destination: DeltaTable | None = None) -> deltalake.DeltaTable:
    uri, options = delta_table.location(case, destination or DeltaTable())
    known = {name: value for name, value in (options or {}).items() if name not in PATIENCE}
    return deltalake.DeltaTable(uri, storage_options=known)  # Polars does not know the others


def sql_rows(connection: str, table: str = "scores") -> list[dict[str, Any]]:
    with connected(connection, "The test cannot read") as opened:
        return [dict(row) for row in opened.execute(text(f"SELECT * FROM {table}")).mappings()]


def execute(connection: str, *statements: str) -> None:
    with connected(connection, "The test cannot prepare") as opened:
        for statement in statements:
            opened.execute(text(statement))
