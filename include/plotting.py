"""The look that all plots share.

Every plot is its own `Figure` on the Agg canvas, without a screen and without global state.
"""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

CHALLENGER, CHAMPION, ALARM = "#0072B2", "#E69F00", "#B2182B"
OTHERS = ["#009E73", "#CC79A7", "#56B4E9"]
INK, MUTED, GRID = "#222222", "#666666", "#DDDDDD"
"""One colour per role in all plots, safe for colour-blind people (Okabe & Ito 2008)."""


def new_figure(height: float, title: str) -> Figure:
    """A figure 900 pixels wide and `height` × 100 high, with its title."""
    figure = Figure(figsize=(9, height), dpi=100, facecolor="white")
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=17, fontweight="bold", color=INK)
    return figure


def height_of(values: dict[str, float]) -> float:
    """Height of a figure with a bar for each value."""
    return 1.8 + 0.32 * len(values)


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


def bars(axes: Axes, values: dict[str, float], colours: list[str]) -> None:
    """Horizontal bars from top to bottom, each with its value."""
    places = np.arange(len(values))
    drawn = axes.barh(places, list(values.values()), color=colours, height=0.7)
    free = {
        "facecolor": "white",
        "edgecolor": "none",
        "pad": 1,
    }  # so that lines behind it do not cross the text
    axes.bar_label(drawn, fmt="%+.4f", padding=5, fontsize=10, color=INK, bbox=free)
    # A dollar sign in the data must not start a formula.
    axes.set_yticks(places, list(values), parse_math=False)
    axes.axvline(0, color=INK, linewidth=1)
    axes.margins(x=0.12)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def colours_of(models: Iterable[str]) -> list[str]:
    """A colour for each model: its role's, or else one of the others."""
    roles = {"challenger": CHALLENGER, "champion": CHAMPION}
    others = [name for name in models if name not in roles]
    roles |= {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(others)}
    return [roles[name] for name in models]


def distributions(
    title: str, subtitle: str, scores: dict[str, np.ndarray], axis: str, ends: tuple[float, float]
) -> Figure:
    """Distributions of one number of predictions.

    Args:
        title: title of the plot.
        subtitle: what to look for.
        scores: group → numbers of shape (rows,); the first group is filled.
        axis: what the number is, with its unit.
        ends: its possible range; probabilities are shown in percent. Where it is infinite, all but
            the outermost numbers are shown.
    """
    figure = new_figure(3.6, title)
    axes = figure.subplots()
    style(axes, subtitle)
    are_shares = ends == (0, 1)
    outer = np.quantile(np.concatenate(list(scores.values())), [0.005, 0.995])
    first, last = (end if np.isfinite(end) else own for end, own in zip(ends, outer, strict=True))
    edges = np.linspace(first, last if last > first else first + 1, 41)
    for place, (name, group) in enumerate(scores.items()):
        shares = np.histogram(group, edges)[0] / len(group)
        mean = f"{group.mean():.1%}" if are_shares else f"{group.mean():,.4g}"
        label = f"{name}: {len(group):,} rows, mean {mean}"
        colour = INK if place else CHALLENGER
        axes.stairs(
            shares, edges, color=colour, fill=not place, alpha=1 if place else 0.4,
            linewidth=2, label=label,
        )  # fmt: skip
    axes.set(xlim=(edges[0], edges[-1]), xlabel=axis, ylabel="Share of rows")
    axes.set_ylim(bottom=0)
    for shares_axis in (axes.xaxis, axes.yaxis) if are_shares else (axes.yaxis,):
        shares_axis.set_major_formatter(PercentFormatter(1))
    legend_below(figure, 1)
    return figure


def legend_below(figure: Figure, columns: int) -> None:
    """A legend below the axes, so that it covers no data."""
    figure.legend(
        loc="outside lower left", ncols=columns, frameon=False, fontsize=11, columnspacing=1.5
    )
