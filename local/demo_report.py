"""The demo's tables, read from the lake, and the check that they are as expected."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from include.inference import scoring
from include.inference.ensemble import TABLE as ENSEMBLE
from include.messages import ModelVersion, RowCheck
from include.preprocess import labels_of
from include.registry import registry
from include.targets import Measure, columns
from include.usecase import UseCase
from local.client import Json


@dataclass(frozen=True)
class Days:
    """The days of the demo.

    Attributes:
        week: the week after the first champion's window.
    """

    week: list[date]

    @property
    def decay(self) -> date:
        """The day on which the monitor runs, eight weeks later."""
        return self.week[-1] + timedelta(days=56)

    @property
    def watched(self) -> list[date]:
        """Days whose outcomes the monitor knows by then, and the day itself."""
        return [self.decay - timedelta(days=back) for back in reversed(range(15))]

    @property
    def next(self) -> list[date]:
        """Days that the new champion scores."""
        return [self.decay + timedelta(days=n) for n in (1, 2)]

    @property
    def bad_rows(self) -> date:
        """The day with bad rows, on purpose."""
        return self.week[2]

    @property
    def broken(self) -> date:
        """The day with a broken file, on purpose."""
        return self.week[4]

    @property
    def complete(self) -> date:
        """The day that the ensemble scores with all its members."""
        return self.week[0]

    @property
    def degraded(self) -> date:
        """The day that it scores with the model server stopped."""
        return self.week[1]


def days_of(case: UseCase) -> Days:
    """The days of a use case's demo."""
    last = date.fromisoformat(case.first_window[1])
    return Days([last + timedelta(days=n) for n in range(1, 8)])


def bad_rows(rows: int) -> int:
    """Number of rows to spoil: few enough for the day to be published without them."""
    return min(20, rows // 40)


@dataclass(frozen=True)
class Day:
    """A row of the table: the result of one day; None if there is nothing to count."""

    key: str
    rows: int | None
    quarantined: int | None
    scored: int | None
    state: str
    headline: float | None
    skill: float | None


def describe(case: UseCase, day: date, runs: dict[str, Json]) -> Day:
    """The result of a day, read from the lake."""
    key = day.isoformat()
    if runs["data_validation"]["state"] == "failed":
        return Day(key, None, None, None, "refused", None, None)
    manifest = case.lake.manifest("validated", key)
    assert manifest is not None
    check = RowCheck(**manifest.metadata["report"]["inputs"][0])
    if runs["batch_inference"]["state"] == "failed":
        return Day(key, check.rows, check.quarantined, None, "not scored", None, None)
    predictions = case.lake.current("predictions", key).read("predictions")
    judged = worth(case, key, predictions)
    return Day(
        key, check.rows, check.quarantined, len(predictions), "scored",
        judged.get(case.target.headline), judged.get("skill"),
    )  # fmt: skip


def worth(case: UseCase, key: str, predictions: pl.DataFrame) -> dict[str, float | None]:
    """The figures of a day's predictions, and their skill; empty if the truth is missing."""
    if case.lake.manifest("actuals", key) is None:
        return {}
    target, truth = case.target, labels_of(case, case.lake.current("actuals", key))
    judged = predictions.join(truth, on=case.key)
    labels = judged["label"].to_numpy()
    if target.lacking(target.describe(labels)):
        return {}
    base = target.baseline([target.describe(labels)])
    constant = np.broadcast_to(base, (len(labels), *base.shape))
    found = target.figures(labels, columns.read(target, judged))
    loss = found[target.loss]
    return {**found, "skill": 1 - loss / float(target.losses(labels, constant).mean())}


def faults(case: UseCase, days: list[Day]) -> list[str]:
    """Differences between the table and what is expected."""
    found, about = [], days_of(case)
    for day in days:
        refused, bad = day.key == str(about.broken), day.key == str(about.bad_rows)
        if day.state != ("refused" if refused else "scored"):
            found.append(f"{day.key} is {day.state}")
        if refused or day.state != "scored":
            continue
        assert day.rows is not None
        if day.quarantined != (bad_rows(day.rows) if bad else 0):
            found.append(f"{day.key} has {day.quarantined} rows in quarantine")
        elif day.rows != day.quarantined + (day.scored or 0):
            found.append(f"{day.key}: {day.rows} rows came in, {day.scored} were scored")
    known = [day.skill for day in days if day.skill is not None]
    if known and sum(known) / len(known) <= 0:
        found.append("the week's predictions are no better than the baseline")
    return found


def show(case: UseCase, days: list[Day], console: Console) -> None:
    """Print the table."""
    table = Table("Day", title="The week")
    for heading in ("Rows", "Quarantined", "Scored"):
        table.add_column(heading, justify="right")
    table.add_column("State")
    measure = case.target.measures[case.target.headline]
    table.add_column(measure.title, justify="right")
    colors = {"scored": "green", "refused": "red", "not scored": "yellow"}
    for day in days:
        counts = [_text(number) for number in (day.rows, day.quarantined, day.scored)]
        state = f"[{colors[day.state]}]{day.state}[/]"
        table.add_row(day.key, *counts, state, _of(measure, day.headline))
    console.print(table)


def ensemble_faults(case: UseCase) -> list[str]:
    """Differences between the ensemble's days and what is expected.

    A candidate that the gate refused is not a member, and there may be too few without it.
    """
    remote = {member.name for member in case.members if member.kind == "remote"}
    found, about = [], days_of(case)
    for day, down in ((about.complete, set()), (about.degraded, remote)):
        scored = case.lake.current("predictions", day.isoformat()).manifest().metadata
        trained = registry.members(case, ModelVersion(**scored["model"]))
        absent = down | {one.name for one in case.members} - remote - trained.keys()
        there = [one for one in case.members if one.name not in absent and one.weight > 0]
        by = "ensemble" if len(there) >= case.settings.ensemble_quorum else "champion"
        facts = case.lake.current(ENSEMBLE, day.isoformat()).manifest().metadata
        if facts["fallback"] != by or set(facts["absent"]) != absent:
            found.append(f"the ensemble of {day}: {facts['fallback']}, down: {facts['absent']}")
    return found


def show_ensemble(case: UseCase, console: Console) -> None:
    """Print what scored the ensemble's days."""
    table = Table("Mean score of", title="The ensemble")
    measure = case.target.measures[case.target.headline]
    shown, about = [], days_of(case)
    for day in (about.complete, about.degraded):
        key = day.isoformat()
        table.add_column(key, justify="right")
        version = case.lake.current(ENSEMBLE, key)
        answers = version.manifest().metadata["answers"]
        predictions = version.read("predictions")
        means = [
            _text(answers[member.name]["mean"]) if member.name in answers else "[red]down[/]"
            for member in case.members
        ]
        average = scoring.mean_of(case, columns.read(case.target, predictions))
        judged = worth(case, key, predictions).get(case.target.headline)
        shown.append([*means, _text(average), _of(measure, judged)])
    last = f"{measure.title} of the average"
    names = [*(member.name for member in case.members), "their average", last]
    for row in zip(names, *shown, strict=True):
        table.add_row(*row)
    console.print(table)


def loop_faults(case: UseCase) -> list[str]:
    """Differences between the days after the retraining and what is expected."""
    champion = registry.champion(case).version
    found = []
    for key in [day.isoformat() for day in days_of(case).next]:
        version = case.lake.current("predictions", key).manifest().metadata["model"]["version"]
        if version != champion:
            found.append(f"{key} is scored by version {version}, the champion is {champion}")
    return found


def show_decision(decision: Json, console: Console) -> None:
    """Print each rule of the monitor: its finding and what it asks for."""
    table = Table("Rule", "Asks for", "Found", title=f"The monitor, on {decision['key']}")
    colors = {"healthy": "green", "watch": "yellow", "retrain": "blue", "page": "red"}
    for reason in decision["reasons"]:
        asked = f"[{colors[reason['action']]}]{reason['action']}[/]"
        table.add_row(reason["rule"], asked, reason["found"])
    console.print(table)


def show_verdict(case: UseCase, verdict: Json, console: Console) -> None:
    """Print each rule of the gate: its finding for each candidate, and the bound."""
    taken = case.lake.version(verdict["snapshot"]).manifest().metadata
    last = date.fromisoformat(taken["end"])
    first = last - timedelta(days=taken["holdout_days"] - 1)
    table = Table("Rule", title=f"The gate, on {first} to {last}")
    for candidate in verdict["rules"]:
        table.add_column(candidate.replace("_", " "))
    table.add_column("Bound")
    for same_rule in zip(*verdict["rules"].values(), strict=True):
        found = [f"{_mark(rule['passed'])} {rule['found']}" for rule in same_rule]
        table.add_row(same_rule[0]["name"], *found, same_rule[0]["bound"])
    console.print(table)


def _mark(passed: bool) -> str:
    return "[green]✓[/]" if passed else "[red]✗[/]"


def _of(measure: Measure, value: float | None) -> str:
    return "–" if value is None else measure.text(value)


def _text(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:,}" if isinstance(number, int) else f"{number:.3f}"
