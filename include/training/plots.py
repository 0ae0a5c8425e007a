"""Plots of a model's evaluation, and the data for them.

Every plot is its own `Figure` on the Agg canvas, without a screen and without global state.
"""

from itertools import cycle

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter
from sklearn.inspection import permutation_importance
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

CHALLENGER, CHAMPION, ALARM = "#0072B2", "#E69F00", "#B2182B"
OTHERS = ["#009E73", "#CC79A7", "#56B4E9"]
INK, MUTED, GRID = "#222222", "#666666", "#DDDDDD"
"""One colour per role in all plots, safe for colour-blind people (Okabe & Ito 2008)."""


def calibration(labels: np.ndarray, scores: dict[str, np.ndarray], bins: int = 10) -> Figure:
    """Reliability diagram: how many rows with a given score were positive?

    Args:
        labels: 0 or 1, of shape (rows,).
        scores: model → probability of 1, of shape (rows,).
        bins: number of equally large groups of rows, by score; equal scores stay together.
    """
    figure = new_figure(7, "Can the scores be read as probabilities?")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    style(
        axes,
        "Points on the dashed line: scores can be read as probabilities. Above it they are too "
        "low, below it too high. "
        f"{len(labels):,} rows.",
    )
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    markers = cycle("osD^v")
    for (name, score), colour in zip(scores.items(), _colours(scores), strict=True):
        axes.plot(
            *_reliability(labels, score, bins),
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
    below.set_xlabel(f"Score (a point: mean of a bin, {bins} bins of equally many rows)")
    below.set_ylabel("Share of rows")
    # A constant model would flatten the shape of the other.
    below.set_ylim(0, min(below.get_ylim()[1], 0.2))
    for axis in (axes.xaxis, axes.yaxis, below.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def roc(labels: np.ndarray, scores: dict[str, np.ndarray]) -> Figure:
    """ROC curves, with the area under each.

    Args:
        labels: 0 or 1, of shape (rows,), both present.
        scores: model → probability of 1, of shape (rows,).
    """
    figure = new_figure(7.5, "Do positives get higher scores than negatives?")
    axes = figure.subplots()
    style(axes, f"AUC: share of pairs in which they do; 0.5 is chance. {len(labels):,} rows.")
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
    for (name, score), colour in zip(scores.items(), _colours(scores), strict=True):
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


def slices(gains: dict[str, float], bound: float) -> Figure:
    """Where the challenger gains and where it loses, the worst slice on top.

    Args:
        gains: slice → log-loss of the rival minus the challenger's, in nats per row.
        bound: the minimum gain that passes; below zero if a loss is tolerated.
    """
    ordered = dict(sorted(gains.items(), key=lambda item: item[1]))
    colours = [ALARM if gain < bound else CHALLENGER for gain in ordered.values()]
    beyond = colours.count(ALARM)
    figure = new_figure(_height(ordered), "Is the challenger worse anywhere?")
    axes = figure.subplots()
    style(axes, f"{beyond} of {len(gains)} slices are beyond the bound of {bound:g} (dashed).")
    _bars(axes, ordered, colours)
    axes.axvline(bound, color=ALARM, linestyle="--", linewidth=1.5)
    axes.set_xlabel("Log-loss gained, nats per row (right of 0 the challenger is better)")
    return figure


def contributions(gains: dict[str, float]) -> Figure:
    """How much the model needs each feature, the most important on top.

    Args:
        gains: result of `feature_contributions`.
    """
    ordered = dict(sorted(gains.items(), key=lambda item: -item[1]))
    figure = new_figure(_height(ordered), "Which features does the model need?")
    axes = figure.subplots()
    style(axes, "How much worse it gets when a feature's values are shuffled between rows.")
    _bars(axes, ordered, [CHALLENGER] * len(ordered))
    axes.set_xlabel("Rise of the log-loss, nats per row")
    return figure


def feature_contributions(
    pipeline: Pipeline,
    rows: pl.DataFrame,
    labels: np.ndarray,
    features: list[str],
    seed: int,
    max_rows: int = 5000,
) -> dict[str, float]:
    """Permutation importance (Breiman 2001) in log-loss, the mean of three shuffles.

    Correlated features share their importance: the model can do without either one.

    Args:
        pipeline: a fitted model that reads tables.
        rows: the features of rows that it was not fitted on.
        labels: 0 or 1, of shape (rows,).
        features: names of the columns that the model reads.
        seed: seed for the sample of rows and for the shuffles.
        max_rows: maximum number of rows to use.

    Returns:
        Feature → rise of the log-loss, in nats per row.
    """
    size = min(len(rows), max_rows)
    chosen = np.random.default_rng(seed).choice(len(rows), size, replace=False)
    # With so few rows, threads waiting for each other on busy cores are six times slower.
    with threadpool_limits(1, user_api="openmp"):
        result = permutation_importance(
            pipeline,
            rows.select(features)[chosen].to_pandas(),
            labels[chosen],
            scoring="neg_log_loss",
            n_repeats=3,
            random_state=seed,
        )
    return dict(zip(features, result["importances_mean"].tolist(), strict=True))


def _reliability(
    labels: np.ndarray, scores: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean score and mean label of each bin that has rows, each of shape (bins or fewer,)."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]))
    _, places, counts = np.unique(
        np.digitize(scores, edges), return_inverse=True, return_counts=True
    )
    return np.bincount(places, scores) / counts, np.bincount(places, labels) / counts


def new_figure(height: float, title: str) -> Figure:
    """A figure 900 pixels wide and `height` × 100 high, with its title."""
    figure = Figure(figsize=(9, height), dpi=100, facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=17, fontweight="bold", color=INK)
    return figure


def _height(bars: dict[str, float]) -> float:
    return 1.8 + 0.32 * len(bars)


def style(axes: Axes, subtitle: str) -> None:
    """Give axes the common style, and a line of text above."""
    axes.set_title(subtitle, loc="left", fontsize=12, color=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=11)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(fontsize=12, color=INK)
    axes.yaxis.label.set(fontsize=12, color=INK)


def _bars(axes: Axes, values: dict[str, float], colours: list[str]) -> None:
    """Horizontal bars from top to bottom, each with its value."""
    places = np.arange(len(values))
    bars = axes.barh(places, list(values.values()), color=colours, height=0.7)
    free = {
        "facecolor": "white",
        "edgecolor": "none",
        "pad": 1,
    }  # so that lines behind it do not cross the text
    axes.bar_label(bars, fmt="%+.4f", padding=5, fontsize=10, color=INK, bbox=free)
    # A dollar sign in the data must not start a formula.
    axes.set_yticks(places, list(values), parse_math=False)
    axes.axvline(0, color=INK, linewidth=1)
    axes.margins(x=0.12)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _colours(models: dict[str, np.ndarray]) -> list[str]:
    roles = {"challenger": CHALLENGER, "champion": CHAMPION}
    others = [name for name in models if name not in roles]
    roles |= {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(others)}
    return [roles[name] for name in models]
