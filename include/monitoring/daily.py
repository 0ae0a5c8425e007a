"""The steps of a day's monitoring, in the order of the DAG."""

import json
from collections.abc import Iterator
from datetime import datetime

import polars as pl

from include import metrics
from include.errors import MissingData
from include.lake.files import put_text
from include.messages import Decision
from include.metrics import Sample
from include.monitoring import decision as decisions
from include.monitoring import experiment, history, measure, outcomes, policy, report, stages
from include.monitoring.history import Figure
from include.partitions import days_before, parse_key
from include.training import snapshot
from include.usecase import UseCase

LEAST_ROWS = 100
"""Rows of a slice on a day that are enough to say whether its predictions are calibrated."""

DRAWN = ["day", "label", "score", "model_version", "ensemble_score"]
"""Columns of the outcomes in the report."""


def observe(case: UseCase, key: str, now: datetime) -> int:
    """Join new truth with its predictions, and append a day's figures to the history.

    Args:
        key: the day.
        now: end of the 24 hours for which the stages of the pipelines' runs are counted. Runs that
            are due a day apart thus count every moment once, no matter how late they start.

    Returns:
        Number of figures added.
    """
    outcomes.update(case, key)
    found = history.append(case, key, [*measure.figures(case, key), *stages.rates(case, now)])
    metrics.send_of_day(case.lake, "predictions", key, _samples(case, key))
    return found


def decide(case: UseCase, key: str) -> Decision:
    """Decide about a day, and store the decision in the history and in words.

    The state of an experiment is stored with it. A damaged file of another day in the history is
    skipped, and makes the decision at least `watch`.
    """
    unreadable: list[str] = []
    rows = history.read(case, key, policy.DAYS, unreadable)
    decision = policy.decide(case, rows, key, unreadable)
    decisions.keep(case, decision)
    history.append(case, key, [*policy.figures(decision), *experiment.figures(case, rows, key)])
    metrics.send_of_day(case.lake, "predictions", key, _samples(case, key))
    return decision


def _samples(case: UseCase, key: str) -> Iterator[Sample]:
    """The history's figures of a day and of the newest day whose truth is known, as metrics."""
    rows = history.read(case, key, outcomes.lookback_days(case), []).sort("recorded_at")
    judged = history.newest(rows.filter(pl.col("pipeline") == "outcomes"))
    about_now = pl.when(pl.col("pipeline") == "outcomes").then(judged).otherwise(parse_key(key))
    for row in rows.filter(pl.col("time") == about_now).iter_rows(named=True):
        labels = json.loads(row["labels"])
        metric = metrics.METRICS.get(f"{row['pipeline']}_{row['metric']}")
        if metric is not None and row["pipeline"] != "estimate":
            about = {name: labels[name] for name in metric.labels}
            yield Sample(metric.name, row["value"], about)
        if row["pipeline"] == "estimate":
            yield Sample("estimate_loss", row["value"], _named(case, case.target.loss))
        if row["pipeline"] == "outcomes" and row["metric"] in case.target.measures:
            about = {**labels, **_named(case, row["metric"])}
            yield Sample("outcomes_figure", row["value"], about)
        is_enough = labels.get("slice") == outcomes.ALL or row["n"] >= LEAST_ROWS
        if row["pipeline"] == "outcomes" and row["metric"] == case.target.calibration and is_enough:
            yield Sample("outcomes_calibration", row["value"], labels)
        if row["metric"] == "model_age_days":
            yield Sample("champion_version", float(row["model_version"]), {})


def _named(case: UseCase, figure: str) -> dict[str, str]:
    return {"figure": figure, "unit": case.target.measures[figure].unit}


def note_retraining(case: UseCase, key: str) -> None:
    """Record that a retraining was requested for a day, which starts the cooldown."""
    history.append(case, key, [Figure(policy.PIPELINE, "retraining", 1)])


def write_report(case: UseCase, key: str, decision: Decision) -> str:
    """Draw the day's report. Returns its path."""
    page = report.render(
        case,
        decision,
        history.read(case, key, policy.DAYS, []),
        outcomes.read(case, key, case.settings.drift_window_days, DRAWN),
        measure.scores(case, key),
    )
    path = case.lake.partition_path("reports", key) / "report.html"
    put_text(path, page)
    return str(path)


def train_until(case: UseCase, key: str) -> str:
    """Last day of the training window for a retraining that a day asks for.

    It is the newest day whose truth was known on that day. Later days are left out, so that
    monitoring an old day again asks for the same retraining.
    """
    newest = days_before(key, case.truth_delay_days)
    try:
        return snapshot.newest_day(case, newest).isoformat()
    except MissingData:  # the retraining itself says which data is missing
        return newest


def retraining_is_recent(case: UseCase, key: str) -> bool:
    """Whether one was requested on another day within the cooldown, earlier or later.

    The policy only looks back; monitoring old days again, out of order, must not ask again.
    """
    cooldown = case.settings.retraining_cooldown_days
    around = history.read(case, days_before(key, 1 - cooldown), 2 * cooldown - 1, [])
    asked = history.select(around, "retraining")["time"]
    return any(str(day) != key for day in asked)
