"""From labelled history to a registered model: training set, fit, evaluation on a later holdout."""

from datetime import date, timedelta
from typing import Any

import polars as pl
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)

from include import registry, scoring
from include.errors import BadData, MissingData
from include.lake import Lake, Version, parse_key
from include.registry import ModelVersion
from include.settings import settings
from include.usecase import features, models
from include.usecase.schema import KEY, TRUTH


def build_training_set(lake: Lake, start: str, end: str, holdout_days: int) -> str:
    """Join the features of each day of a window with its labels, and keep them as one table.

    Args:
        start: first day, the training's.
        end: last day, the holdout's.
        holdout_days: days at the end of the window that are for evaluation only.

    Returns:
        Reference to the published training set, with columns `day` and `is_holdout` added.

    Raises:
        BadData: the window is empty, or shorter than the holdout.
        MissingData: naming the days that are not validated, or whose truth is not there.
    """
    first, last = parse_key(start), parse_key(end)
    holdout_from = last - timedelta(days=holdout_days - 1)
    if not first < holdout_from:
        raise BadData(
            f"No day is left to train on: the window is {start} to {end} and the last "
            f"{holdout_days} day(s) of it are the holdout. Ask for a longer window."
        )
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    needed = [(table, day.isoformat()) for day in days for table in ("validated", "actuals")]
    missing = [(table, key) for table, key in needed if lake.manifest(table, key) is None]
    if missing:
        listed = ", ".join(f"{table} {key}" for table, key in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise MissingData(
            f"{len(missing)} partition(s) of the training window {start} to {end} are not "
            f"published: {listed}{more}. No model was trained. Backfill `data_validation` from "
            f"{start} to the day after {end}, as a day's truth comes with the next day's run (or "
            "`make seed`), then clear this run's failed tasks."
        )
    sources = {}
    frames = []
    for day in days:
        key = day.isoformat()
        validated, truth = lake.current("validated", key), lake.current("actuals", key)
        sources[key] = [str(validated), str(truth)]
        frames.append(_labelled(day, validated, truth))
    rows = pl.concat(frames).with_columns(is_holdout=pl.col("day") >= holdout_from)
    version = lake.new_version("training", end)
    version.write_frame("rows", rows)
    version.publish(
        ["rows"], {"start": start, "end": end, "holdout_days": holdout_days, "sources": sources}
    )
    return str(version)


def _labelled(day: date, validated: Version, truth: Version) -> pl.DataFrame:
    names = validated.manifest().parts
    rows = features.build_features({name: validated.read(name) for name in names})
    rows = rows.filter(scoring.is_usable())
    labels = features.build_labels(truth.read(TRUTH.name))
    return rows.join(labels, on=KEY, how="inner", maintain_order="left").with_columns(day=day)


def train(lake: Lake, training_set: str, reason: str) -> str:
    """Fit the model on the days before the holdout and keep it in a run.

    Returns:
        Id of the MLflow run.

    Raises:
        BadData: the training days have one class only.
    """
    version = lake.version(training_set)
    rows = version.read("rows").filter(~pl.col("is_holdout"))
    _require_both_classes(rows, f"the training days of {version}")
    pipeline = models.make_pipeline(settings().seed)
    pipeline.fit(rows, rows["label"].to_numpy())
    params: dict[str, Any] = {
        "training_set": training_set,
        "rows": len(rows),
        "first_day": str(rows["day"].min()),
        "last_day": str(rows["day"].max()),
        "seed": settings().seed,
    }
    return registry.log_training(pipeline, params, {"reason": reason})


def evaluate(lake: Lake, training_set: str, run_id: str) -> dict[str, float]:
    """Judge a run's model on the holdout, and keep the figures and the scores' distribution.

    Returns:
        log_loss, roc_auc, average_precision, brier, base_log_loss (of the training days' rate).

    Raises:
        BadData: the holdout has one class only.
    """
    version = lake.version(training_set)
    rows = version.read("rows")
    holdout = rows.filter(pl.col("is_holdout"))
    _require_both_classes(holdout, f"the holdout of {version}")
    labels = holdout["label"].to_numpy()
    base_rate = float(rows.filter(~pl.col("is_holdout"))["label"].to_numpy().mean())
    scores = registry.load_run(run_id).predict_proba(holdout)[:, 1]
    metrics = {
        "log_loss": float(log_loss(labels, scores)),
        "roc_auc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
        "brier": float(brier_score_loss(labels, scores)),
        "base_log_loss": float(log_loss(labels, [base_rate] * len(labels), labels=[0, 1])),
    }
    registry.log_evaluation(run_id, metrics, scoring.score_reference(scores))
    return metrics


def register_champion(run_id: str) -> ModelVersion:
    """Register a run's model and make it the champion."""
    model = registry.register(run_id)
    registry.promote(model)
    return model


def _require_both_classes(rows: pl.DataFrame, what: str) -> None:
    if rows["label"].n_unique() < 2:
        raise BadData(
            f"There is only one class in {len(rows)} labelled rows of {what}. The champion is as "
            "it was. Choose a longer window."
        )
