"""Evaluates models on a snapshot's holdout: the same rows for each, in total and by slice.

The champion may have been trained on some days of a later holdout. A model cannot be judged on days
that it has seen, so only days after the champion's training count, also for its challengers.
"""

import math
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import polars as pl
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from include.encoder import FeatureEncoder
from include.errors import BadData, Overtaken
from include.lake.tables import Version
from include.messages import CHAMPION, Rival
from include.partitions import parse_key
from include.registry import registry
from include.usecase import UseCase
from include.wording import counted

RESAMPLES = 2000
Figures = dict[str, Any]
"""Metrics of a model's predictions on some rows, as `Target.figures` gives them: a number each, or
None where the rows define none."""

TIMED_ROWS = 10_000
"""Rows that a model is timed on; fewer rows are scored repeatedly."""


def bootstrap_means(values: np.ndarray, days: np.ndarray, seed: int) -> np.ndarray:
    """Means of `RESAMPLES` samples of whole days, drawn with replacement (a block bootstrap).

    Rows of one day are correlated, so days are drawn, not rows (Künsch, The
    Jackknife and the Bootstrap for General Stationary Observations, 1989).

    Args:
        values: values of shape (rows,); the difference of two models' losses gives a paired test.
        days: each row's day, of shape (rows,).
        seed: seed for the draws.

    Returns:
        Means of shape (RESAMPLES,).
    """
    _, numbers = np.unique(days, return_inverse=True)
    sums, counts = np.bincount(numbers, values), np.bincount(numbers)
    drawn = draw_days(len(counts), seed)
    means: np.ndarray = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def draw_days(days: int, seed: int) -> np.ndarray:
    """Indices of the days of each bootstrap sample, of shape (RESAMPLES, days)."""
    return np.random.default_rng(seed).integers(0, days, (RESAMPLES, days))


def by_slice(
    case: UseCase, rows: pl.DataFrame, labels: np.ndarray, scores: np.ndarray
) -> dict[str, Figures]:
    """Metrics of every slice that the use case declares, named like `column = value`."""
    found = {}
    for column in case.features.SLICES:
        values = rows[column].to_numpy()
        for value in rows[column].drop_nulls().unique().sort():
            here = values == value
            found[f"{column} = {value}"] = case.target.figures(labels[here], scores[here])
    return found


def find_rival(case: UseCase, snapshot: str) -> Rival | None:
    """The champion, fixed for the rest of the run; None if there is none yet.

    Raises:
        BadData: it was trained on so much of the holdout that no fair comparison is possible.
    """
    model = registry.find_champion(case)
    if model is None:
        return None
    rival = Rival(model, registry.last_day(case, model))
    days = unseen(case, snapshot, rival, ["day"])["day"].unique()
    least = case.settings.gate_min_days
    if len(days) < least:
        facts = case.lake.version(snapshot).manifest().metadata
        raise BadData(
            f"Only {counted(len(days), 'day')} of the holdout, the last {facts['holdout_days']} "
            f"days to {facts['end']}, are later than {rival.last_day}, the last training day of "
            f"the champion (version {model.version}): at least {least} are needed for a fair "
            f"comparison ({case.settings.where_set('gate_min_days')}). No model was trained, the "
            "champion is unchanged. Ask again when the days to "
            f"{parse_key(rival.last_day) + timedelta(days=least)} are known."
        )
    return rival


def unseen(
    case: UseCase, snapshot: str, rival: Rival | None, columns: list[str] | None = None
) -> pl.DataFrame:
    """The rows of a snapshot's holdout that neither its candidates nor the champion have seen.

    Args:
        columns: the columns to read, including `day`; by default all.
    """
    holdout = case.lake.version(snapshot).read("holdout", columns)
    if rival is None or rival.last_day is None:
        return holdout
    return holdout.filter(pl.col("day") > parse_key(rival.last_day))


def evaluate_run(
    case: UseCase, snapshot: str, run_id: str, candidate: str, rival: Rival | None = None
) -> str:
    """Score the unseen rows of the holdout with a training run's model, and store the metrics.

    Returns:
        Reference to the evaluation.

    Raises:
        BadData: a prediction is impossible; the model lacks a feature.
    """
    reference = evaluate_rows(
        case,
        snapshot,
        rival,
        unseen(case, snapshot, rival),
        registry.load_run(case, run_id),
        {
            "candidate": candidate,
            "run_id": run_id,
            "model_bytes": registry.model_bytes(case, run_id),
        },
    )
    found = case.lake.version(reference).manifest().metadata
    registry.log_metrics(
        case,
        run_id,
        {
            **{name: value for name, value in found["figures"].items() if value is not None},
            "scoring_seconds_per_million": found["scoring_seconds_per_million"],
        },
    )
    return reference


def evaluate_champion(case: UseCase, snapshot: str, rival: Rival | None) -> str | None:
    """The same for the champion; None if there is none yet."""
    if rival is None:
        return None
    model = rival.model
    facts = {"candidate": "champion", "run_id": model.run_id}
    rows = unseen(case, snapshot, rival)
    try:
        return evaluate_rows(case, snapshot, rival, rows, registry.load(case, model), facts)
    except BadData as error:
        raise BadData(
            f"The champion, version {model.version}, cannot be compared with a challenger: {error} "
            f"If it is not worth restoring, remove the alias {CHAMPION!r} from it in MLflow: "
            f"challengers are then compared with the {case.target.baseline_name}."
        ) from error


def evaluate_rows(
    case: UseCase,
    snapshot: str,
    rival: Rival | None,
    rows: pl.DataFrame,
    pipeline: Pipeline,
    facts: dict[str, Any],
) -> str:
    """Score rows of a snapshot that a model has not seen, and store the scores and their metrics.

    Args:
        facts: additional content of the evaluation's manifest.

    Returns:
        Reference to the evaluation.
    """
    labels = rows["label"].to_numpy()
    scores, seconds = score(case, rows, pipeline)
    sliced = by_slice(case, rows, labels, scores)
    version = case.lake.new_version("evaluations", case.lake.version(snapshot).key)
    version.write_frame("scores", rows.select(*case.key, "day", "label", score=_as_column(scores)))
    encoder = pipeline[0]
    read = [*encoder.numeric, *encoder.categorical] if isinstance(encoder, FeatureEncoder) else []
    metadata = {
        "snapshot": snapshot,
        registry.TARGET: case.target.name,
        "rival": None if rival is None else asdict(rival),
        **facts,
        "features": read,
        "figures": case.target.figures(labels, scores),
        "slices": sliced,
        "scoring_seconds_per_million": seconds / len(rows) * 1e6,
    }
    with suppress(
        Overtaken
    ):  # it is read by its reference, even if another one is the day's current version
        version.publish(["scores"], metadata)
    return str(version)


def score(case: UseCase, rows: pl.DataFrame, pipeline: Pipeline) -> tuple[np.ndarray, float]:
    """Score rows a batch at a time.

    Returns:
        Predictions, and the CPU-seconds that they took.

    Raises:
        BadData: a prediction is impossible.
    """
    # Each call has an overhead, which would dominate with only a few rows.
    times = math.ceil(TIMED_ROWS / len(rows))
    timed = pl.concat([rows] * times) if times > 1 else rows
    batches = list(timed.iter_slices(case.settings.batch_rows))
    case.target.predict(pipeline, batches[0].head(1))  # the first call warms up and is not timed
    # One thread, because waiting threads spin and would count as CPU-seconds.
    with threadpool_limits(1, user_api="openmp"):
        began = time.process_time()
        scores = np.concatenate([case.target.predict(pipeline, batch) for batch in batches])
        seconds = (time.process_time() - began) * len(rows) / len(timed)
    scores = scores[: len(rows)]
    if wrong := case.target.wrong(scores):
        raise BadData(f"{wrong}. Nothing was promoted. Fix the model or its features.")
    return scores, seconds


def _as_column(scores: np.ndarray) -> pl.Series:
    return pl.Series(np.ascontiguousarray(scores))


def read_rival(version: Version) -> Rival | None:
    """The rival that an evaluation was made against."""
    facts = version.manifest().metadata
    rival: Rival | None = msgspec.convert(facts["rival"], Rival | None)
    return rival


def read_rows(case: UseCase, version: Version) -> pl.DataFrame:
    """The holdout rows of an evaluation, with their features."""
    return unseen(case, version.manifest().metadata["snapshot"], read_rival(version))


def read_scores(version: Version) -> np.ndarray:
    """The predictions of an evaluation."""
    scores: np.ndarray = version.read("scores", ["score"])["score"].to_numpy()
    return scores
