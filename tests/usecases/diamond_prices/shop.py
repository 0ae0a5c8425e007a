"""Plays the shop, so that the source has something to read. A fork has no such module.

The shop drops each day's offers as files of several kinds, the last one followed by a marker, and
keeps its sales in a database. The data is a file of the package plotnine, dealt to days.
"""

import importlib.util
import os
from datetime import date
from functools import lru_cache
from pathlib import Path

import polars as pl
from sqlalchemy import text

from include.database import connected
from include.lake.files import atomic_file
from include.settings import settings

FIRST_DAY = date(2021, 3, 1)
ROWS_A_DAY = 160
KINDS = ("csv", "parquet", "jsonl")

CONNECTION, VARIABLE = "shop", "AIRFLOW_CONN_SHOP"


def drop(day: date) -> None:
    """Drop a day's offers: two files, of kinds that change with the day, then the marker."""
    folder = settings().data_dir.resolve() / "drop" / f"{day:%Y/%m/%d}"
    marker = folder / "_SUCCESS"
    if marker.exists():
        return
    offers = stones(day).select("date", pl.exclude("date", "price"))
    half = len(offers) // 2
    for number, rows in enumerate((offers[:half], offers[half:])):
        kind = KINDS[(day.toordinal() + number) % len(KINDS)]
        with atomic_file(folder / f"offers-{number}.{kind}", replace=False) as scratch:
            {
                "csv": rows.write_csv, "parquet": rows.write_parquet, "jsonl": rows.write_ndjson
            }[kind](scratch)  # fmt: skip
    marker.touch()


def sell(day: date) -> None:
    """Write a day's sales to the database: a SQLite in the data folder, if no other is set."""
    if os.environ.get(VARIABLE, "sqlite:").startswith("sqlite:"):
        os.environ[VARIABLE] = f"sqlite://{settings().data_dir.resolve() / 'shop.db'}"
    sold = stones(day).select(pl.col("date").cast(pl.String), "stone", "price")
    with connected(CONNECTION, "The shop cannot write its sales") as shop:
        shop.execute(
            text(
                "CREATE TABLE IF NOT EXISTS sales "
                "(date DATE, stone INTEGER, price NUMERIC(10, 2), PRIMARY KEY (date, stone))"
            )
        )
        known = text("INSERT INTO sales VALUES (:date, :stone, :price) ON CONFLICT DO NOTHING")
        shop.execute(known, sold.to_dicts())


def stones(day: date) -> pl.DataFrame:
    """The stones of a day, with their prices; after 337 days the same stones come again."""
    found = _stones()
    days = len(found) // ROWS_A_DAY
    rows = found.slice((day - FIRST_DAY).days % days * ROWS_A_DAY, ROWS_A_DAY)
    return rows.with_columns(date=pl.lit(day))


@lru_cache
def _stones() -> pl.DataFrame:
    found = importlib.util.find_spec("plotnine")  # without importing it
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "data/diamonds.csv"
    sizes = {"x": "length", "y": "width", "z": "height"}
    stones = pl.read_csv(path).select(
        pl.int_range(pl.len(), dtype=pl.Int32).alias("stone"),
        pl.col("carat", "depth", "table").cast(pl.Float64),
        *(pl.when(pl.col(old) > 0).then(old).alias(name) for old, name in sizes.items()),
        "cut",
        "color",
        "clarity",
        pl.col("price").cast(pl.Float64),
    )
    return stones.sample(fraction=1, shuffle=True, seed=1)
