"""The steps of a day's monitoring, in the order in which the DAG takes them."""

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

DRAWN = ["day", "label", "score", "model_version", "ensemble_score"]
"""Columns of the outcomes that the report shows."""


def observe(case: UseCase, key: str, now: datetime) -> int:
    """Join the truth that has come, and add what is found in a day to the history.

    Args:
        key: the day.
        now: until when the stages of the pipelines' runs are counted, for 24 hours before it. Runs
            that are due a day apart thus count every moment once, however late they begin.

    Returns:
        Figures added.
    """
    outcomes.update(case, key)
    found = history.append(case, key, [*measure.figures(case, key), *stages.rates(case, now)])
    metrics.send_of_day(case.lake, "predictions", key, _samples(case, key))
    return found


def decide(case: UseCase, key: str) -> Decision:
    """Decide about a day, and keep the decision, in the history and in words.

    How an experiment stands is kept beside it. A file of the history that is damaged is passed
    over if it is of another day, and is a reason to watch.
    """
    unreadable: list[str] = []
    rows = history.read(case, key, policy.DAYS, unreadable)
    decision = policy.decide(case, rows, key, unreadable)
    decisions.keep(case, decision)
    history.append(case, key, [*policy.figures(decision), *experiment.figures(case, rows, key)])
    metrics.send_of_day(case.lake, "predictions", key, _samples(case, key))
    return decision


def _samples(case: UseCase, key: str) -> Iterator[Sample]:
    """What the history says of a day, and of the newest day whose truth is known."""
    rows = history.read(case, key, case.settings.outcome_lookback_days, []).sort("recorded_at")
    judged = history.newest(rows.filter(pl.col("pipeline") == "outcomes"))
    about_now = pl.when(pl.col("pipeline") == "outcomes").then(judged).otherwise(parse_key(key))
    for row in rows.filter(pl.col("time") == about_now).iter_rows(named=True):
        metric = metrics.METRICS.get(f"{row['pipeline']}_{row['metric']}")
        if metric is not None:
            labels = json.loads(row["labels"])
            about = {name: labels[name] for name in metric.labels}
            yield Sample(metric.name, row["value"], about)
        if row["metric"] == "model_age_days":
            yield Sample("champion_version", float(row["model_version"]), {})


def note_retraining(case: UseCase, key: str) -> None:
    """Keep that a retraining was asked for on a day, so that none is again for a while."""
    history.append(case, key, [Figure(policy.PIPELINE, "retraining", 1)])


def write_report(case: UseCase, key: str, decision: Decision) -> str:
    """Draw the day's report. Returns where it is."""
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
    """The last day for a retraining that a day asks for: the newest whose truth was known on it.

    Days that came later are left out, so that looking at an old day again asks for the same.
    """
    day_before = days_before(key, 1)
    try:
        return snapshot.newest_day(case, day_before).isoformat()
    except MissingData:  # the retraining says what there has to be
        return day_before


def retraining_is_near(case: UseCase, key: str) -> bool:
    """Whether one was asked for on another day within the cooldown, be it a later one.

    The policy looks back only; days that are looked at again, out of order, must not ask anew.
    """
    cooldown = case.settings.retraining_cooldown_days
    around = history.read(case, days_before(key, 1 - cooldown), 2 * cooldown - 1, [])
    asked = history.select(around, "retraining")["time"]
    return any(str(day) != key for day in asked)
