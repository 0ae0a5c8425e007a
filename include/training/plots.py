"""Plots of a model's evaluation that are the same for every target, and the data for them."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from sklearn.inspection import permutation_importance
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from include.plotting import ALARM, CHALLENGER, bars, height_of, new_figure, style
from include.targets import Target


def slices(gains: dict[str, float], bound: float) -> Figure:
    """Where the challenger gains and where it loses, the worst slice on top.

    Args:
        gains: slice → the challenger's skill minus the rival's.
        bound: the minimum gain that passes; below zero if a loss is tolerated.
    """
    ordered = dict(sorted(gains.items(), key=lambda item: item[1]))
    colours = [ALARM if gain < bound else CHALLENGER for gain in ordered.values()]
    beyond = colours.count(ALARM)
    figure = new_figure(height_of(ordered), "Is the challenger worse anywhere?")
    axes = figure.subplots()
    style(axes, f"{beyond} of {len(gains)} slices are beyond the bound of {bound:g} (dashed).")
    bars(axes, ordered, colours)
    axes.axvline(bound, color=ALARM, linestyle="--", linewidth=1.5)
    axes.set_xlabel("Skill gained (right of 0 the challenger is better)")
    return figure


def contributions(gains: dict[str, float], target: Target) -> Figure:
    """How much the model needs each feature, the most important on top.

    Args:
        gains: result of `feature_contributions`.
        target: what is predicted.
    """
    ordered = dict(sorted(gains.items(), key=lambda item: -item[1]))
    figure = new_figure(height_of(ordered), "Which features does the model need?")
    axes = figure.subplots()
    style(axes, "How much worse it gets when a feature's values are shuffled between rows.")
    bars(axes, ordered, [CHALLENGER] * len(ordered))
    loss = target.measures[target.loss]
    axes.set_xlabel(f"Rise of the {loss.title}, {loss.unit} per row")
    return figure


def feature_contributions(
    target: Target,
    pipeline: Pipeline,
    rows: pl.DataFrame,
    labels: np.ndarray,
    features: list[str],
    seed: int,
    max_rows: int = 5000,
) -> dict[str, float]:
    """Permutation importance (Breiman 2001) in units of the loss, the mean of three shuffles.

    Correlated features share their importance: the model can do without either one.

    Args:
        target: what is predicted.
        pipeline: a fitted model that reads tables.
        rows: the features of rows that it was not fitted on.
        labels: their labels.
        features: names of the columns that the model reads.
        seed: seed for the sample of rows and for the shuffles.
        max_rows: maximum number of rows to use.

    Returns:
        Feature → rise of the loss of a row.
    """

    def gain(model: Pipeline, features: Any, truth: np.ndarray) -> float:
        return -float(target.losses(truth, target.predict(model, features)).mean())

    size = min(len(rows), max_rows)
    chosen = np.random.default_rng(seed).choice(len(rows), size, replace=False)
    # With so few rows, threads waiting for each other on busy cores are six times slower.
    with threadpool_limits(1, user_api="openmp"):
        result = permutation_importance(
            pipeline,
            rows.select(features)[chosen].to_pandas(),
            labels[chosen],
            scoring=gain,
            n_repeats=3,
            random_state=seed,
        )
    return dict(zip(features, result["importances_mean"].tolist(), strict=True))
