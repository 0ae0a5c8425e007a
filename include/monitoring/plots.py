"""Pictures of the daily report: the model's skill, drift and failures, day by day."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.dates import (
    AutoDateLocator,
    ConciseDateFormatter,
    DateFormatter,
    DayLocator,
    date2num,
)
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from include.monitoring import views
from include.plotting import (
    ALARM,
    CHALLENGER,
    CHAMPION,
    INK,
    MUTED,
    OTHERS,
    legend_below,
    new_figure,
    style,
)

LONGEST = 24
"""Letters of a name that are shown."""

COLOURS = {"champion": CHAMPION, "ensemble": OTHERS[0], "challenger": CHALLENGER}
TINT = LinearSegmentedColormap.from_list(
    "", [(*to_rgb(CHALLENGER), 0.06), (*to_rgb(CHALLENGER), 1)]
)


@dataclass(frozen=True)
class Cells:
    """A figure for each name and day.

    Attributes:
        heading: what the rows are.
        names: of the rows, from top to bottom.
        days: one after the other, without a gap.
        values: of shape (names, days), NaN where there is none.
        outlined: of the same shape, true where the figure is an alarm.
        full: the figure from which on the colour is at its strongest.
        percent: whether figures are shares.
    """

    heading: str
    names: list[str]
    days: list[date]
    values: np.ndarray
    outlined: np.ndarray
    full: float
    percent: bool = False


def skill(
    models: dict[str, pl.DataFrame],
    first: date,
    last: date,
    decisions: pl.DataFrame,
    window: int,
) -> Figure:
    """How much better than the baseline the models predict, day by day.

    Args:
        models: name in `COLOURS` → result of `views.losses`.
        first: the first day shown.
        last: the last day shown.
        decisions: columns `day` and `action`; retrain and page are shown.
        window: number of days for the mean.
    """
    figure = new_figure(5, "Does the model predict better than the baseline?")
    axes = figure.subplots()
    style(
        axes,
        f"Points: single days. Lines: the last {window} days, shaded: the champion's 95 % "
        "range. Above 0 the model is better than the baseline. Dashed: a promotion.",
    )
    axes.axhline(0, color=INK, linewidth=1)
    calendar = pl.DataFrame({"day": pl.date_range(first, last, eager=True)})  # gaps stay gaps
    for name, days in models.items():
        points = days.select(day="day", skill=1 - pl.col("loss") / pl.col("base_loss"))
        axes.plot(
            points["day"], points["skill"], ".", color=COLOURS[name], alpha=0.35, markersize=7
        )
        line = calendar.join(
            views.rolling_skill(days, window), on="day", how="left", maintain_order="left"
        )
        axes.plot(line["day"], line["skill"], color=COLOURS[name], linewidth=2.5, label=name)
        if name == "champion":
            axes.fill_between(
                line["day"].to_numpy(),
                line["low"].to_numpy(),
                line["high"].to_numpy(),
                color=COLOURS[name],
                alpha=0.18,
                linewidth=0,
            )
    if "champion" in models:
        _promotions(axes, models["champion"])
    for action, colour, marker in (("retrain", CHALLENGER, "^"), ("page", ALARM, "X")):
        marked = decisions.filter(pl.col("action") == action)["day"]
        if len(marked):
            axes.plot(
                marked, np.full(len(marked), 0.03), marker, color=colour, markersize=8,
                transform=axes.get_xaxis_transform(), label=action, clip_on=False,
            )  # fmt: skip
    axes.set_xlim(float(date2num(first)) - 1, float(date2num(last)) + 1)
    axes.set_ylabel("Skill: share of the loss saved")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend_below(figure, 4)
    _dates(axes)
    return figure


def heat_map(title: str, subtitle: str, blocks: list[Cells]) -> Figure:
    """Figures by name and day; darker is larger, and those of the last day are written out.

    Args:
        title: title of the plot.
        subtitle: what to look for.
        blocks: blocks from top to bottom, for the same days.
    """
    rows = [len(block.names) for block in blocks]
    figure = new_figure(1.6 + 0.55 * len(blocks) + 0.27 * sum(rows), title)
    panels = figure.subplots(len(blocks), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, block in zip(panels, blocks, strict=True):
        style(axes, subtitle if axes is panels[0] else "")
        _cells(axes, block)
    _dates(panels[-1])
    return figure


def _cells(axes: Axes, block: Cells) -> None:
    start = float(date2num(block.days[0])) - 0.5
    columns = start + np.arange(len(block.days) + 1)
    count = len(block.names)
    axes.imshow(  # a pixel for each cell: as shapes, they were half a megabyte of a report
        np.ma.masked_invalid(block.values),
        cmap=TINT, norm=Normalize(0, block.full, clip=True),
        aspect="auto", extent=(columns[0], columns[-1], count, 0), interpolation="none",
        clip_on=False,
    )  # fmt: skip
    for row, column in np.argwhere(block.outlined):
        axes.add_patch(
            Rectangle((columns[column], row), 1, 1, fill=False, edgecolor=ALARM, linewidth=1.5)
        )
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in block.names]
    # A dollar sign in the data must not start a formula.
    axes.set_yticks(np.arange(count) + 0.5, names, parse_math=False)
    axes.set_ylim(count, 0)
    axes.grid(visible=False)
    axes.tick_params(length=0, labelsize=10)
    axes.spines[:].set_visible(False)
    for row, value in enumerate(block.values[:, -1]):
        text = "–" if np.isnan(value) else f"{value:.1%}" if block.percent else f"{value:.2f}"
        colour = ALARM if block.outlined[row, -1] else INK
        beside = (columns[-1], row + 0.5)
        axes.annotate(
            text, beside, (5, 0), textcoords="offset points", va="center", fontsize=10, color=colour
        )
    axes.text(
        0, 1.01, block.heading, transform=axes.transAxes, fontsize=11, color=MUTED, va="bottom"
    )
    axes.annotate(
        "last day",
        (columns[-1], 0),
        (5, 2),
        textcoords="offset points",
        fontsize=10,
        color=MUTED,
    )


def _promotions(axes: Axes, days: pl.DataFrame) -> None:
    """A line where a new version of the model begins."""
    for day, version in views.promotions(days):
        axes.axvline(float(date2num(day)), color=MUTED, linestyle="--", linewidth=1.2)
        axes.text(
            float(date2num(day)), 1.0, f" version {version}", transform=axes.get_xaxis_transform(),
            rotation=90, ha="right", va="top", fontsize=10, color=MUTED, parse_math=False,
            in_layout=False,
        )  # fmt: skip


def _dates(axes: Axes) -> None:
    first, last = axes.get_xlim()
    if last - first > 8:
        locator = AutoDateLocator(maxticks=8)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:  # the default formatter would show hours
        axes.xaxis.set_major_locator(DayLocator())
        axes.xaxis.set_major_formatter(DateFormatter("%d %b"))
