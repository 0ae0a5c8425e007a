"""Is the loop worth it? Replays months of real days with the project's own functions.

    python -m benchmarks.replay [--start D] [--end D] [--label NAME] [--seed N] [--usecase FOLDER]

The first champion is trained on all days before. Then each day is validated, scored and monitored
as in the DAGs, without Airflow: the policy decides, the gate promotes, and a day's truth lands with
the next day. For comparison, the first champion continues unchanged (`never`), and the same kind of
model is retrained every week on all known days, without a gate (`weekly`). At the end, data faults
are put into single days.

The thresholds of policy and gate were chosen on the days up to `TUNED_TO`; later days are reported
separately. The last line is JSON. Tables and a plot stay in `data/replay/<label>/`.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.common import CHOSEN, Clock, child, usecase
from local.environment import data_folder, forget_settings

if TYPE_CHECKING:
    import polars as pl

    from include.messages import Decision
    from include.usecase import UseCase

TUNED_TO = date(2013, 6, 30)
ARMS = ["never", "weekly", "policy"]

DAYS = 306
"""Days that are replayed: of 2013, those from March on."""

FAULTY_DAYS = 3


def main() -> int:
    """Replay, and print the results."""
    options = _options()
    if options.usecase:
        os.environ[CHOSEN] = os.environ["ML_USECASES"] = options.usecase
    if options.step:
        print(json.dumps(weekly(**json.loads(options.arguments))), flush=True)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="replay-"))
    target = data_folder() / "replay" / options.label
    target.mkdir(parents=True, exist_ok=True)
    forget_settings()
    os.environ |= {
        "ML_DATA_DIR": str(folder), "ML_SEED": str(options.seed), "MLFLOW_LOGGING_LEVEL": "WARNING",
        "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip
    case, console, clock = usecase(), Console(highlight=False), Clock()
    try:
        with ThreadPoolExecutor(1) as other:
            first, last = _window(case, options.start, options.end)
            path = str(folder / "weekly.parquet")
            coming = other.submit(child, weekly, {}, start=str(first), end=str(last), path=path)
            replayed = _Replay(case, first, last)
            replayed.run(console)
            coming.result()
        scores = replayed.scores(folder / "weekly.parquet")
        summary = _tell(case, console, scores, replayed, target)
        (target / "summary.json").write_text(json.dumps(summary, indent=1))
        summary |= _inject(case, console, replayed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summary |= {
        "label": options.label,
        "seed": options.seed,
        "seconds": round(clock.read()["seconds"]),
    }
    (target / "summary.json").write_text(json.dumps(summary, indent=1))
    console.print(f"{summary['seconds']} s; tables and picture: {target}")
    print(json.dumps(summary))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=main.__doc__)
    parser.add_argument("--start", help="first day to score; default: after the first window")
    parser.add_argument("--end", help=f"last day; default: {DAYS} days later")
    parser.add_argument("--label", default="replay", help="name of this replay and of its folder")
    parser.add_argument("--seed", type=int, default=7, help="for all randomness")
    parser.add_argument("--usecase", help="folder of another use case than the flights' delays")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", help=argparse.SUPPRESS)
    return parser.parse_args()


def _window(case: "UseCase", start: str | None, end: str | None) -> tuple[date, date]:
    after = date.fromisoformat(case.first_window[1]) + timedelta(days=1)
    first = date.fromisoformat(start) if start else after
    return first, date.fromisoformat(end) if end else first + timedelta(days=DAYS - 1)


def kind_of(case: "UseCase") -> str:
    """The candidate for all three: one kind of model, so that only the times of training differ."""
    return next(iter(case.models.CANDIDATES))


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


class _Replay:
    """The project's own loop, day by day, in its own lake and registry."""

    def __init__(self, case: "UseCase", start: date, end: date) -> None:
        from include.registry import registry

        self.case, self.lake = case, case.lake
        self.start, self.end = start, end
        self.train_start = case.training_start
        self.decisions: list[Decision] = []
        self.trainings: list[date] = []
        self.promotions: list[date] = []
        self.refused_by: dict[date, str] = {}
        self.refused_days: list[str] = []
        self.never: list[pl.DataFrame] = []
        registry.create_store(self.case)

    def run(self, console: Console) -> None:
        """From the first champion to the last day."""
        from include.registry import registry

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as bar, _quiet():
            history = _days(self.train_start, self.start - timedelta(days=1))
            task = bar.add_task("History", total=len(history))
            for day in history:
                self._validate(day)
                self._land_truth(day)
                bar.advance(task)
            before = self.start - timedelta(days=1)
            if not self._train(before, before, "the first champion"):
                raise SystemExit("The gate refused the first champion: there is nothing to replay")
            self.trainings, self.promotions = [], []
            frozen = registry.load(self.case, registry.champion(self.case))
            days = _days(self.start, self.end)
            task = bar.add_task("Replay", total=len(days))
            for day in days:
                self._day(day, frozen)
                told = f"{len(self.trainings)} trainings, {len(self.promotions)} promotions"
                bar.update(task, advance=1, description=f"Replay {day}: {told}")

    def _validate(self, day: date) -> bool:
        from include.errors import PipelineError
        from local.in_process import validate_day

        try:
            validate_day(self.case, "validated", day.isoformat())
        except PipelineError as error:
            self.refused_days.append(f"{day}: {_breach(error)}")
            return False
        return True

    def _land_truth(self, day: date) -> None:
        from local.in_process import validate_day

        validate_day(self.case, "actuals", day.isoformat())

    def _day(self, day: date, frozen: Any) -> None:
        """The morning after a day: its inputs land, and the truth of the day before it."""
        from include.expected import is_expected
        from include.monitoring import daily, stages
        from include.registry import registry
        from local.in_process import batch_inference

        key, morning = day.isoformat(), datetime.combine(day + timedelta(days=1), time(8), UTC)
        self._land_truth(day - timedelta(days=1))
        due, valid = is_expected(self.case, "validated", key), self._validate(day)
        if due:
            self._record("data_validation", key, morning, {stages.VALIDATE: valid})
        if due and valid:
            batch_inference(self.case, key, registry.champion(self.case))
            passed = dict.fromkeys((stages.PREPROCESS, stages.INFER, stages.POSTPROCESS), True)
            self._record("batch_inference", key, morning, passed)
            self.never.append(self._score(key, frozen))
        daily.observe(self.case, key, morning)
        decision = daily.decide(self.case, key)
        self.decisions.append(decision)
        if decision.retrain_for:
            self._train(day, day - timedelta(days=1), decision.retrain_for)
            daily.note_retraining(self.case, key)

    def was_scored(self, day: date) -> bool:
        """Whether a day has predictions."""
        return self.lake.manifest("predictions", day.isoformat()) is not None

    def _record(self, dag: str, key: str, now: datetime, passed: dict[str, bool]) -> None:
        from include.monitoring import stages

        states = {stage: "success" if well else "failed" for stage, well in passed.items()}
        tasks = {stage: [stage] for stage in passed}
        output = "validated" if dag == "data_validation" else "predictions"
        stages.record(self.case, dag, key, key, states, tasks, output, now)

    def _score(self, key: str, pipeline: Any) -> "pl.DataFrame":
        import numpy as np
        import polars as pl

        rows = self.lake.current("features", key).read("features")
        scores = self.case.target.predict(pipeline, rows).astype(np.float32)
        return rows.select(self.case.key).with_columns(never=pl.Series(scores))

    def _train(self, day: date, end: date, reason: str) -> bool:
        """Train a challenger. Returns whether it was promoted."""
        from local.in_process import model_retraining

        self.trainings.append(day)
        run = f"replay {day}"
        last = end.isoformat()
        kind = kind_of(self.case)
        verdict = model_retraining(self.case, None, last, reason, run, [kind])
        if verdict.challenger is None:
            refused = [rule for rule in verdict.rules[kind] if not rule.passed]
            self.refused_by[day] = "; ".join(f"{one.name}: {one.found}" for one in refused)
            return False
        self.promotions.append(day)
        return True

    def scores(self, weekly_path: Path) -> "pl.DataFrame":
        """Rows whose truth is known: `day`, `label`, and each arm's score.

        The truth of the last day lands with a day that is not replayed.
        """
        import polars as pl

        from include.monitoring import outcomes

        key = self.end.isoformat()
        self._land_truth(self.end)
        outcomes.update(self.case, key)
        rows = outcomes.read(self.case, key, (self.end - self.start).days + 1)
        others = [pl.concat(self.never), pl.read_parquet(weekly_path)]
        for frame in others:
            rows = rows.join(frame, on=self.case.key, how="inner", validate="1:1")
        return rows.select("day", "label", "never", "weekly", policy="score")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that the pipelines' functions log."""
    import logging

    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def weekly(start: str, end: str, path: str) -> dict[str, Any]:
    """The scores of a model that is retrained every week on all known days, without a gate.

    On a day, the truth of all days before it is known.
    """
    import numpy as np
    import polars as pl

    from benchmarks.common import real_days
    from include.preprocess import is_usable

    case = usecase()
    first, last = date.fromisoformat(start), date.fromisoformat(end)
    rows = real_days(case, case.training_start, last).filter(is_usable(case))
    found = []
    for number, day in enumerate(_days(first, last)):
        if number % 7 == 0:
            known = rows.filter(pl.col("day") < day, pl.col("label").is_not_null())
            model = case.models.CANDIDATES[kind_of(case)](case.settings.seed)
            model.fit(known, case.target.encode(known["label"].to_numpy()))
        today = rows.filter(pl.col("day") == day)
        scores = case.target.predict(model, today).astype(np.float32)
        found.append(today.select(case.key).with_columns(weekly=pl.Series(scores)))
    pl.concat(found).write_parquet(path)
    return {}


# --- what it came to ------------------------------------------------------------------------------


def _tell(
    case: "UseCase", console: Console, scores: "pl.DataFrame", replayed: _Replay, target: Path
) -> dict[str, Any]:
    import polars as pl

    from include.monitoring import daily

    loss, headline = (case.target.measures[one] for one in (case.target.loss, case.target.headline))
    title = f"{loss.title} ({loss.unit}) and {headline.title}"
    table = Table("", *ARMS, *(f"{headline.title} {arm}" for arm in ARMS), title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    months: dict[str, dict[str, float | None]] = {}
    for month in scores["day"].dt.strftime("%Y-%m").unique().sort():
        rows = scores.filter(pl.col("day").dt.strftime("%Y-%m") == month)
        found = case.target.figures(rows["label"].to_numpy(), rows["policy"].to_numpy())
        shown = {name: found[name] for name in case.target.measures}
        months[month] = {name: value and round(value, 4) for name, value in shown.items()}
        _row(case, table, month, rows)
    table.add_section()
    summary: dict[str, Any] = {"months": months}
    periods = {
        "": pl.lit(True),
        "tuned": pl.col("day") <= TUNED_TO,
        "unseen": pl.col("day") > TUNED_TO,
    }
    names = {"": "all", "tuned": f"to {TUNED_TO}", "unseen": f"after {TUNED_TO}"}
    for period, chosen in periods.items():
        rows = scores.filter(chosen)
        if rows.is_empty():
            continue
        losses = _row(case, table, names[period], rows)
        closed = (losses["never"] - losses["policy"]) / (losses["never"] - losses["weekly"])
        prefix = f"{period}_" if period else ""
        summary |= {f"{prefix}{arm}": round(loss, 4) for arm, loss in losses.items()}
        summary[f"{prefix}gap_closed"] = round(closed, 3)
    console.print(table)
    summary["estimate"] = _estimates(case, console, scores, replayed)
    pages = [one for one in replayed.decisions if one.action == "page"]
    summary |= {
        "trainings": len(replayed.trainings),
        "promotions": len(replayed.promotions),
        "pages": len(pages),
    }
    for name in ("gap_closed", "tuned_gap_closed", "unseen_gap_closed"):
        if name in summary:
            console.print(f"{name.replace('_', ' ')}: {summary[name]:.1%} of never to weekly")
    told = Table("Day", "Decision", "Why", "The gate", title="Trainings and pages")
    for one in replayed.decisions:
        if one.action in ("retrain", "page"):
            day = date.fromisoformat(one.key)
            ended = "promoted" if day in replayed.promotions else replayed.refused_by.get(day, "")
            told.add_row(one.key, one.action, one.why, ended)
    console.print(told)
    for line in replayed.refused_days:
        console.print(f"Refused by validation: {line}")
    _picture(case, scores, replayed, target / "replay.png")
    report = daily.write_report(case, replayed.decisions[-1].key, replayed.decisions[-1])
    shutil.copy(report, target / "report.html")
    return summary


def _estimates(
    case: "UseCase", console: Console, scores: "pl.DataFrame", replayed: _Replay
) -> dict[str, Any]:
    """How far the loss that predictions promised was from the one that came true.

    Returns:
        The relative error of each month, and the mean absolute error of a day relative to the mean
        loss: of the promise, of the loss of the day before, and of the same promise every day.
    """
    import numpy as np
    import polars as pl

    from include.monitoring import history

    labels, given = scores["label"].to_numpy(), scores["policy"].to_numpy()
    losses = scores.select("day", true=pl.Series(case.target.losses(labels, given)))
    days = losses.group_by("day").agg(pl.col("true").mean(), rows=pl.len()).sort("day")
    known = history.read(case, replayed.end.isoformat(), (replayed.end - replayed.start).days + 1)
    promised = history.select(known.filter(pl.col("pipeline") == "estimate"), "loss")
    mean = float(np.mean(days["true"].to_numpy()))
    days = days.join(promised.select(day="time", promised="value"), on="day", how="left")
    weighted = [
        ((pl.col(name) * pl.col("rows")).sum() / pl.col("rows").sum()).alias(name)
        for name in ("true", "promised")
    ]
    month = pl.col("day").dt.strftime("%Y-%m")
    months = days.drop_nulls().group_by(month.alias("month")).agg(weighted).sort("month")
    unit = case.target.measures[case.target.loss].unit
    table = Table(
        "", "promised", "true", "off by", title=f"Loss before the truth is known ({unit})"
    )
    off = {}
    for name, true, guess in months.iter_rows():
        off[name] = round(guess / true - 1, 3)
        table.add_row(name, f"{guess:.4f}", f"{true:.4f}", f"{off[name]:+.1%}")
    console.print(table)
    errors = days.select(
        promised=(pl.col("promised") - pl.col("true")).abs().mean() / mean,
        day_before=pl.col("true").diff().abs().mean() / mean,
        constant=(pl.col("promised").mean() - pl.col("true")).abs().mean() / mean,
    ).row(0, named=True)
    shares = {name: round(value, 3) for name, value in errors.items() if value is not None}
    console.print(f"A day's loss is off by, as a share of the mean loss: {shares}")
    return {"months": off, **shares}


def _row(case: "UseCase", table: Table, name: str, rows: "pl.DataFrame") -> dict[str, float]:
    labels = rows["label"].to_numpy()
    found = {arm: case.target.figures(labels, rows[arm].to_numpy()) for arm in ARMS}
    losses = {arm: figures[case.target.loss] for arm, figures in found.items()}
    headlines = [figures[case.target.headline] for figures in found.values()]
    shown = ["–" if value is None else f"{value:.3f}" for value in headlines]
    table.add_row(name, *(f"{loss:.4f}" for loss in losses.values()), *shown)
    return losses


def _picture(case: "UseCase", scores: "pl.DataFrame", replayed: _Replay, path: Path) -> None:
    """Loss of the three over two weeks, with the promotions."""
    import polars as pl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import date2num
    from matplotlib.figure import Figure

    from include.plotting import CHALLENGER, CHAMPION, MUTED

    labels, loss = scores["label"].to_numpy(), case.target.measures[case.target.loss]
    losses = scores.select(
        "day",
        *(pl.Series(arm, case.target.losses(labels, scores[arm].to_numpy())) for arm in ARMS),
    )
    daily = losses.group_by("day").agg(pl.col(ARMS).sum(), n=pl.len()).sort("day")
    rolled = daily.select(
        "day", *(pl.col(arm).rolling_sum(14) / pl.col("n").rolling_sum(14) for arm in ARMS)
    )
    figure = Figure(figsize=(11, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for arm, colour in zip(ARMS, (MUTED, CHAMPION, CHALLENGER), strict=True):
        axes.plot(rolled["day"], rolled[arm], color=colour, label=arm, linewidth=2)
    for number, day in enumerate(replayed.trainings):
        promoted = day in replayed.promotions
        label = {True: "promoted", False: "refused"}[promoted] if number < 2 else None
        axes.axvline(
            date2num(day),
            color=CHALLENGER,
            linewidth=1,
            linestyle="-" if promoted else ":",
            label=label,
        )
    if replayed.start <= TUNED_TO <= replayed.end:
        axes.axvline(date2num(TUNED_TO), color=MUTED, linestyle="--", linewidth=1)
        axes.annotate(
            "thresholds chosen before",
            (TUNED_TO, axes.get_ylim()[1]),
            ha="right",
            va="top",
            color=MUTED,
        )
    axes.set(
        ylabel=f"{loss.title} of 14 days, {loss.unit}".capitalize(),
        title="Never retrained, weekly, and by the policy",
    )
    axes.legend(frameon=False, ncols=5)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


# --- faults of the data ---------------------------------------------------------------------------


def _inject(case: "UseCase", console: Console, replayed: _Replay) -> dict[str, Any]:
    """Put each fault of the use case's `faults.py` into single days, and see what catches it."""
    if find_spec(f"{case.package}.faults") is None:
        return {}
    faults = import_module(f"{case.package}.faults").FAULTS
    days = [day for day in _days(replayed.start, replayed.end) if replayed.was_scored(day)]
    # Newest first, because changing a day changes the baseline of later days.
    chosen = sorted({days[len(days) * n // (FAULTY_DAYS + 1)] for n in range(1, FAULTY_DAYS + 1)})
    chosen.reverse()
    table = Table("Fault", *(str(day) for day in chosen), title="Caught on the day, and by what")
    missed = 0
    with _quiet():
        for name, fault in faults.items():
            found = [_caught_by(case, day, fault) for day in chosen]
            missed += sum(text is None for text in found)
            table.add_row(name, *(text or "[red]missed[/]" for text in found))
    console.print(table)
    pages = Counter(one.key[:7] for one in replayed.decisions if one.action == "page")
    most = max(pages.values(), default=0)
    console.print(f"Pages on clean days: {pages.total()}, at most {most} in a month")
    return {
        "faults": len(faults) * len(chosen),
        "missed": missed,
        "most_pages_a_month": most,
    }


def _caught_by(case: "UseCase", day: date, fault: Any) -> str | None:
    """What stops a faulty day, or pages a person about it."""
    import polars as pl

    from include.errors import PipelineError
    from include.lake.files import atomic_file
    from include.messages import DATA_RULES, ModelVersion
    from include.monitoring import history, measure, policy
    from local.in_process import batch_inference, validate_day

    key, main_input = day.isoformat(), case.inputs[0].name
    rows = case.source.fetch(main_input, day)
    assert rows is not None
    before = case.lake.current("predictions", key).manifest().metadata["model"]
    with atomic_file(case.lake.landing_path(main_input, key)) as path:
        fault(rows).write_parquet(path)
    try:
        validate_day(case, "validated", key)
    except PipelineError as error:
        return f"validation: {_breach(error)}"
    try:
        batch_inference(case, key, ModelVersion(**before))
    except PipelineError as error:
        return f"output check: {_breach(error)}"
    known = history.read(case, key, policy.DAYS).filter(pl.col("time") < day)
    found = history.to_frame(key, measure.figures(case, key))
    decision = policy.decide(case, pl.concat([known, found]), key)
    faults = [
        reason.found
        for reason in decision.reasons
        if reason.action == "page" and reason.rule in DATA_RULES
    ]
    return f"policy: {'; '.join(faults)}" if faults else None


def _breach(error: Exception) -> str:
    """The first breach that a message names, without its file."""
    return str(error).split("\n  - ", 1)[-1].splitlines()[0].partition(", in ")[0]


if __name__ == "__main__":
    sys.exit(main())
