"""Plots of the probabilities of classes and their outcomes."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from include.plotting import CHALLENGER, INK, MUTED, OTHERS, new_figure, style
from include.targets.binary_plots import reliability

TINT = LinearSegmentedColormap.from_list("", ["white", CHALLENGER])


def confusion(
    labels: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    classes: list[str],
    decide: Callable[[np.ndarray], np.ndarray],
) -> Figure:
    """How often each class was taken for each other one, by the first model.

    Args:
        labels: positions of classes, of shape (rows,).
        predictions: model → probabilities of shape (rows, classes).
        classes: their names.
        decide: takes probabilities and returns positions of classes.
    """
    model, given = next(iter(predictions.items()))
    size = len(classes)
    places = labels.astype(np.int64) * size + decide(given)
    counts = np.bincount(places, minlength=size * size).reshape(size, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = new_figure(2.5 + 0.6 * size, "Which classes are taken for others?")
    axes = figure.subplots()
    style(
        axes,
        f"Share of a class's rows that the {model} takes for each class.",
    )
    axes.pcolormesh(shares, cmap=TINT, vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        share = shares[row, column]
        axes.text(
            column + 0.5, row + 0.5, f"{share:.0%}", ha="center", va="center", fontsize=11,
            color="white" if share > 0.6 else INK,
        )  # fmt: skip
    ticks = np.arange(size) + 0.5
    axes.set_xticks(ticks, classes, rotation=30, ha="right", parse_math=False)
    names = [f"{name} ({rows:,})" for name, rows in zip(classes, counts.sum(axis=1), strict=True)]
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set(xlabel="Published class", ylabel="True class (rows)", ylim=(size, 0))
    axes.grid(visible=False)
    return figure


def calibration(
    labels: np.ndarray, predictions: Mapping[str, np.ndarray], classes: list[str], bins: int = 10
) -> Figure:
    """Reliability diagram of each class against the rest, by the first model."""
    model, given = next(iter(predictions.items()))
    figure = new_figure(6.5, "Are the predicted probabilities right?")
    axes = figure.subplots()
    style(
        axes,
        f"Points on the dashed line: the {model}'s probabilities are right. {len(labels):,} rows.",
    )
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    colours = [CHALLENGER, *OTHERS, "#E69F00", INK, MUTED]
    for place, name in enumerate(classes):
        points = reliability((labels == place).astype(np.int8), given[:, place], bins)
        colour = colours[place % len(colours)]
        axes.plot(*points, color=colour, marker="o", linewidth=2, label=name, clip_on=False)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel=f"Probability (a point: mean of a bin, {bins} bins of equally many rows)",
        ylabel="Share of a bin's rows",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend = axes.legend(loc="upper left", frameon=False, fontsize=12)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure
