"""An input of a shop, as another system has it."""

import pandera.polars as pa
import polars as pl

from include.usecase import Input

ORDERS = Input(
    name="orders",
    schema=pa.DataFrameSchema(
        {
            "day": pa.Column(pl.Date),
            "number": pa.Column(pl.Int32),
            "customer": pa.Column(pl.String, nullable=True),
            "amount": pa.Column(pl.Float64),
            "is_paid": pa.Column(pl.Boolean),
            "placed_at": pa.Column(pl.Datetime("us", "UTC")),
        },
        strict=True,
        ordered=True,
    ),
    key=["day", "number"],
    belongs=lambda day: pl.col("day") == day,
)
