"""Joins predictions with their truth, and measures each model on it.

The outcomes of a day are a partition of the table `outcomes`, made from the day's published
predictions and truth. If one of these is published again (late truth, a day scored again), the
outcomes are made again and replace the old ones, so no row is ever counted twice.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl

from include.errors import BadData, MissingData, Overtaken
from include.inference import branching, ensemble, scoring
from include.inference.scoring import PATH
from include.lake.files import passing_over
from include.lake.tables import Manifest, Version
from include.messages import CHALLENGER, Branches, ModelVersion
from include.monitoring import history
from include.monitoring.history import Figure
from include.partitions import days_before, parse_key
from include.preprocess import labels_of
from include.registry import registry
from include.targets import UNSAID, columns
from include.usecase import UseCase

TABLE = "outcomes"
ALL = "all"
"""Name of the slice with all rows."""

CHAMPION = {"model": "champion", "slice": ALL}


def update(case: UseCase, key: str) -> list[str]:
    """Join the truth that is new since the last time, up to a day and as far back as the setting.

    A day's figures are added to the history before its outcomes are published. If the process dies
    in between, the next run does both again.

    A day with a damaged file is skipped, and the log names both.

    Returns:
        The days with new outcomes.
    """
    keys = [days_before(key, back) for back in reversed(range(lookback_days(case)))]
    with ThreadPoolExecutor(8) as readers:  # on an object store it is the waiting that counts
        outdated = list(readers.map(lambda day: _is_outdated(case, day), keys))
    new = []
    for day in [one for one, is_outdated in zip(keys, outdated, strict=True) if is_outdated]:
        with passing_over(f"The day {day}"), suppress(Overtaken):
            _update_day(case, day)
            new.append(day)
    return new


def lookback_days(case: UseCase) -> int:
    """How many days, up to the monitored one, may get their truth now."""
    return case.settings.outcome_lookback_days + case.truth_delay_days - 1


def _is_outdated(case: UseCase, key: str) -> bool:
    """Whether a day's outcomes are missing or older than its published predictions and truth.

    A damaged day is passed over.
    """
    found = False
    with passing_over(f"The day {key}"):
        found = _has_newer_sources(case, key)
    return found


def _has_newer_sources(case: UseCase, key: str) -> bool:
    manifests, sources = _sources(case, key)
    predictions = manifests["predictions"]
    if predictions is None or sources["actuals"] is None:
        return False
    if not scoring.are_current(case, predictions):
        return False  # from before the target was changed
    published = case.lake.readable_manifest(TABLE, key)
    return published is None or published.metadata.get("sources") != sources


def _sources(case: UseCase, key: str) -> tuple[dict[str, Manifest | None], dict[str, str | None]]:
    """The sources of a day's outcomes: manifests and their versions."""
    tables = ("predictions", ensemble.TABLE, "actuals")
    manifests = {table: case.lake.manifest(table, key) for table in tables}
    return manifests, {table: one.version if one else None for table, one in manifests.items()}


def _update_day(case: UseCase, key: str) -> None:
    version = case.lake.new_version(
        TABLE, key
    )  # begun before the sources are read, so a later version has newer sources
    manifests, sources = _sources(case, key)
    assert manifests["predictions"] is not None
    rows, unknown = join(case, key)
    facts = manifests["predictions"].metadata
    model: ModelVersion | None = msgspec.convert(facts.get("model"), ModelVersion | None)
    base = baseline(case, key, model)
    predicted = manifests["predictions"].parts["predictions"].rows
    together = manifests[ensemble.TABLE]
    branches: Branches | None = msgspec.convert(facts.get("branches"), Branches | None)
    others = branches.answered if branches else {}
    versions = _versions(model, together.metadata if together else {}, others)
    found = figures(case, rows, predicted, unknown, base, versions)
    # Only these two: versions of other registered models are numbered separately.
    for name, whose in (("champion", model), (CHALLENGER, others.get(CHALLENGER))):
        if whose is not None and (age := model_age_days(case, whose, key)) is not None:
            about = {"model": name, "slice": ALL}
            found.append(
                Figure("outcomes", "days_after_training", age, len(rows), whose.version, about)
            )
    version.check_is_newest()
    history.append(case, key, found)
    version.write_frame("outcomes", rows)
    known: dict[str, Any] = {"predicted": predicted, "labelled": len(rows), "unknown": unknown}
    known[registry.TARGET] = case.target.name
    known["baseline"] = None if base is None else base.tolist()
    version.publish(["outcomes"], {"sources": sources, "versions": versions, **known})


def join(case: UseCase, key: str) -> tuple[pl.DataFrame, int]:
    """The predictions of a day whose truth is known.

    Returns:
        The rows (key, slices, `day`, `label`, `model_version`, and each model's score, null if it
        has none; `score` is the champion's), and the number of rows of the truth without a
        prediction.
    """
    predictions = case.lake.current("predictions", key)
    known = predictions.manifest().parts["predictions"].columns
    extra = [name for name in (PATH, branching.SHADOW_SCORE) if name in known]
    wanted = [*case.key, *case.target.columns, "model_version", *extra]
    rows = predictions.read("predictions", wanted).select(
        *case.key,
        columns.pack(case.target),
        pl.col("model_version").cast(pl.String),
        *extra,
    )
    rows = _by_path(rows) if extra else rows
    lineage = predictions.manifest().metadata.get("features")
    others = [name for name in case.features.SLICES if name not in case.key]
    if others and lineage:
        slices = case.lake.version(lineage).read("features", [*case.key, *others])
        rows = rows.join(slices, on=case.key, how="left", maintain_order="left")
    together = case.lake.manifest(ensemble.TABLE, key)
    if together is not None and scoring.are_current(case, together):
        given = case.lake.current(ensemble.TABLE, key).read("predictions")
        members = [name for name in given.columns if name.startswith("score_")]
        packed = columns.pack(case.target).alias("ensemble_score")
        scores = given.select(*case.key, "fallback", *members, packed)
        rows = rows.join(scores, on=case.key, how="left", maintain_order="left")
    truth = labels_of(case, case.lake.current("actuals", key))
    unknown = len(truth.join(rows, on=case.key, how="anti"))
    joined = rows.join(truth, on=case.key, how="inner", maintain_order="left")
    return joined.with_columns(day=pl.lit(parse_key(key))), unknown


def _by_path(rows: pl.DataFrame) -> pl.DataFrame:
    """Each model's scores in its own column, including a shadow's."""
    rows = rows.with_columns(pl.col(PATH).cast(pl.String))
    own = {f"score_{path}": path for path in rows[PATH].unique().sort() if path != "champion"}
    is_champions = pl.col(PATH) == "champion"
    shadow = [pl.when(is_champions).then(name).alias(name) for name in rows.columns
              if name == branching.SHADOW_SCORE]  # fmt: skip
    return rows.with_columns(
        *(pl.when(pl.col(PATH) == path).then("score").alias(name) for name, path in own.items()),
        *shadow,
        score=pl.when(is_champions).then("score"),
    )


def baseline(case: UseCase, key: str, model: ModelVersion | None) -> np.ndarray | None:
    """The prediction that a forecast without a model would give every row.

    It knows the labels of the champion's training rows; for a champion without a snapshot, those in
    the outcomes of the 28 days before. None if there are none.
    """
    if model and (snapshot := training_snapshot(case, model)) is not None:
        return case.target.baseline(snapshot.manifest().metadata["labels"].values())
    earlier = read(case, days_before(key, 1), 28, ["label"])
    if earlier.is_empty():
        return None
    return case.target.baseline([case.target.describe(earlier["label"].to_numpy())])


def training_snapshot(case: UseCase, model: ModelVersion) -> Version | None:
    """The snapshot that a model was trained on; None if it is unknown or not in this lake."""
    with suppress(BadData, MissingData):
        if reference := registry.param(case, model.run_id, "snapshot"):
            version = case.lake.version(reference)
            version.manifest()
            return version
    return None


def model_age_days(case: UseCase, model: ModelVersion, key: str) -> float | None:
    """Days from a model's last training day to another day; None if it is unknown."""
    try:
        last_day = registry.last_day(case, model)
    except (BadData, MissingData):  # the run was changed or deleted
        return None
    return (parse_key(key) - parse_key(last_day)) / timedelta(days=1) if last_day else None


def read(case: UseCase, last: str, days: int, names: list[str] | None = None) -> pl.DataFrame:
    """The outcomes of the `days` days up to `last`.

    Args:
        names: the columns to read, null on days that lack them; by default all.
    """
    found = []
    keys = [days_before(last, back) for back in reversed(range(days))]
    for key, manifest in case.lake.manifests(TABLE, keys).items():
        if manifest.metadata.get(registry.TARGET, UNSAID) != case.target.name:
            continue
        there = manifest.parts["outcomes"].columns
        wanted = there if names is None else [name for name in names if name in there]
        version = Version(case.lake, TABLE, key, manifest.version, manifest)
        with passing_over(f"The day {key}"):
            found.append(version.read("outcomes", wanted))
    empty = {"day": pl.Date, "label": pl.Int8, "score": pl.Float32, "model_version": pl.String}
    return pl.concat(found, how="diagonal_relaxed") if found else pl.DataFrame(schema=empty)


def figures(
    case: UseCase,
    rows: pl.DataFrame,
    predicted: int,
    unknown: int,
    base: np.ndarray | None,
    versions: dict[str, str],
) -> list[Figure]:
    """Metrics of each model on the rows of a day, in total and by slice.

    Args:
        rows: what `join` gives.
        predicted: rows that were predicted.
        unknown: rows of the truth that were not.
        base: the baseline's prediction of a row; None if it is not known, and so no skill is
            either.
        versions: by model.

    Returns:
        For each model and slice the figures of `Target.figures` that there are, the baseline's
        loss (its name begins with `base_`) and `skill`: 1 - loss / baseline's loss (a skill score;
        Murphy, 1988): 0 is no better than the baseline, 1 is perfect.
    """
    found = [Figure("outcomes", "unknown_truth_rows", unknown, len(rows) + unknown)]
    if predicted:
        coverage, version = len(rows) / predicted, versions.get("champion", "")
        found.append(Figure("outcomes", "label_coverage", coverage, predicted, version, CHAMPION))
    for model, column in score_columns(rows).items():
        known = rows.filter(pl.col(column).is_not_null())
        if known.is_empty():
            continue
        labels, scores = known["label"].to_numpy(), known[column].to_numpy()
        sliced = {ALL: np.full(len(known), True)}
        if not column.startswith("score_"):  # a member is looked at as a whole
            for name in case.features.SLICES:
                values = known[name].to_numpy()
                present = known[name].drop_nulls().unique().sort()
                sliced |= {f"{name} = {value}": values == value for value in present}
        for slice_name, here in sliced.items():
            about = {"model": model, "slice": slice_name}
            for metric, value in _worth(case, labels[here], scores[here], base).items():
                found.append(
                    Figure(
                        "outcomes", metric, value, int(here.sum()), versions.get(model, ""), about
                    )
                )
    return found


def score_columns(rows: pl.DataFrame) -> dict[str, str]:
    """The column of each model's predictions, by the model's name."""
    members = {name.removeprefix("score_"): name for name in rows.columns if name[:6] == "score_"}
    whole = {"champion": "score", "ensemble": "ensemble_score"}
    return {name: column for name, column in (whole | members).items() if column in rows.columns}


def _worth(
    case: UseCase, labels: np.ndarray, scores: np.ndarray, base: np.ndarray | None
) -> dict[str, float]:
    loss, found = case.target.loss, case.target.figures(labels, scores)
    del found["rows"]
    if base is not None:
        constant = np.broadcast_to(base, (len(labels), *base.shape))
        baseline_loss = float(case.target.losses(labels, constant).mean())
        found[history.base(loss)] = baseline_loss
        if baseline_loss > 0:
            found["skill"] = 1 - found[loss] / baseline_loss
    return {name: value for name, value in found.items() if value is not None}


def _versions(
    model: ModelVersion | None, facts: dict[str, Any], others: dict[str, ModelVersion]
) -> dict[str, str]:
    champion = model.version if model else ""
    answers = {name: answer["version"] for name, answer in facts.get("answers", {}).items()}
    answers |= {path: other.version for path, other in others.items()}
    return {**answers, "champion": champion, "ensemble": champion}
