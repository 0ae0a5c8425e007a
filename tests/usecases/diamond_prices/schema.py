"""The contracts of the inputs."""

import pandera.polars as pa
import polars as pl

from include.usecase import Input

KEY = ["date", "stone"]

DATE, STONE = pa.Column(pl.Date), pa.Column(pl.Int32, pa.Check.ge(0, n_failure_cases=10))


def _within(least: float, most: float, nullable: bool = False) -> pa.Column:
    check = pa.Check.in_range(least, most, n_failure_cases=10)
    return pa.Column(pl.Float64, check, nullable=nullable)


def _one_of(*allowed: str) -> pa.Column:
    return pa.Column(pl.String, pa.Check.isin(allowed, n_failure_cases=10))


STONES = Input(
    name="stones",
    schema=pa.DataFrameSchema(
        {
            "date": DATE,
            "stone": STONE,
            "carat": _within(0.1, 10),
            "depth": _within(40, 80),
            "table": _within(40, 100),
            "length": _within(2, 100, nullable=True),
            "width": _within(2, 100, nullable=True),
            "height": _within(1, 100, nullable=True),
            "cut": _one_of("Fair", "Good", "Very Good", "Premium", "Ideal"),
            "color": _one_of(*"DEFGHIJ"),
            "clarity": _one_of("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
        },
        strict=True,
        ordered=True,
    ),
    key=KEY,
    belongs=lambda day: pl.col("date") == day,
    max_null_rate={"length": 0.05, "width": 0.05, "height": 0.05},
)

INPUTS = [STONES]

TRUTH = Input(
    name="sales",
    schema=pa.DataFrameSchema(
        {"date": DATE, "stone": STONE, "price": _within(1, 100_000)}, strict=True, ordered=True
    ),
    key=KEY,
    belongs=lambda day: pl.col("date") == day,
)
