"""Is the challenger better than the champion, by the outcomes of the days on which both scored?"""

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
    """What the challenger gains on the champion: log-loss in nats a row.

    Attributes:
        value: below 0 the challenger is worse.
        low: of the range that holds the true gain in 90 % of experiments.
        high: of the same.
        confidence: that the challenger is better, one-sided.
    """

    value: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Comparison:
    """How the two have done.

    Attributes:
        champion: number of its version.
        challenger: number of its version.
        days: on which both have scored rows whose truth is known.
        rows: of them, the challenger's.
    """

    champion: str
    challenger: str
    days: int
    rows: int
    gain: Gain


def compare(case: UseCase, rows: pl.DataFrame, key: str) -> Comparison | None:
    """Compare the two that were compared last, on all days of the window that they share.

    In an A/B test each has its own rows of a day, of a shadow both have the same.

    Args:
        rows: the history up to a day, as `history.read` gives it.
        key: the day.

    Returns:
        None if there is not one day on which both were judged, and which neither was trained on.
    """
    first, last = parse_key(key) - timedelta(days=case.settings.experiment_days), parse_key(key)
    rows = rows.filter(pl.col("time") > first, pl.col("time") <= last)
    champion, challenger = (_losses(rows, model) for model in ("champion", "challenger"))
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
    """The difference of two mean losses, and how sure it is, from the scatter of days.

    Days are the sample, not rows: rows of one day share its luck, which both models have to
    live with. With few of them a bootstrap is too sure of itself; Student's t knows how few.

    Args:
        champion: its loss a row, and its rows, of each day: of shape (days, 2).
        challenger: the same, of the same days.
    """
    means, residuals = [], []
    for losses, rows in (champion.T, challenger.T):
        means.append((losses * rows).sum() / rows.sum())
        residuals.append((losses - means[-1]) * rows / rows.sum())
    gain, days = float(means[0] - means[1]), len(champion)
    if days == 1:  # which says nothing of the scatter of days
        return Gain(gain, -math.inf, math.inf, 0.5)
    scatter = residuals[0] - residuals[1]
    error = math.sqrt((scatter**2).sum() * days / (days - 1))
    margin = float(stdtrit(days - 1, 0.95)) * error
    sure = float(stdtr(days - 1, gain / error)) if error else (1 + np.sign(gain)) / 2
    return Gain(gain, gain - margin, gain + margin, sure)


def _losses(rows: pl.DataFrame, model: str) -> pl.DataFrame:
    """A model's log-loss on each day that it was not trained on, by the version judged last."""
    about = {"model": model, "slice": "all"}
    losses = history.select(rows, "log_loss", **about).filter(pl.col("n") > 0)
    seen = history.select(rows, "days_after_training", **about).filter(pl.col("value") <= 0)
    losses = losses.join(seen, on=["time", "model_version"], how="anti")
    losses = losses.sort("recorded_at").unique("time", keep="last", maintain_order=True)
    return losses.select("time", "model_version", "value", "n")


def figures(case: UseCase, rows: pl.DataFrame, key: str) -> list[Figure]:
    """The comparison as figures of the history, about the day on which it was made."""
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


def told(found: Comparison) -> str:
    """The comparison in words."""
    gain, verb = found.gain, "gains" if found.gain.value >= 0 else "loses"
    return (
        f"version {found.challenger} {verb} {abs(gain.value):.4f} log-loss on version "
        f"{found.champion} ({gain.low:+.4f} to {gain.high:+.4f} in 90 %) over "
        f"{counted(found.days, 'day')} and {found.rows:,} rows: "
        f"better with a confidence of {gain.confidence:.0%}"
    )
