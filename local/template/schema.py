"""The contracts of a day's inputs.

Bad rows are put aside, and a day with too many of them is refused.
"""

import pandera.polars as pa
import polars as pl

from include.usecase import Input

KEY = ["date", "customer"]
"""Columns that together identify a row, in the first input and in the truth."""

DATE = pa.Column(pl.Date)
CUSTOMER = pa.Column(pl.Int32, pa.Check.ge(1, n_failure_cases=10))

CUSTOMERS = Input(
    name="customers",
    schema=pa.DataFrameSchema(
        {
            "date": DATE,
            "customer": CUSTOMER,
            "plan": pa.Column(
                pl.String, pa.Check.isin(["basic", "family", "business"], n_failure_cases=10)
            ),
            "months": pa.Column(pl.Int32, pa.Check.in_range(0, 1_200, n_failure_cases=10)),
            "spent": pa.Column(
                pl.Float64, pa.Check.in_range(0, 1e6, n_failure_cases=10), nullable=True
            ),
        },
        strict=True,  # exactly these columns
        ordered=True,  # in this order
    ),
    key=KEY,
    belongs=lambda day: pl.col("date") == day,
    max_null_rate={"spent": 0.3},
)

INPUTS = [CUSTOMERS]
"""The inputs from which a day is scored. The rows of the first are scored."""

TRUTH = Input(
    name="outcomes",
    schema=pa.DataFrameSchema(
        {
            "date": DATE,
            "customer": CUSTOMER,
            "spent_next": pa.Column(pl.Float64, pa.Check.in_range(0, 1e6, n_failure_cases=10)),
        },
        strict=True,
        ordered=True,
    ),
    key=KEY,
    belongs=lambda day: pl.col("date") == day,
)
"""The input that becomes known later, from which labels are built."""
