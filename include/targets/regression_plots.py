"""Plots of predicted numbers, their intervals and what came of them."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from include.plotting import MUTED, colours_of, legend_below, new_figure, style

BINS = 10
SHOWN = (0.005, 0.995)
"""Quantiles between which values are drawn, so that single ones do not set the scale."""


def errors(labels: np.ndarray, predictions: Mapping[str, np.ndarray], unit: str) -> Figure:
    """How far predictions are from what happened.

    Args:
        labels: numbers of shape (rows,).
        predictions: model → predictions of shape (rows, 3).
        unit: unit of the numbers.
    """
    figure = new_figure(4.5, "How wrong are the predictions?")
    axes = figure.subplots()
    style(axes, f"The narrower and the nearer to 0, the better. {len(labels):,} rows.")
    found = {name: given[:, 0] - labels for name, given in predictions.items()}
    low, high = np.quantile(np.concatenate(list(found.values())), SHOWN)
    edges = np.linspace(low, high if high > low else low + 1, 61)
    for (name, values), colour in zip(found.items(), colours_of(found), strict=True):
        shares = np.histogram(values, edges)[0] / len(values)
        label = f"{name}: mean absolute error {np.abs(values).mean():,.4g} {unit}"
        axes.stairs(shares, edges, color=colour, linewidth=2, label=label)
    axes.axvline(0, color=MUTED, linestyle="--", linewidth=1)
    axes.set(xlabel=f"Prediction - truth, {unit}", ylabel="Share of rows")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend_below(figure, 1)
    return figure


def calibration(
    labels: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    unit: str,
    share: float | None = None,
) -> Figure:
    """The truth against the prediction, in bins of equally many rows.

    Args:
        labels: numbers of shape (rows,).
        predictions: model → predictions of shape (rows, 3).
        unit: unit of the numbers.
        share: the quantile of the truth that is predicted; None if its mean is.
    """
    centre = "Mean" if share is None else "Median" if share == 0.5 else f"Quantile {share:g}"
    figure = new_figure(6.5, "Are the predictions right on average?")
    axes = figure.subplots()
    style(axes, f"Points on the dashed line: they are. {len(labels):,} rows in {BINS} bins.")
    ends: list[float] = []
    markers = cycle("osD^v")
    for (name, given), colour in zip(predictions.items(), colours_of(predictions), strict=True):
        points = np.array(
            [(given[here, 0].mean(), _centre(labels[here], share)) for here in _bins(given[:, 0])]
        )
        ends += points.ravel().tolist()
        axes.plot(*points.T, color=colour, marker=next(markers), linewidth=2, label=name)
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], "--", color=MUTED, linewidth=1)
    axes.set(
        xlabel=f"Mean prediction of a bin, {unit}", ylabel=f"{centre} truth of the bin, {unit}"
    )
    axes.legend(loc="upper left", frameon=False, fontsize=12)
    return figure


def coverage(
    labels: np.ndarray, predictions: Mapping[str, np.ndarray], interval: float, unit: str
) -> Figure | str:
    """Share of the truth inside its interval, in bins of equally many rows."""
    figure = new_figure(4.5, "Do the intervals hold what they promise?")
    axes = figure.subplots()
    style(axes, f"Dashed: the promise of {interval:.0%}. {len(labels):,} rows in {BINS} bins.")
    markers = cycle("osD^v")
    drawn = False
    for (name, given), colour in zip(predictions.items(), colours_of(predictions), strict=True):
        value, lower, upper = given.T
        if np.isnan(lower).any():
            continue
        covered = (labels >= lower) & (labels <= upper)
        points = np.array([(value[here].mean(), covered[here].mean()) for here in _bins(value)])
        label = f"{name}: {covered.mean():.1%}"
        axes.plot(*points.T, color=colour, marker=next(markers), linewidth=2, label=label)
        drawn = True
    if not drawn:
        return "No model gave an interval."
    axes.axhline(interval, color=MUTED, linestyle="--", linewidth=1)
    axes.set(xlabel=f"Mean prediction of a bin, {unit}", ylabel="Covered", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower right", frameon=False, fontsize=12)
    return figure


def _centre(values: np.ndarray, share: float | None) -> float:
    return float(values.mean() if share is None else np.quantile(values, share))


def _bins(values: np.ndarray) -> list[np.ndarray]:
    """The places of the rows of each bin, by value."""
    order = np.argsort(values, kind="stable")
    return [part for part in np.array_split(order, BINS) if len(part)]
