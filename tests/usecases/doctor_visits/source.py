"""Where the raw data comes from: a file of the package statsmodels, dealt to days."""

import importlib.util
from datetime import date
from functools import lru_cache
from pathlib import Path

import polars as pl

FIRST_DAY = date(2021, 3, 1)
ROWS_A_DAY = 160
SILENT = 10
"""One person in so many does not return the questionnaire."""


def fetch(input_name: str, day: date) -> pl.DataFrame | None:
    """The rows of one input for one day.

    Args:
        input_name: `enrolments` or `questionnaires` (known when the year begins), or `visits` (the
            truth, known when it is over).
        day: any date; after 126 days the same people come again.
    """
    people = _people()
    days = len(people) // ROWS_A_DAY
    rows = people.slice((day - FIRST_DAY).days % days * ROWS_A_DAY, ROWS_A_DAY)
    rows = rows.with_columns(date=pl.lit(day))
    if input_name == "enrolments":
        return rows.select("date", "person", "plan", "coinsurance", "incentive")
    if input_name == "questionnaires":
        answered = rows.filter(pl.col("person") % SILENT != 0)
        return answered.select("date", "person", "health", "limitation", "diseases")
    return rows.select("date", "person", "visits")


@lru_cache
def _people() -> pl.DataFrame:
    found = importlib.util.find_spec("statsmodels")
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "datasets/randhie/randhie.csv"
    health = pl.coalesce(
        pl.when(pl.col(column) == 1).then(pl.lit(name))
        for column, name in {"hlthg": "good", "hlthf": "fair", "hlthp": "poor"}.items()
    )
    plan = pl.when(pl.col("idp") == 1).then(pl.lit("deductible"))
    plan = plan.when(pl.col("lncoins") == 0).then(pl.lit("free")).otherwise(pl.lit("shared"))
    people = pl.read_csv(path, infer_schema_length=None).select(
        person=pl.int_range(pl.len(), dtype=pl.Int32),
        plan=plan,
        coinsurance=pl.col("lncoins").exp() - 1,
        incentive=pl.col("lpi").exp(),
        health=health.fill_null("excellent"),
        limitation="physlm",
        diseases="disea",
        visits=pl.col("mdvis").cast(pl.Int32),
    )
    return people.sample(fraction=1, shuffle=True, seed=1)
