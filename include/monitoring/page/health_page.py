"""The page *Model health* as HTML; its plots are SVG lines and boxes that need no library."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from jinja2 import Environment, FileSystemLoader

from include.monitoring import history as records
from include.monitoring import views
from include.monitoring.decision import ACTIONS
from include.monitoring.page.health import DAYS, Health
from include.usecase import UseCase

WIDTH, LEFT, RIGHT = 760, 46, 8
HEIGHT, TOP, BOTTOM = 260, 18, 24
"""Size and margins of the plot of skill, in SVG units (pixels at full width)."""

NAMES, VALUES = 190, 52
"""Width for names and for the last day's figures beside the heat map."""

ROW, HEADING = 17, 26
SHADES = 6
LONGEST = 26
"""Maximum letters shown of a name."""


@dataclass(frozen=True)
class Approval:
    """A question that waits for a person.

    Attributes:
        link: where it is answered.
    """

    subject: str
    asked_at: datetime | None
    link: str


@dataclass(frozen=True)
class Mark:
    """A label at a position on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Line:
    """A model's skill: single days as points, and paths for the mean and its range."""

    name: str
    points: list[tuple[float, float]]
    mean: str
    band: str
    now: str


@dataclass(frozen=True)
class SkillPicture:
    """Skill over time."""

    lines: list[Line]
    zero: float
    days: list[Mark]
    levels: list[Mark]
    promotions: list[Mark]
    decisions: dict[str, list[Mark]]


@dataclass(frozen=True)
class Row:
    """A name of the heat map with its last figure."""

    name: str
    full_name: str
    at: float
    value: str
    outlined: bool


@dataclass(frozen=True)
class Block:
    """Names of one kind. Cells of the same shade are one path, to keep the page small."""

    heading: str
    at: float
    rows: list[Row]
    shades: list[str]
    outlined: str


@dataclass(frozen=True)
class DriftPicture:
    """Drift by name and day.

    Attributes:
        right: where the last day's figures end.
    """

    height: float
    right: float
    blocks: list[Block] = field(default_factory=list)
    days: list[Mark] = field(default_factory=list)


def render(
    case: UseCase,
    health: Health,
    approvals: list[Approval] | None,
    root: str = "/",
    nonce: str = "",
    others: Sequence[str] = (),
    broken: Mapping[str, str] | None = None,
) -> str:
    """The page.

    Args:
        health: the content.
        approvals: promotions that wait for a person; None if the user may not see them.
        root: path of Airflow's UI, with a slash at its end.
        nonce: nonce of the page's own script in the `Content-Security-Policy`.
        others: names of the use cases to link to, including this one.
        broken: name of each use case that cannot be loaded → the reason.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parents[2] / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"count": _count, "moment": _moment, "days_until": _days_until}
    finite = health.history.filter(pl.col("value").is_finite())
    loss = case.target.measures[case.target.loss]
    return templates.get_template("model_health.html").render(
        case=case,
        others=others if len(others) > 1 else (),
        broken=broken or {},
        health=health,
        approvals=approvals,
        root=root,
        nonce=nonce,
        skill=skill_picture(case, finite, health.last) if health.last else None,
        drift=drift_picture(case, finite, health.last) if health.last else None,
        size={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP,
              "bottom": BOTTOM, "names": NAMES, "values": VALUES, "row": ROW},
        window=case.settings.decay_window_days,
        bound=case.settings.drift_page,
        loss=f"{loss.title}, {loss.unit}".capitalize(),
        days=DAYS,
    )  # fmt: skip


def _count(rows: int | None) -> str:
    return "–" if rows is None else f"{rows:,}"


def _days_until(key: str, later: str) -> int:
    """Days from one partition to a later one."""
    return (date.fromisoformat(later) - date.fromisoformat(key)).days


def _moment(when: datetime | str | None) -> str:
    """A time to the minute, in UTC."""
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            return str(when)
    return f"{when:%Y-%m-%d %H:%M}" if when else ""


# --- skill ----------------------------------------------------------------------------------------


def skill_picture(case: UseCase, history: pl.DataFrame, last: date) -> SkillPicture | None:
    """Skill of champion and ensemble day by day; None where no truth is known."""
    models = {name: views.losses(case, history, name) for name in ("champion", "ensemble")}
    models = {name: days for name, days in models.items() if len(days)}
    if not models:
        return None
    first = min(days["day"].item(0) for days in models.values())
    daily = {
        name: days.select("day", skill=1 - pl.col("loss") / pl.col("base_loss"))
        for name, days in models.items()
    }
    means = {
        name: views.rolling_skill(days, case.settings.decay_window_days)
        for name, days in models.items()
    }
    values = pl.concat(
        [*(days["skill"] for days in daily.values())]
        + [rolled[column] for rolled in means.values() for column in ("low", "high")]
    )
    low, high = _limits(values)
    days_shown = max((last - first).days, 1)

    def x(day: date) -> float:
        room = WIDTH - LEFT - RIGHT
        return round(LEFT + room * ((day - first).days + 0.5) / (days_shown + 1), 1)

    def y(skill: float) -> float:
        room = HEIGHT - TOP - BOTTOM
        return round(TOP + room * (high - min(max(skill, low), high)) / (high - low), 1)

    lines = []
    for name, rolled in means.items():
        runs = list(_runs(rolled))
        mean = "".join(_path([(x(day), y(value)) for day, value, _, _ in run]) for run in runs)
        band = "".join(
            _path([(x(day), y(above)) for day, _, _, above in run])
            + _path([(x(day), y(below)) for day, _, below, _ in reversed(run)]).replace("M", "L")
            + "Z"
            for run in runs
        )
        points = [(x(day), y(value)) for day, value in daily[name].iter_rows()]
        now = f"{rolled['skill'].item(-1):.1%}" if len(rolled) else ""
        lines.append(Line(name, points, mean, band if name == "champion" else "", now))
    decided = records.select(history, "decision").sort("time")
    marks: dict[str, list[Mark]] = {"retrain": [], "page": []}
    for day, level in decided.select("time", "value").iter_rows():
        if (action := ACTIONS[int(level)]) in marks and day >= first:
            marks[action].append(Mark(x(day), f"{day}: {action}"))
    changes = views.promotions(models["champion"]) if "champion" in models else []
    return SkillPicture(
        lines=lines,
        zero=y(0),
        days=[Mark(x(day), f"{day:%d %b}") for day in _some_days(first, last)],
        levels=[Mark(y(level), f"{level:.0%}") for level in _levels(low, high)],
        promotions=[Mark(x(day), f"version {version}") for day, version in changes],
        decisions=marks,
    )


def _limits(values: pl.Series) -> tuple[float, float]:
    """The range of the scale: zero, and all values except outliers."""
    low, high = values.quantile(0.02) or 0.0, values.quantile(0.98) or 0.0
    step = _step(max(high, 0) - min(low, 0))
    return step * np.floor(min(low, 0) / step), step * max(np.ceil(max(high, 0) / step), 1)


def _step(span: float) -> float:
    return next((step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if span / step <= 6), 5.0)


def _levels(low: float, high: float) -> list[float]:
    step = _step(high - low)
    return [float(level) for level in np.arange(low, high + step / 2, step)]


def _runs(rolled: pl.DataFrame) -> Iterable[list[tuple[date, float, float, float]]]:
    """Runs of consecutive days, so that gaps stay gaps."""
    run: list[tuple[date, float, float, float]] = []
    for row in rolled.select("day", "skill", "low", "high").iter_rows():
        if run and row[0] - run[-1][0] > timedelta(1):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _some_days(first: date, last: date) -> list[date]:
    """About six days to label on the axis, including the last one."""
    every = max(((last - first).days + 5) // 6, 1)
    return [last - timedelta(back) for back in range(0, (last - first).days + 1, every)]


# --- drift ----------------------------------------------------------------------------------------


def drift_picture(case: UseCase, history: pl.DataFrame, last: date) -> DriftPicture | None:
    """Drift of features and predictions day by day; None where nothing was compared."""
    rows = views.drift(case, history)
    if rows.is_empty():
        return None
    days = views.days_of(rows, last)
    cell = (WIDTH - NAMES - VALUES) / max(
        len(days), 20
    )  # so that a few days do not become wide boxes
    usual, is_stable = case.settings.drift_page, pl.col("kind") == "stable"
    blocks, below = [], 0.0
    for heading, part, full in (
        ("stable features", rows.filter(is_stable), 2 * usual),
        ("predictions and seasonal features", rows.filter(~is_stable), 25 * usual),
    ):
        if len(part):
            names, values = views.matrix(part, days)
            outlined = views.matrix(part, days, names, "outlined")[1] == 1
            blocks.append(_block(heading, below + HEADING, names, values, outlined, full, cell))
            below += HEADING + ROW * len(names)
    shown = _some_days(days[0], days[-1])
    where = {day: NAMES + cell * ((day - days[0]).days + 0.5) for day in shown}
    marks = [Mark(round(at, 1), f"{day:%d %b}") for day, at in where.items()]
    right = round(NAMES + cell * len(days) + VALUES, 1)
    return DriftPicture(below + BOTTOM, right, blocks, marks)


def _block(
    heading: str, top: float, names: list[str], values: np.ndarray, outlined: np.ndarray,
    full: float, cell: float,
) -> Block:  # fmt: skip
    def boxes(where: np.ndarray) -> str:
        return "".join(
            f"M{NAMES + column * cell:.1f} {top + row * ROW:g}h{cell:.1f}v{ROW - 1}h-{cell:.1f}z"
            for row, column in np.argwhere(where)
        )

    shade = np.where(np.isnan(values), -1, np.clip(values / full, 0, 1) * (SHADES - 1)).round()
    rows = [
        Row(
            name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…",
            name,
            top + number * ROW + ROW - 5,
            "–" if np.isnan(value) else f"{value:.2f}",
            bool(outlined[number, -1]),
        )
        for number, (name, value) in enumerate(zip(names, values[:, -1], strict=True))
    ]
    shades = [boxes(shade == level) for level in range(SHADES)]
    return Block(heading, top, rows, shades, boxes(outlined))
