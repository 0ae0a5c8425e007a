"""Data for plots and pages from the history: skill, and drift with its bounds.

Nothing is drawn here: Airflow's API server imports this module, and should not import matplotlib.
"""

from datetime import date

import numpy as np
import polars as pl
from scipy.special import stdtrit

from include.monitoring import history as records
from include.usecase import UseCase

LEAST_DAYS = 5
"""Minimum days in a window for a meaningful mean and uncertainty."""


def losses(case: UseCase, history: pl.DataFrame, model: str) -> pl.DataFrame:
    """A model's losses, one row per day; of several versions, the one judged last.

    Returns:
        Columns `day`, `model_version`, `n` (rows), `loss` and `base_loss` (of a row).
    """
    labels = {"model": model, "slice": "all"}
    rows = records.select(history, case.target.loss, **labels)
    base = records.select(history, records.base(case.target.loss), **labels)
    both = rows.join(base, on=["time", "model_version"], suffix="_base")
    return (
        both.select(
            "model_version", "n", "recorded_at",
            day="time", loss="value", base_loss="value_base",
        )
        .filter(pl.col("loss").is_finite(), pl.col("base_loss") > 0, pl.col("n") > 0)
        .sort("day", "recorded_at")
        .unique("day", keep="last", maintain_order=True)
    )  # fmt: skip


def rolling_skill(days: pl.DataFrame, window: int) -> pl.DataFrame:
    """Skill over the window that ends with each day, with its uncertainty from day to day.

    Args:
        days: columns `day`, `n` (rows), `loss` and `base_loss` (of a row); at most one row per day,
            days may be missing.
        window: number of days.

    Returns:
        Columns `day`, `skill`, `low` and `high` (of 95 %), for days with enough before them.
    """
    loss, base = pl.col("n") * pl.col("loss"), pl.col("n") * pl.col("base_loss")
    sums = (
        days.sort("day")
        .rolling("day", period=f"{window}d")
        .agg(
            count=pl.len(),
            loss=loss.sum(),
            base=base.sum(),
            loss_loss=(loss * loss).sum(),
            loss_base=(loss * base).sum(),
            base_base=(base * base).sum(),
        )
    )
    ratio, count = pl.col("loss") / pl.col("base"), pl.col("count")
    # Variance of a ratio of two sums over days, from the squared residuals of the days.
    scatter = pl.col("loss_loss") - 2 * ratio * pl.col("loss_base") + ratio**2 * pl.col("base_base")
    error = (scatter.clip(0) * count / (count - 1)).sqrt() / pl.col("base")
    known = sums.filter(count >= LEAST_DAYS).with_columns(
        skill=1 - ratio, margin=error * stdtrit(count - 1, 0.975)
    )
    return known.select(
        "day",
        "skill",
        low=pl.col("skill") - pl.col("margin"),
        high=pl.col("skill") + pl.col("margin"),
    )


def promotions(days: pl.DataFrame) -> list[tuple[date, str]]:
    """The first day of each version after the first: columns `day` and `model_version`."""
    changed = days.sort("day").filter(pl.col("model_version") != pl.col("model_version").shift())
    return changed.select("day", "model_version").rows()


def drift(case: UseCase, history: pl.DataFrame) -> pl.DataFrame:
    """Each feature's and score's PSI, day by day, against the weeks before.

    Returns:
        The history's columns, `name` and `kind` of the feature, and `outlined`: 1 if it is above
        its bound, else 0. As in the policy, only stable features have a bound.
    """
    rows = records.select(history, "psi", reference="trailing", days="1").with_columns(
        name=records.label("feature"), kind=records.label("kind")
    )
    chance = records.select(history, "psi_by_chance", reference="trailing", days="1")
    rows = rows.join(chance.select("time", "labels", chance="value"), ["time", "labels"], "left")
    bound = pl.col("name").replace_strict(
        case.features.DRIFT_BOUNDS, default=case.settings.drift_page, return_dtype=pl.Float64
    )
    bound = pl.max_horizontal(bound, pl.col("chance").fill_nan(None))
    above = (pl.col("kind") == "stable") & (pl.col("value") > bound)
    return rows.with_columns(outlined=above.cast(pl.Float64))


def days_of(rows: pl.DataFrame, last: date) -> list[date]:
    """Every day from the first one in the rows to the last one."""
    first = rows["time"].min()
    assert isinstance(first, date)
    return pl.date_range(first, last, eager=True).to_list()


def matrix(
    rows: pl.DataFrame, days: list[date], order: list[str] | None = None, column: str = "value"
) -> tuple[list[str], np.ndarray]:
    """Names, by default the largest mean first, and a row of values for each."""
    means = rows.group_by("name").agg(pl.col("value").fill_nan(None).mean())
    names = means.sort("value", "name", descending=[True, False], nulls_last=True)["name"].to_list()
    if order is not None:
        names = sorted(names, key=lambda name: order.index(name) if name in order else len(order))
    values = np.full((len(names), len(days)), np.nan)
    for time, name, value in rows.select("time", "name", column).iter_rows():
        values[names.index(name), (time - days[0]).days] = value
    return names, values
