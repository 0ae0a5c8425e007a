"""Measures a day's rows and scores, and how far they are from earlier ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from include import expected
from include.errors import BadData, MissingData
from include.inference import ensemble
from include.inference.scoring import PATH, are_current, champions
from include.lake.files import passing_over
from include.lake.tables import Manifest, Version
from include.messages import ModelVersion
from include.monitoring import history, outcomes
from include.monitoring.decision import PAGE
from include.monitoring.history import Figure
from include.partitions import days_before, parse_key
from include.registry import registry
from include.statistics import drift, profiles
from include.statistics.drift import Distribution
from include.statistics.profile import Column, Profile, merge, outliers
from include.targets import UNSAID, columns
from include.training.snapshot import PROFILE
from include.usecase import UseCase

TRAINING, TRAILING = "training", "trailing"
"""The references for a day: the champion's training data, and the days before."""

SCORE = "score"
"""The kind of a column of predictions in the figures."""

DRAWN_ROWS = 20_000
"""Number of rows of a day that is enough for a plot."""

LEAST_DAYS = 0.5
"""Minimum share of the window's days with data: one week does not show what is usual."""

FAULTY_DAYS = 7
"""For how many days a faulty day does not count as usual; a longer change is the new normal."""

MARGIN = 0.25
"""Share of a range's width by which it is widened on each side."""


def figures(case: UseCase, key: str) -> list[Figure]:
    """All figures of a day except its outcomes, which come later.

    Raises:
        DependencyDown: the registry does not answer.
    """
    model = _model(case, key)
    days = _read(case, key)
    trained_on, judged = _trained_on(case, model), _judged(case, model)
    return [
        *_state(case, key, model),
        *_profiles(days),
        *_drift(case, days["features"], trained_on),
        *_scores(case, key, model, days["predictions"], judged),
        *_estimate(case, key, model, judged),
    ]


@dataclass(frozen=True)
class _Days:
    """Profiles of a day, and of all days before it together; empty without profiles."""

    today: Profile
    before: Profile


def _read(case: UseCase, key: str) -> dict[str, _Days]:
    """Name of a part in the figures → its profiles, for each part that has some."""
    parts = {
        "features": ("features", "features"),
        "predictions": ("predictions", "predictions"),
        ensemble.TABLE: (ensemble.TABLE, "predictions"),
    }
    if (validated := case.lake.manifest("validated", key)) is not None:
        parts |= {part: ("validated", part) for part in validated.parts}
    faulty = _faulty(case, key)
    sound = [day for day in _window(case, key) if day not in faulty]
    due = max(sum(expected.is_expected(case, "validated", day) for day in _window(case, key)), 1)
    found = {}
    for name, (table, part) in parts.items():
        today = merge(profiles.read_days(case.lake, table, part, [key]).values())
        today = {name: column for name, column in today.items() if column.rows}
        is_alike = partial(are_current, case) if part == "predictions" else None
        before = profiles.read_days(case.lake, table, part, sound, is_alike)
        enough = len(before) >= due * LEAST_DAYS
        usual = merge(_alike(one, today) for one in before.values()) if enough else {}
        found[name] = _Days(today, usual)
    return found


def _faulty(case: UseCase, key: str) -> list[str]:
    """Recent days with faulty data, which are not part of what is usual."""
    rows = history.read(case, days_before(key, 1), FAULTY_DAYS, [])
    called = history.select(rows, "rule", rule="features").filter(pl.col("value") == PAGE)
    return [str(day) for day in called["time"]]


def _alike(profile: Profile, today: Profile) -> Profile:
    """The columns that have the same kind (number or text) as today."""
    return {
        name: column
        for name, column in profile.items()
        if name not in today or not len(column.values) or not len(today[name].values)
        or column.is_number == today[name].is_number
    }  # fmt: skip


def _trained_on(case: UseCase, model: ModelVersion | None) -> Profile:
    """The profile of the rows that a model was trained on; empty if it has none."""
    snapshot = outcomes.training_snapshot(case, model) if model else None
    return (profiles.read(snapshot, PROFILE) if snapshot else None) or {}


def _model(case: UseCase, key: str) -> ModelVersion | None:
    """The champion that scored a day, or else the current one."""
    manifest = case.lake.manifest("predictions", key)
    if manifest is not None and "model" in manifest.metadata:
        return ModelVersion(**manifest.metadata["model"])
    return registry.find_champion(case)


def _state(case: UseCase, key: str, model: ModelVersion | None) -> Iterator[Figure]:
    """Whether the day is published, and the age of its model."""
    for table in ("validated", "predictions", ensemble.TABLE):
        manifest = case.lake.manifest(table, key)
        rows = max((part.rows for part in manifest.parts.values()), default=0) if manifest else 0
        yield Figure("state", "published", float(manifest is not None), rows, "", {"table": table})
        if manifest is not None and table == ensemble.TABLE:
            yield Figure("state", "fallback_level", ensemble.level_of(manifest), rows)
            yield Figure("state", "members_absent", len(manifest.metadata["absent"]), rows)
        if manifest is not None and (branches := manifest.metadata.get("branches")):
            for path, taken in branches["rows"].items():
                there = float(path not in branches["absent"])
                version = branches["models"].get(path, {}).get("version", "")
                yield Figure("state", "path_available", there, taken, version, {"path": path})
    if model is not None and (age := outcomes.model_age_days(case, model, key)) is not None:
        yield Figure("state", "model_age_days", age, 1, model.version)


def _profiles(days: dict[str, _Days]) -> Iterator[Figure]:
    for part, found in days.items():
        for column in found.today.values():
            about = {"table": part, "column": column.name}
            for metric, value in _describe(column, found.before.get(column.name)):
                yield Figure("profiles", metric, value, column.rows, "", about)
            for category, count in _top(column):
                labels = {**about, "category": category}
                share = count / column.rows
                yield Figure("profiles", "category_share", share, column.rows, "", labels)


def _describe(column: Column, usual: Column | None) -> Iterator[tuple[str, float]]:
    yield "null_rate", column.null_rate
    if not column.is_number or column.least is None or column.most is None:
        return
    yield "mean", column.mean
    yield "standard_deviation", column.standard_deviation
    yield "least", column.least
    yield "most", column.most
    for share, name in ((0.01, "p01"), (0.5, "p50"), (0.99, "p99")):
        quantile = column.quantile(share)
        assert quantile is not None
        yield name, quantile
    if usual is not None:
        yield "outlier_share", outliers(column, usual) / column.rows


def _top(column: Column) -> list[tuple[str, int]]:
    """The most frequent values of a text column."""
    if column.is_number:
        return []
    pairs = sorted(zip(column.values, column.counts.tolist(), strict=True), key=lambda p: -p[1])
    return pairs[: drift.TOP]


def _drift(case: UseCase, days: _Days, trained_on: Profile) -> Iterator[Figure]:
    """Drift of the day against the days before, and of all of them together against the training.

    If there are too few days before it, the day itself is compared with the training.
    """
    trained_on = _alike(trained_on, days.today)
    usual, name = (days.before, TRAILING) if days.before else (trained_on, TRAINING)
    yield from _features(case, usual, days.today, name, 1)
    for feature in [one for one in case.features.FEATURES if one in days.today and one in usual]:
        today, before = days.today[feature], usual[feature]
        about = {"feature": feature, "kind": kind_of(case, feature), "reference": name, "days": "1"}
        yield Figure(
            "drift", "null_rise", today.null_rate - before.null_rate, today.rows, "", about
        )
        yield Figure("drift", "outside_range", _outside(today, before), today.rows, "", about)
    if days.before:
        window = merge([days.before, days.today])
        yield from _features(
            case, trained_on, window, TRAINING, case.settings.drift_window_days + 1
        )


def kind_of(case: UseCase, name: str) -> str:
    """Whether a feature is `seasonal` or `stable`."""
    return "seasonal" if name in case.features.SEASONAL else "stable"


def _features(
    case: UseCase, reference: Profile, current: Profile, name: str, days: int
) -> Iterator[Figure]:
    for feature in case.features.FEATURES:
        if feature in current and feature in reference:
            one, other = (drift.of_column(side[feature]) for side in (reference, current))
            about = {"feature": feature, "kind": kind_of(case, feature)}
            yield from _compared(one, other, {**about, "reference": name, "days": str(days)})


def _scores(
    case: UseCase,
    key: str,
    model: ModelVersion | None,
    day: _Days,
    judged: pl.DataFrame | None,
) -> Iterator[Figure]:
    """Drift of the day's scores against the days before, and of a window against the holdout."""
    if model is None:
        return
    days = case.settings.score_drift_days
    for name in case.target.watched:
        if name in day.today and name in day.before:
            usual, today = (drift.of_column(side[name]) for side in (day.before, day.today))
            about = {"feature": name, "kind": SCORE, "reference": TRAILING, "days": "1"}
            yield from _compared(usual, today, about, model.version)
    scored = case.lake.manifests("predictions", _window(case, key, days, 0))
    own = [one for one, found in scored.items() if _scored_by(found) == model.version]
    window = profiles.read_window(case.lake, "predictions", "predictions", own)
    if judged is None:
        return
    for name, values in columns.watched(case.target, judged[SCORE].to_numpy()).items():
        if name in window and window[name].rows:
            about = {"feature": name, "kind": SCORE, "reference": TRAINING, "days": str(len(own))}
            usual = drift.distribution(pl.Series(values))
            yield from _compared(usual, drift.of_column(window[name]), about, model.version)


def _judged(case: UseCase, model: ModelVersion | None) -> pl.DataFrame | None:
    """`label` and `score` of rows of the holdout that a model was not fitted on, if known."""
    if model is None:
        return None
    try:
        if not (found := registry.reference(case, model).get("evaluation")):
            return None
        version = case.lake.version(found)
        target = version.manifest().metadata.get(registry.TARGET, UNSAID)
        return version.read("scores", ["label", SCORE]) if target == case.target.name else None
    except (BadData, MissingData):
        return None


def _estimate(
    case: UseCase, key: str, model: ModelVersion | None, judged: pl.DataFrame | None
) -> Iterator[Figure]:
    """The champion's loss on a day as its own predictions promise it, before the truth is known.

    The promise is corrected by how much the model promised too much or too little on rows of the
    holdout that it was not fitted on.
    """
    manifest = case.lake.manifest("predictions", key)
    if model is None or manifest is None or judged is None:
        return
    if not are_current(case, manifest):
        return
    known = manifest.parts["predictions"].columns
    version = Version(case.lake, "predictions", key, manifest.version, manifest)
    labels, scores = judged["label"].to_numpy(), judged[SCORE].to_numpy()
    with passing_over(f"The day {key}"):
        wanted = [*case.target.columns, *([PATH] if PATH in known else [])]
        rows = champions(version.read("predictions", wanted))
        promised = case.target.expected_losses(scores).mean()
        today = case.target.expected_losses(columns.read(case.target, rows))
        today = today[np.isfinite(today)]  # a row without an interval promises nothing
        if len(today) and promised > 0:
            value = today.mean() * case.target.losses(labels, scores).mean() / promised
            yield Figure("estimate", "loss", float(value), len(today), model.version)


def _scored_by(manifest: Manifest) -> str | None:
    version: str | None = manifest.metadata.get("model", {}).get("version")
    return version


def _compared(
    reference: Distribution, current: Distribution, about: dict[str, str], version: str = ""
) -> Iterator[Figure]:
    found = drift.compare(reference, current)
    metrics = ("psi", "jensen_shannon", "kolmogorov_smirnov", "wasserstein", "chi_square")
    for metric in (*metrics, "psi_by_chance"):
        value = getattr(found, metric)
        if value is not None:
            yield Figure("drift", metric, value, found.rows, version, about)


def _outside(column: Column, reference: Column) -> float:
    """Share of a column's values that are outside a reference's range, widened by `MARGIN`."""
    if reference.least is None or reference.most is None or not column.is_number:
        return 0.0
    margin = MARGIN * (reference.most - reference.least)
    beyond = (column.values < reference.least - margin) | (column.values > reference.most + margin)
    return float(column.counts[beyond].sum()) / max(int(column.counts.sum()), 1)


def _window(case: UseCase, key: str, days: int | None = None, from_back: int = 1) -> list[str]:
    """The keys of the days before a day, or up to it; by default as many as in the setting."""
    days = days or case.settings.drift_window_days
    return [days_before(key, back) for back in reversed(range(from_back, from_back + days))]


def scores(case: UseCase, key: str) -> pl.DataFrame:
    """The first number of each prediction of a day and of the days before, for plots.

    A large day is thinned to about `DRAWN_ROWS` evenly spaced rows.
    """
    found = []
    window = _window(case, key, case.settings.drift_window_days + 1, 0)
    for one, manifest in case.lake.manifests("predictions", window).items():
        version = Version(case.lake, "predictions", one, manifest.version, manifest)
        with passing_over(f"The day {one}"):
            if not are_current(case, manifest):
                continue
            first = case.target.columns[0]
            rows = version.read("predictions", [first]).rename({first: SCORE})
            every = max(1, len(rows) // DRAWN_ROWS)
            found.append(rows.gather_every(every).with_columns(day=pl.lit(parse_key(one))))
    return pl.concat(found) if found else pl.DataFrame(schema={SCORE: pl.Float32, "day": pl.Date})
