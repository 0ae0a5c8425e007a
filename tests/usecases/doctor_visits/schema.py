"""The contracts of the inputs."""

import pandera.polars as pa
import polars as pl

from include.usecase import Input

KEY = ["date", "person"]
"""A person's year."""

DATE, PERSON = pa.Column(pl.Date), pa.Column(pl.Int32, pa.Check.ge(0, n_failure_cases=10))


def _within(least: float, most: float) -> pa.Check:
    return pa.Check.in_range(least, most, n_failure_cases=10)


def _one_of(*allowed: str) -> pa.Check:
    return pa.Check.isin(allowed, n_failure_cases=10)


ENROLMENTS = Input(
    name="enrolments",
    schema=pa.DataFrameSchema(
        {
            "date": DATE,
            "person": PERSON,
            "plan": pa.Column(pl.String, _one_of("free", "shared", "deductible")),
            "coinsurance": pa.Column(pl.Float64, _within(0, 101)),
            "incentive": pa.Column(pl.Float64, _within(0, 5_000)),
        },
        strict=True,
        ordered=True,
    ),
    key=KEY,
    belongs=lambda day: pl.col("date") == day,
)

QUESTIONNAIRES = Input(
    name="questionnaires",
    schema=pa.DataFrameSchema(
        {
            "date": DATE,
            "person": PERSON,
            "health": pa.Column(pl.String, _one_of("excellent", "good", "fair", "poor")),
            "limitation": pa.Column(pl.Float64, _within(0, 1)),
            "diseases": pa.Column(pl.Float64, _within(0, 100)),
        },
        strict=True,
        ordered=True,
    ),
    key=KEY,
    belongs=lambda day: pl.col("date") == day,
    required=False,
)

INPUTS = [ENROLMENTS, QUESTIONNAIRES]

TRUTH = Input(
    name="visits",
    schema=pa.DataFrameSchema(
        {
            "date": DATE,
            "person": PERSON,
            "visits": pa.Column(pl.Int32, _within(0, 366)),
        },
        strict=True,
        ordered=True,
    ),
    key=KEY,
    belongs=lambda day: pl.col("date") == day,
)
