"""Where the raw data comes from. This makes it up, always the same for a day: put a query here."""

from datetime import date

import numpy as np
import polars as pl

ROWS_A_DAY = 200


def fetch(input_name: str, day: date) -> pl.DataFrame | None:
    """The rows of one input for one day, with the columns of its schema; None if not yet there.

    Args:
        input_name: `customers` (known when they are scored), or `outcomes` (the truth).
        day: any date.
    """
    random = np.random.default_rng(day.toordinal())
    months = random.integers(0, 120, ROWS_A_DAY)
    plan = random.choice(["basic", "family", "business"], ROWS_A_DAY, p=[0.5, 0.3, 0.2])
    spent = random.gamma(2, 30, ROWS_A_DAY).round(2)
    odds = 0.3 - 0.015 * months - 0.008 * spent + 0.6 * (plan == "basic")
    leaves = random.random(ROWS_A_DAY) < 1 / (1 + np.exp(-odds))
    spent_next = np.where(leaves, 0, spent * random.lognormal(0.1, 0.3, ROWS_A_DAY)).round(2)
    rows = pl.DataFrame(
        {
            "customer": 1 + np.sort(random.choice(10_000, ROWS_A_DAY, replace=False)),
            "plan": plan,
            "months": months,
            "spent": spent,
            "spent_next": spent_next,
        }
    ).with_columns(
        pl.lit(day).alias("date"),
        pl.col("customer", "months").cast(pl.Int32),
        pl.when(pl.Series(random.random(ROWS_A_DAY) > 0.05)).then("spent"),  # some are unknown
    )
    if input_name == "outcomes":
        return rows.select("date", "customer", "spent_next")
    return rows.select("date", "customer", "plan", "months", "spent")
