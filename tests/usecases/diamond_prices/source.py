"""Where the raw data comes from: a file of the package plotnine, dealt to days."""

import importlib.util
from datetime import date
from functools import lru_cache
from pathlib import Path

import polars as pl

FIRST_DAY = date(2021, 3, 1)
ROWS_A_DAY = 160


def fetch(input_name: str, day: date) -> pl.DataFrame | None:
    """The rows of one input for one day.

    Args:
        input_name: `stones` (offered on that day) or `sales` (the truth, known a day later).
        day: any date; after 337 days the same stones come again.
    """
    stones = _stones()
    days = len(stones) // ROWS_A_DAY
    rows = stones.slice((day - FIRST_DAY).days % days * ROWS_A_DAY, ROWS_A_DAY)
    rows = rows.with_columns(date=pl.lit(day))
    if input_name == "stones":
        return rows.select("date", pl.exclude("date", "price"))
    return rows.select("date", "stone", "price")


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
