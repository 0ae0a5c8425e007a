"""The daily report: one self-contained page that shows how the model is doing."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from include.messages import Decision
from include.monitoring import experiment, plots, policy, views
from include.monitoring import history as records
from include.partitions import parse_key
from include.plotting import (
    ALARM,
    CHALLENGER,
    CHAMPION,
    GRID,
    INK,
    MUTED,
    OTHERS,
    distributions,
)
from include.targets import Measure
from include.usecase import UseCase
from include.wording import counted

DAYS = 90
"""Number of days on the page."""

WIDTH = 6
"""Size of a plot in inches: legible in half a screen and on a phone."""

VARIABLES = {
    "#ffffff": "paper", "#000000": "ink", INK: "ink", MUTED: "muted", GRID: "line",
    CHALLENGER: "blue", ALARM: "red", CHAMPION: "orange", OTHERS[0]: "green",
}  # fmt: skip
"""The page's variable for each colour of a plot, which differs in dark mode."""

STAGES = ["validate", "preprocess", "infer", "post-process"]


@dataclass(frozen=True)
class Tile:
    """One figure in large type."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """A plot with its title and what to look for, or a sentence why there is none."""

    title: str
    text: str
    picture: Markup | None


def render(
    case: UseCase,
    decision: Decision,
    history: pl.DataFrame,
    outcomes: pl.DataFrame,
    scores: pl.DataFrame,
) -> str:
    """The page of a day.

    If a plot lacks truth or history, a sentence says so.

    Args:
        decision: what to do about the day, and why.
        history: columns as in `history.SCHEMA`, up to 90 days that end with the decision's day.
        outcomes: columns `day`, `label`, `score`, `model_version` and, if there is an ensemble,
            `ensemble_score`; the last 28 days whose truth is known.
        scores: columns `day` and `score`, the first number of each prediction, of the day and the
            28 before it.

    Returns:
        HTML.
    """
    day = parse_key(decision.key)
    history = history.filter(pl.col("time").is_between(day - timedelta(DAYS - 1), day)).sort(
        "time", "metric", "labels"
    )
    draw: dict[str, Callable[[], Figure | str]] = {
        "Skill against the baseline": partial(_skill, case, history, day),
        "Drift of features and predictions": partial(_drift, case, history, day),
        "Failures by stage": partial(_stages, case, history, day),
        "Predictions of the day": partial(_scores, case, scores, day),
        **{
            title: partial(_of_outcomes, drawn, outcomes)
            for title, drawn in case.target.outcome_plots().items()
        },
    }
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent / "templates"), autoescape=True
    )
    return templates.get_template("monitoring_report.html").render(
        case=case,
        decision=decision,
        why=decision.summary,
        tiles=_tiles(case, history, decision.key),
        sections=[_section(title, drawn()) for title, drawn in draw.items()],
    )


def _tiles(case: UseCase, history: pl.DataFrame, key: str) -> list[Tile]:
    """The newest values of the most important figures."""
    champion = {"model": "champion", "slice": "all"}
    tiles = []
    finite = history.filter(pl.col("value").is_finite())
    skills, days = policy.skill(case, finite, key, case.settings.decay_window_days)
    if days:
        low, high = np.quantile(skills[1:], [0.05, 0.95])
        note = f"{low:.1%} to {high:.1%} in 90 %, {counted(days, 'day')}"
        tiles.append(Tile("Skill", f"{skills[0]:.1%}", note))
    if (found := experiment.compare(case, finite, key)) is not None:
        unit = case.target.measures[case.target.loss].unit
        note = f"better with a confidence of {found.gain.confidence:.0%}, "
        note += f"{counted(found.days, 'day')}, "
        note += f"version {found.challenger} against {found.champion}"
        tiles.append(Tile("Challenger's gain", f"{found.gain.value:+.4g} {unit}", note))
    shown = {one: case.target.measures[one] for one in
             (case.target.headline, case.target.calibration)}  # fmt: skip
    for metric, name, form, labels in (
        *((one, _titled(about), about.text, champion) for one, about in shown.items()),
        ("label_coverage", "Truth known", "{:.1%}".format, champion),
        ("model_age_days", "Age of the model", lambda age: counted(round(age), "day"), {}),
    ):
        rows = records.select(finite, metric, **labels)
        if len(rows):
            newest = rows.sort("time", "recorded_at").row(-1, named=True)
            note = f"version {newest['model_version']}" if newest["model_version"] else ""
            note = ", ".join(filter(None, [str(newest["time"]), note]))
            tiles.append(Tile(name, form(newest["value"]), note))
    return tiles


def _titled(measure: Measure) -> str:
    return measure.title[0].upper() + measure.title[1:]


def _skill(case: UseCase, history: pl.DataFrame, day: date) -> Figure | str:
    models = {name: views.losses(case, history, name) for name in plots.COLOURS}
    models = {name: days for name, days in models.items() if len(days)}
    if not models:
        return f"No truth is known yet for the {DAYS} days up to {day}."
    decided = records.select(history, "decision").filter(pl.col("value").is_finite())
    decided = decided.with_columns(
        day="time", action=pl.col("value").cast(int).replace_strict(dict(enumerate(policy.ACTIONS)))
    )
    first = min(found for days in models.values() if isinstance(found := days["day"].min(), date))
    return plots.skill(models, first, day, decided, case.settings.decay_window_days)


def _scores(case: UseCase, scores: pl.DataFrame, day: date) -> Figure | str:
    scores = scores.filter(pl.col("score").is_finite())
    is_today = pl.col("day") == day
    today = scores.filter(is_today)["score"].to_numpy()
    before = scores.filter(~is_today)
    if not len(today):
        return f"There are no predictions of {day}."
    groups = {str(day): today}
    if len(before):
        groups[f"the {before['day'].n_unique()} days before"] = before["score"].to_numpy()
    return distributions(
        "Are the day's predictions like those before?",
        "Filled: the day. Line: the days before it.",
        groups, case.target.axis, case.target.range,
    )  # fmt: skip


def _of_outcomes(
    draw: Callable[[np.ndarray, dict[str, np.ndarray]], Figure | str], outcomes: pl.DataFrame
) -> Figure | str:
    """A plot of the champion's predictions, and the ensemble's if it answered for most rows."""
    known = outcomes.drop_nulls(["score", "label"])
    if known.is_empty():
        return "No truth is known yet for the last days."
    wanted = {"champion": "score"}
    if "ensemble_score" in known.columns:
        answered = known.drop_nulls("ensemble_score")
        if len(answered) > len(known) / 2:
            known, wanted = answered, wanted | {"ensemble": "ensemble_score"}
    scores = {name: known[column].to_numpy() for name, column in wanted.items()}
    return draw(known["label"].to_numpy(), scores)


def _drift(case: UseCase, history: pl.DataFrame, day: date) -> Figure | str:
    rows = views.drift(case, history)
    if rows.is_empty():
        return f"There was nothing to compare in the {DAYS} days up to {day}."
    usual, is_stable = case.settings.drift_page, pl.col("kind") == "stable"
    days = views.days_of(rows, day)
    blocks = []
    for heading, part, full in (
        ("stable features", rows.filter(is_stable), 2 * usual),
        ("predictions and seasonal features", rows.filter(~is_stable), 25 * usual),
    ):
        if len(part):
            names, values = views.matrix(part, days)
            outlined = views.matrix(part, days, names, "outlined")[1] == 1
            blocks.append(plots.Cells(heading, names, days, values, outlined, full))
    return plots.heat_map(
        "Have inputs and predictions changed?",
        "Population stability index of a day against the weeks before it. Outlined: above its "
        f"bound, {usual:g} unless the use case sets another. Predictions and seasonal features "
        f"have none, because they change anyway. Full colour: from {2 * usual:g}, for these from "
        f"{25 * usual:g}.",
        blocks,
    )


def _stages(case: UseCase, history: pl.DataFrame, day: date) -> Figure | str:
    rows = history.filter(pl.col("pipeline") == "stages").with_columns(name=records.label("stage"))
    rows = rows.filter(pl.col("value").is_finite(), pl.col("n") > 0)
    if rows.is_empty():
        return f"No run was counted in the {DAYS} days up to {day}."
    days = views.days_of(rows, day)
    shares = (pl.col("value") * pl.col("n")).sum() / pl.col("n").sum()
    blocks = []
    for metric, heading, full in (
        ("failed_runs", "runs that failed", 1.0),
        ("failed_rows", "rows that failed", case.settings.max_quarantine_share),
    ):
        found = rows.filter(metric=metric).group_by("time", "name").agg(value=shares)
        if len(found):
            names, values = views.matrix(found, days, STAGES)
            nowhere = np.zeros(values.shape, dtype=bool)
            blocks.append(plots.Cells(heading, names, days, values, nowhere, full, percent=True))
    return plots.heat_map(
        "What fails, and where?",
        "Share of each stage's runs and rows that failed on a day. Blank: nothing ran. Full "
        f"colour: all runs, and {case.settings.max_quarantine_share:.0%} of the rows or more.",
        blocks,
    )


def _section(title: str, drawn: Figure | str) -> Section:
    if isinstance(drawn, str):
        return Section(title, drawn, None)
    axes = drawn.axes[0]
    text = f"{drawn.get_suptitle()} {axes.get_title('left')}"
    axes.set_title("", loc="left")  # the page shows it as text, legible on a phone
    drawn.suptitle("")
    width, height = drawn.get_size_inches()
    drawn.set_size_inches(WIDTH, height * min(1, 1.2 * WIDTH / width))
    return Section(title, text, _svg(drawn, f"{title}. {text}"))


def _svg(figure: Figure, description: str) -> Markup:
    """A plot as part of the page, with the page's fonts and colours."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, name in VARIABLES.items():
        svg = svg.replace(colour.lower(), f"var(--{name})")
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    described = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
    return Markup(described)  # noqa: S704 - matplotlib escapes the texts that it draws
