"""Plots of probabilities and their outcomes."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import roc_auc_score, roc_curve

from include.plotting import MUTED, colours_of, distributions, new_figure, style


def calibration(labels: np.ndarray, scores: Mapping[str, np.ndarray], bins: int = 10) -> Figure:
    """Reliability diagram: how many rows with a given prediction were positive?

    Args:
        labels: 0 or 1, of shape (rows,).
        scores: model → probability of 1, of shape (rows,).
        bins: number of equally large groups of rows, by score; equal scores stay together.
    """
    figure = new_figure(7, "Are the predicted probabilities right?")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    style(
        axes,
        "Points on the dashed line: probabilities are right. Above it they are too low, below it "
        "too high. "
        f"{len(labels):,} rows.",
    )
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    markers = cycle("osD^v")
    for (name, score), colour in zip(scores.items(), colours_of(scores), strict=True):
        axes.plot(
            *reliability(labels, score, bins),
            color=colour,
            marker=next(markers),
            label=name,
            linewidth=2,
            clip_on=False,
        )
        below.hist(
            score,
            bins=np.linspace(0, 1, 51).tolist(),
            weights=np.full(len(score), 1 / len(score)),
            histtype="step",
            color=colour,
            linewidth=1.5,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="Positives, share of a bin's rows")
    axes.legend(loc="upper left", frameon=False, fontsize=12)
    style(below, "")
    below.set_xlabel(
        f"Predicted probability (a point: mean of a bin, {bins} bins of equally many rows)"
    )
    below.set_ylabel("Share of rows")
    # A constant model would flatten the shape of the other.
    below.set_ylim(0, min(below.get_ylim()[1], 0.2))
    for axis in (axes.xaxis, axes.yaxis, below.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def roc(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """ROC curves, with the area under each.

    Args:
        labels: 0 or 1, of shape (rows,), both present.
        scores: model → probability of 1, of shape (rows,).
    """
    figure = new_figure(7.5, "Do positives get higher probabilities than negatives?")
    axes = figure.subplots()
    style(axes, f"AUC: share of pairs in which they do; 0.5 is chance. {len(labels):,} rows.")
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    for (name, score), colour in zip(scores.items(), colours_of(scores), strict=True):
        false_positive, true_positive, _ = roc_curve(labels, score)
        label = f"{name}: AUC {roc_auc_score(labels, score):.3f}"
        axes.plot(false_positive, true_positive, color=colour, label=label, linewidth=2)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="False alarms, share of the negatives above a threshold",
        ylabel="Found, share of the positives above it",
    )
    axes.legend(loc="lower right", frameon=False, fontsize=12)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def reliability(labels: np.ndarray, scores: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean score and mean label of each bin that has rows, each of shape (bins or fewer,)."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]))
    _, places, counts = np.unique(
        np.digitize(scores, edges), return_inverse=True, return_counts=True
    )
    return np.bincount(places, scores) / counts, np.bincount(places, labels) / counts


def by_outcome(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure | str:
    """The champion's scores of positives and negatives, or a sentence if all are of one class."""
    if one_class := _one_class(labels):
        return one_class
    groups = {
        name: scores["champion"][labels == label]
        for label, name in enumerate(["negatives", "positives"])
    }
    return distributions(
        "Do predictions tell the outcomes apart?",
        f"The further apart, the better. Truth is known for {len(labels):,} rows.",
        groups, "Predicted probability", (0, 1),
    )  # fmt: skip


def calibration_of_outcomes(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure | str:
    """The reliability diagram, or a sentence if all labels are of one class."""
    return _one_class(labels) or calibration(labels, scores)


def _one_class(labels: np.ndarray) -> str:
    if 0 < labels.sum() < len(labels):
        return ""
    kind = "positive" if labels.all() else "negative"
    return f"All {len(labels):,} rows whose truth is known are {kind}: nothing to compare."
