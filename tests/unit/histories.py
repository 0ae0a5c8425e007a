"""A history of months, its outcomes and scores, as the monitor would have kept them."""

import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from include.monitoring import report
from include.monitoring.history import SCHEMA

LAST = date(2013, 6, 30)
PROMOTED = LAST - timedelta(20)
"""The day from which version 2 scores."""
NO_HISTORY = SCHEMA.to_frame()
NO_OUTCOMES = pl.DataFrame(
    schema={"day": pl.Date, "label": pl.Int8, "score": pl.Float32, "model_version": pl.String}
)
NO_SCORES = pl.DataFrame(schema={"day": pl.Date, "score": pl.Float32})
FEATURES = {
    "stable": ["dep_minute", "distance", "seats", "plane_age", "carrier", "origin", "dest"],
    "seasonal": ["temperature", "wind_speed", "visibility", "recent_delay"],
    "score": ["score"],
}
Row = tuple[date, str, str, str, str, float, int, datetime]


def row(
    day: date,
    pipeline: str,
    metric: str,
    value: float,
    n: int = 900,
    version: str = "",
    **labels: str,
) -> Row:
    recorded = datetime(day.year, day.month, day.day, 7, tzinfo=UTC)
    return day, pipeline, version, metric, json.dumps(labels, sort_keys=True), value, n, recorded


def history_of(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, SCHEMA, orient="row")


def losses(
    day: date, loss: float, base: float, model: str = "champion", version: str = "1"
) -> list:
    labels = {"model": model, "slice": "all"}
    return [
        row(day, "outcomes", "log_loss", loss, version=version, **labels),
        row(day, "outcomes", "base_log_loss", base, version=version, **labels),
    ]


def sample_history(days: int = 90) -> list[Row]:
    """A model decays, is replaced, and gets better; one feature breaks on the last two days."""
    random = np.random.default_rng(7)
    rows: list[Row] = []
    for back in reversed(range(days)):
        day = LAST - timedelta(back)
        version = "2" if day >= PROMOTED else "1"
        age = (day - PROMOTED).days if version == "2" else days - back
        if back >= 2 and not 50 <= back < 54:  # truth is late, and was lost once
            base = 0.45 + 0.08 * random.standard_normal()
            for model, better in (("champion", 0), ("ensemble", 0.012)):
                skill = 0.12 - 0.0016 * age + better + 0.03 * random.standard_normal()
                rows += losses(day, base * (1 - skill), base, model, version)
            for metric, value in (
                ("roc_auc", 0.7 + 0.02 * random.random()),
                ("calibration_error", 0.031),
                ("label_coverage", 0.98),
            ):
                labels = {"model": "champion", "slice": "all"}
                rows.append(row(day, "outcomes", metric, value, version=version, **labels))
        for kind, names in FEATURES.items():
            for name in names:
                usual = {"stable": 0.02, "seasonal": 0.9, "score": 0.05}[kind]
                psi = usual * random.gamma(2) / 2 + (0.5 if name == "seats" and back < 2 else 0)
                labels = {"feature": name, "kind": kind, "reference": "trailing", "days": "1"}
                rows.append(row(day, "drift", "psi", psi, **labels))
        for stage in report.STAGES:
            failed = float(random.random() < 0.05)
            rows.append(row(day, "stages", "failed_runs", failed / 2, 2, dag="d", stage=stage))
            share = random.random() * 0.004 if stage == "validate" else 0
            rows.append(row(day, "stages", "failed_rows", share, dag="d", stage=stage))
        decided = {21: 2, 40: 3, 0: 3}.get(back, 0)
        rows.append(row(day, "decision", "decision", decided))
        rows.append(row(day, "decision", "model_age_days", age))
    return rows


def sample_outcomes(days: int = 28, rows: int = 300) -> pl.DataFrame:
    random = np.random.default_rng(7)
    score = random.beta(1.5, 5, days * rows)
    return pl.DataFrame(
        {
            "day": [LAST - timedelta(days - number // rows) for number in range(days * rows)],
            "label": (random.random(days * rows) < score**1.1).astype(np.int8),
            "score": score.astype(np.float32),
            "model_version": "2",
            "ensemble_score": (score**1.05).astype(np.float32),
        }
    )


def sample_scores() -> pl.DataFrame:
    before = sample_outcomes().select("day", "score")
    today = pl.DataFrame({"day": LAST, "score": np.random.default_rng(1).beta(2, 5, 300)})
    return pl.concat([before, today.with_columns(pl.col("score").cast(pl.Float32))])
