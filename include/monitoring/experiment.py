"""Compares challenger and champion on the outcomes of the days that both scored."""

import math
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from scipy.special import stdtr, stdtrit

from include.monitoring import history
from include.monitoring.history import Figure
from include.partitions import parse_key
from include.usecase import UseCase
from include.wording import counted

PIPELINE = "experiment"


@dataclass(frozen=True)
class Gain:
    """The champion's loss of a row minus the challenger's, in the loss's unit.

    Attributes:
        value: the gain; below 0 the challenger is worse.
        low: lower end of the range that contains the true gain in 90 % of experiments.
        high: upper end of this range.
        confidence: one-sided confidence that the challenger is better.
    """

    value: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Comparison:
    """The result of comparing the two.

    Attributes:
        champion: its version number.
        challenger: its version number.
        days: number of days on which both scored rows whose truth is known.
        rows: the challenger's rows on these days.
    """

    champion: str
    challenger: str
    days: int
    rows: int
    gain: Gain


def compare(case: UseCase, rows: pl.DataFrame, key: str) -> Comparison | None:
    """Compare the newest pair of versions on all days of the window that they share.

    In an A/B test each has its own rows; with a shadow both have the same rows.

    Args:
        rows: the history up to the day, from `history.read`.
        key: the day.

    Returns:
        None if there is no day on which both were judged and neither was trained.
    """
    last = parse_key(key)
    first = last - timedelta(days=case.settings.experiment_days + case.truth_delay_days - 1)
    rows = rows.filter(pl.col("time") > first, pl.col("time") <= last)
    champion, challenger = (_losses(case, rows, model) for model in ("champion", "challenger"))
    both = champion.join(challenger, on="time", suffix="_challenger").sort("time")
    newest = both.select("model_version", "model_version_challenger").tail(1)
    both = both.join(newest, on=newest.columns, how="semi")
    if both.is_empty():
        return None
    sides = [both[f"value{side}", f"n{side}"].to_numpy() for side in ("", "_challenger")]
    return Comparison(
        champion=newest["model_version"][0],
        challenger=newest["model_version_challenger"][0],
        days=len(both),
        rows=int(both["n_challenger"].sum()),
        gain=gain_of(*sides),
    )


def gain_of(champion: np.ndarray, challenger: np.ndarray) -> Gain:
    """The difference of two mean losses, and its confidence, from the variation between days.

    The samples are days, not rows, because rows of one day are correlated. With few days a
    bootstrap is overconfident; Student's t accounts for their number.

    Args:
        champion: its loss per row and its rows for each day, of shape (days, 2).
        challenger: the same for the challenger, on the same days.
    """
    means, residuals = [], []
    for losses, rows in (champion.T, challenger.T):
        means.append((losses * rows).sum() / rows.sum())
        residuals.append((losses - means[-1]) * rows / rows.sum())
    gain, days = float(means[0] - means[1]), len(champion)
    if days == 1:  # a single day shows no variation
        return Gain(gain, -math.inf, math.inf, 0.5)
    scatter = residuals[0] - residuals[1]
    error = math.sqrt((scatter**2).sum() * days / (days - 1))
    margin = float(stdtrit(days - 1, 0.95)) * error
    sure = float(stdtr(days - 1, gain / error)) if error else (1 + np.sign(gain)) / 2
    return Gain(gain, gain - margin, gain + margin, sure)


def _losses(case: UseCase, rows: pl.DataFrame, model: str) -> pl.DataFrame:
    """A model's loss on each day that it was not trained on, for its version judged last."""
    about = {"model": model, "slice": "all"}
    losses = history.select(rows, case.target.loss, **about).filter(pl.col("n") > 0)
    seen = history.select(rows, "days_after_training", **about).filter(pl.col("value") <= 0)
    losses = losses.join(seen, on=["time", "model_version"], how="anti")
    losses = losses.sort("recorded_at").unique("time", keep="last", maintain_order=True)
    return losses.select("time", "model_version", "value", "n")


def figures(case: UseCase, rows: pl.DataFrame, key: str) -> list[Figure]:
    """The comparison as figures of the history for the day on which it was made."""
    found = compare(case, rows, key)
    if found is None:
        return []
    about = {"against": found.champion}
    values = {
        "gain": found.gain.value,
        "gain_low": found.gain.low,
        "gain_high": found.gain.high,
        "confidence": found.gain.confidence,
    }
    return [
        Figure(PIPELINE, metric, value, found.days, found.challenger, about)
        for metric, value in values.items()
    ]


def describe(case: UseCase, found: Comparison) -> str:
    """The comparison in words."""
    loss = case.target.measures[case.target.loss].title
    gain, verb = found.gain, "gains" if found.gain.value >= 0 else "loses"
    return (
        f"version {found.challenger} {verb} {abs(gain.value):.4f} {loss} on version "
        f"{found.champion} ({gain.low:+.4f} to {gain.high:+.4f} in 90 %) over "
        f"{counted(found.days, 'day')} and {found.rows:,} rows: "
        f"better with a confidence of {gain.confidence:.0%}"
    )
