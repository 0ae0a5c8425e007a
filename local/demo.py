"""The demo: a week of real data through a real Airflow.

    python -m local.demo [--port N] [--usecase NAME]

History is seeded, a champion is trained, and a week is validated and scored. One day's file is
broken and one day has bad rows, on purpose. The ensemble scores one day with all its members and
one with the model server stopped. Eight weeks later the monitor notices that the model has decayed
and starts a retraining; the challenger is judged and promoted, and the champion scores the next
days. The exit code is 0 only if everything is as expected. Airflow is left running.

The demo can be run again on the same data. It then begins with the first champion of the earlier
run. It refuses to start if it would replace another champion, or wait for another training.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import polars as pl
from rich.console import Console

from include import usecases
from include.errors import PipelineError
from include.lake import files
from include.messages import ModelVersion
from include.registry import promotion, registry
from include.settings import settings
from include.usecase import UseCase, UsecaseInvalid
from include.validation.land import fetch_whole
from local import demo_report, embedded
from local.choose import add_option, chosen
from local.client import Airflow, EmbeddedError, Json, poll
from local.demo_report import Day, bad_rows, days_of, describe
from local.environment import apart, forget_settings, variables
from local.in_process import batch_inference
from local.seed import seed

SETTINGS = {
    "ML_CHUNK_ROWS": "250",  # small, so that a day of a thousand rows is scored in several tasks
    # Airflow lets a daily DAG that is switched on run at once, for the day before today: it has
    # nothing to do with the days of the demo, whose own run says that it acts.
    "ML_MONITORING_ACTS": "false",
}

WAIT_SECONDS = 600

FIRST_TRAINING = "demo__first_champion"
"""The run that trains the demo's first champion."""

OWN_FOLDER = "To keep it, run the demo in another folder: ML_DATA_DIR=/tmp/demo make demo"


def settings_for(case: UseCase, data: Path) -> dict[str, str]:
    """Variables of the demo's Airflow, which override the use case's own settings."""
    names = {name.removeprefix("ML_").lower(): value for name, value in SETTINGS.items()}
    return variables(case, names) | apart(case, data)


def second_training(case: UseCase) -> str:
    """Id of the training run that the monitor requests."""
    return f"monitoring__{days_of(case).decay}"


class Progress:
    """Lines with the seconds since the start."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.started = time.monotonic()

    def __call__(self, line: str) -> None:
        """Print a line."""
        seconds = f"[dim]{time.monotonic() - self.started:4.0f} s[/dim]"
        self.console.print(f"{seconds}  {line}", soft_wrap=True)


def run(case: UseCase, data: Path, port: int, say: Progress) -> tuple[Airflow, list[Day]]:
    """The first half: start, seed, train, run the week. Returns Airflow and the table's rows."""
    week = days_of(case).week
    with ThreadPoolExecutor(1) as other:
        extra = settings_for(case, data)
        starting = other.submit(embedded.start, data, port, extra=extra, say=say)
        registry.create_store(case)
        seed(case, *case.first_window, say)
        airflow = starting.result()
    say(f"Airflow is up: {airflow.url}")
    check_trainings(case, airflow)
    embedded.start_model_server(data)  # an earlier demo may have been killed while it was stopped
    drop_faulty_files(case, say)
    began = datetime.now(UTC)
    for pipeline in ("data_validation", "batch_inference", "model_retraining", "model_rollback"):
        airflow.unpause(case.dag_id(pipeline))
    crown_first_champion(case, airflow, say)
    validation = case.dag_id("data_validation")
    for day in week:
        airflow.trigger(validation, partition_key=day.isoformat())
    say(f"A week is on its way: {week[0]} to {week[-1]}")
    days = [describe(case, day, runs) for day, runs in follow(case, airflow, began, say)]
    return airflow, days


def check_start(case: UseCase, data: Path, port: int | None, say: Progress) -> int:
    """Check that the demo does no harm. Returns the port of the UI.

    Raises:
        EmbeddedError: the port is taken; Airflow runs with other settings, perhaps on a real lake,
            or with older code; or the champion is not the demo's.
    """
    port = embedded.choose_port(data, port, say)
    if embedded.running(data) is not None:
        wanted = {"ML_DATA_DIR": str(data), **settings_for(case, data)}
        if enabled := os.environ.get("ML_USECASES"):
            wanted["ML_USECASES"] = enabled
        told = embedded.settings_of_running(data)
        if different := sorted({name for name, _ in told.items() ^ wanted.items()}):
            raise EmbeddedError(
                "The Airflow that runs here was started with other settings than the demo's "
                f"({', '.join(different)}). End it with `make stop`, then run the demo again."
            )
        if embedded.is_outdated(data):
            raise EmbeddedError(
                "The code has changed since Airflow was started here, and Airflow may have some of "
                "the old code in memory. End it with `make stop`, then run the demo again."
            )
    champion = registry.find_champion(case) if _store().exists() else None
    if champion is not None and champion not in _own_versions(case):
        raise EmbeddedError(
            f"Version {champion.version} of {champion.name!r}, which was not made by a demo, is "
            f"champion in {data}. The demo would replace it. {OWN_FOLDER}"
        )
    return port


def check_trainings(case: UseCase, airflow: Airflow) -> None:
    """Check that the demo's trainings need not wait for another one.

    Raises:
        EmbeddedError: names the run that they would wait for.
    """
    for dag_id in (case.dag_id("model_retraining"), case.dag_id("model_rollback")):
        for state in ("running", "queued"):
            for found in airflow.runs(dag_id, state=state):
                raise EmbeddedError(
                    f"The demo has not begun: {found['dag_run_id']} of {dag_id} is {state}, and "
                    "the demo's own training would wait for it. Run the demo again when it has "
                    f"ended: {airflow.url}/dags/{dag_id}/runs/{found['dag_run_id']}"
                )


def crown_first_champion(case: UseCase, airflow: Airflow, say: Progress) -> None:
    """Train the first champion, or make that of an earlier demo champion again.

    If there was a champion, there is one at every moment.
    """
    champion, trained = registry.find_champion(case), registry.versions_of(case, FIRST_TRAINING)
    if trained:
        promotion.promote(case, trained[0], champion, "the demo begins again")
        say(f"Version {trained[0].version}, an earlier demo's first champion, is champion again")
        return
    retraining = case.dag_id("model_retraining")
    say(f"Training the first champion: a run of {retraining}")
    airflow.forget(retraining, FIRST_TRAINING)  # from a demo that ended early
    start, end = case.first_window
    window = {"start": start, "end": end, "reason": "the demo's first champion"}
    conf = {**window, "require_approval": False}
    run_id = airflow.trigger(retraining, conf, run_id=FIRST_TRAINING)
    verdict = finish_training(case, airflow, run_id, say)
    if verdict["challenger"] is None:
        demo_report.show_verdict(case, verdict, say.console)
        raise EmbeddedError(
            f"No candidate is better than the {case.target.baseline_name}, so there is no champion "
            "and nothing to show. The table shows which rules refused them."
        )


def _store() -> Path:
    """The file of MLflow's registry in the demo's data folder."""
    return Path(settings().registry.removeprefix("sqlite:///"))


def _own_versions(case: UseCase) -> list[ModelVersion]:
    runs = (FIRST_TRAINING, second_training(case))
    return [version for run in runs for version in registry.versions_of(case, run)]


@contextmanager
def champion_kept(case: UseCase) -> Iterator[None]:
    """Restore the previous champion if the demo ends early with its first champion."""
    before = registry.find_champion(case) if _store().exists() else None
    try:
        yield
    except BaseException:
        if before is None:
            raise
        now = registry.find_champion(case)
        if now and now != before and now in registry.versions_of(case, FIRST_TRAINING):
            promotion.promote(case, before, now, "the demo ended early")
        raise


def drop_faulty_files(case: UseCase, say: Progress) -> None:
    """Land faulty files on purpose: one cut off in the middle, and one with bad rows."""
    main, days = case.inputs[0].name, days_of(case)
    whole = fetch_whole(case, main, days.broken)
    faulty = fetch_whole(case, main, days.bad_rows)
    assert whole is not None
    assert faulty is not None
    with files.atomic_file(case.lake.landing_path(main, str(days.broken))) as path:
        whole.write_parquet(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    bad, number = bad_rows(len(faulty)), pl.int_range(pl.len())
    half = bad // 2
    required = [
        name for name, column in case.inputs[0].schema.columns.items() if not column.nullable
    ]
    one, another = sorted(required, key=case.key.__contains__)[:2]
    faulty = faulty.with_columns(
        pl.when(number >= half).then(one).alias(one),
        pl.when(~number.is_between(half, bad - 1)).then(another).alias(another),
    )
    with files.atomic_file(case.lake.landing_path(main, str(days.bad_rows))) as path:
        faulty.write_parquet(path)
    say(f"Dropped on purpose: half a file for {days.broken}, {bad} bad rows for {days.bad_rows}")


def finish_training(case: UseCase, airflow: Airflow, run_id: str, say: Progress) -> Json:
    """Wait for a requested training, and print its result. Returns the verdict."""
    retraining = case.dag_id("model_retraining")
    if airflow.wait(retraining, run_id, WAIT_SECONDS) != "success":
        page = f"{airflow.url}/dags/{retraining}/runs/{run_id}"
        why = airflow.why_failed(retraining, run_id)
        raise EmbeddedError(f"The training failed. {why}\nThe run: {page}")
    verdict: Json = airflow.xcom(retraining, run_id, "judge")
    if verdict["challenger"] is None:
        say("The gate refused all candidates: no new champion")
    else:
        version = airflow.xcom(retraining, run_id, "promote")
        say(f"Version {version}, {verdict['challenger']['candidate']}, is champion now")
    return verdict


def ensemble(case: UseCase, airflow: Airflow, say: Progress) -> None:
    """Have one day scored by all members, and one while the model server is down."""
    airflow.unpause(case.dag_id("ensemble_inference"))
    _score_by_ensemble(case, airflow, days_of(case).complete, say)
    say("Stopping the model server: the ensemble's remote member")
    embedded.stop_model_server(airflow.data)
    try:
        _score_by_ensemble(case, airflow, days_of(case).degraded, say)
    finally:
        embedded.start_model_server(airflow.data)


def _score_by_ensemble(case: UseCase, airflow: Airflow, day: date, say: Progress) -> None:
    dag_id = case.dag_id("ensemble_inference")
    run_id = airflow.trigger(dag_id, partition_key=day.isoformat())
    state = airflow.wait(dag_id, run_id, WAIT_SECONDS)
    say(f"{day}  ensemble_inference: {state}")
    if state != "success":
        raise EmbeddedError(f"No ensemble: see {airflow.url}/dags/{dag_id}/runs/{run_id}")


def close_the_loop(case: UseCase, airflow: Airflow, say: Progress) -> tuple[Json, Json]:
    """The second half: the monitor, eight weeks later. Returns its decision and the verdict.

    Raises:
        EmbeddedError: it does not request a retraining, or the retraining fails.
    """
    days = days_of(case)
    monitoring, retraining = case.dag_id("model_monitoring"), case.dag_id("model_retraining")
    say(f"Eight weeks pass, to {days.decay}; the champion has scored the last two of them")
    seed(case, _next(days.week[-1]), str(days.watched[-2]), lambda _: None)
    champion = registry.champion(case)
    for day in days.watched[:-1]:
        batch_inference(case, day.isoformat(), champion)
    score_day(case, airflow, days.decay)
    say(f"The monitor checks it: a run of {monitoring}")
    airflow.unpause(monitoring)
    key, asked_for = days.decay.isoformat(), second_training(case)
    airflow.forget(retraining, asked_for)  # requested by an earlier demo
    run_id = airflow.trigger(monitoring, {"act": True}, partition_key=key)
    if airflow.wait(monitoring, run_id, WAIT_SECONDS) != "success":
        raise EmbeddedError(f"The monitor failed: see {airflow.url}/dags/{monitoring}")
    decision: Json = airflow.xcom(monitoring, run_id, "decide")
    say(f"It decides: {decision['action']}")
    demo_report.show_decision(decision, say.console)
    if decision["action"] != "retrain":
        raise EmbeddedError("The monitor did not request a retraining")
    if all(found["dag_run_id"] != asked_for for found in airflow.runs(retraining)):
        raise EmbeddedError(
            "The monitor decided to retrain but started nothing: a retraining was requested "
            f"within {case.settings.retraining_cooldown_days} days of {key}, not by the demo. "
            f"{OWN_FOLDER}"
        )
    say(f"It has started {retraining}")
    verdict = finish_training(case, airflow, asked_for, say)
    for day in days.next:
        score_day(case, airflow, day)
        model = case.lake.current("predictions", day.isoformat()).manifest().metadata["model"]
        say(f"{day} is scored by version {model['version']}")
    return decision, verdict


def score_day(case: UseCase, airflow: Airflow, day: date) -> None:
    """Validate and score a day in Airflow."""
    key, scoring = day.isoformat(), case.dag_id("batch_inference")
    known = len(airflow.runs(scoring, partition_key_pattern=key))  # from an earlier demo
    airflow.trigger(case.dag_id("data_validation"), partition_key=key)
    state = airflow.wait_partition(scoring, key, WAIT_SECONDS, known)["state"]
    if state != "success":
        raise EmbeddedError(f"{key} was not scored: see {airflow.url}/dags/{scoring}")


def _next(day: date) -> str:
    return (day + timedelta(days=1)).isoformat()


def follow(
    case: UseCase, airflow: Airflow, began: datetime, say: Progress
) -> list[tuple[date, dict[str, Json]]]:
    """Wait until every day has ended, telling of each run. Returns the runs by their pipeline."""
    ended: dict[date, dict[str, Json]] = {day: {} for day in days_of(case).week}

    def all_ended() -> bool:
        for pipeline in ("data_validation", "batch_inference"):
            for found in airflow.runs(case.dag_id(pipeline)):
                day = _day_of(found, began)
                if day not in ended or found["state"] not in ("success", "failed"):
                    continue
                if pipeline not in ended[day]:
                    say(f"{day}  {pipeline}: {found['state']}")
                ended[day][pipeline] = found
        return all(_has_ended(runs) for runs in ended.values())

    poll(all_ended, WAIT_SECONDS, every=1)
    return list(ended.items())


def _day_of(found: Json, began: datetime) -> date | None:
    """The day that a run of this demo is for."""
    queued = found["queued_at"] or found["run_after"]
    if datetime.fromisoformat(queued) < began or not found["partition_key"]:
        return None
    return date.fromisoformat(found["partition_key"])


def _has_ended(runs: dict[str, Json]) -> bool:
    if "data_validation" not in runs:
        return False
    return runs["data_validation"]["state"] == "failed" or "batch_inference" in runs


def failed_task(case: UseCase, airflow: Airflow, day: date) -> str:
    """The URL of the task that refused a day."""
    dag_id = case.dag_id("data_validation")
    run_id = airflow.runs(dag_id, partition_key_pattern=day.isoformat())[-1]["dag_run_id"]
    failed = [
        task["task_id"]
        for task in airflow.task_instances(dag_id, run_id)
        if task["state"] == "failed"
    ]
    run_page = f"{airflow.url}/dags/{dag_id}/runs/{quote(run_id)}"
    return f"{run_page}/tasks/{failed[0]}" if failed else run_page


def main(arguments: list[str] | None = None) -> int:
    """Run the demo and check its results."""
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=main.__doc__)
    parser.add_argument("--port", help="port of the UI; default: 8080 or the next free")
    add_option(parser)
    options = parser.parse_args(arguments)
    os.umask(embedded.PRIVATE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say = Progress()
    try:
        settings()
        port = embedded.parse_port(options.port) if options.port else None
        if left_out := forget_settings():
            say(f"The demo has its own settings and ignores {', '.join(left_out)}")
        case = chosen(options.usecase)
        os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"
        logging.getLogger("include").setLevel(logging.WARNING)  # the demo reports progress itself
        data = embedded.data_folder()
        os.environ |= apart(case, data)
        settings.cache_clear()
        port = check_start(case, data, port, say)
        with champion_kept(case):
            airflow, days = run(case, data, port, say)
            demo_report.show(case, days, say.console)
            ensemble(case, airflow, say)
            demo_report.show_ensemble(case, say.console)
            decision, verdict = close_the_loop(case, airflow, say)
        demo_report.show_verdict(case, verdict, say.console)
    except TimeoutError:
        print(f"The week has not ended after {WAIT_SECONDS} s: look at the UI", file=sys.stderr)
        return 2
    except (EmbeddedError, PipelineError, UsecaseInvalid) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. `make stop` ends Airflow, if it runs.", file=sys.stderr)
        return 130
    broken = days_of(case).broken
    say(f"The report of {decision['key']}: {airflow.url}/reports/{case.name}/{decision['key']}")
    say(f"The task that refused {broken}: {failed_task(case, airflow, broken)}")
    say(f"{_rollback(case)} restores the version before, in seconds")
    say(
        "This Airflow runs with the demo's settings: "
        f"{', '.join(f'{name}={value}' for name, value in SETTINGS.items())}. "
        "`make stop` and `make start` run it on the same data with yours."
    )
    say(f"Done. The UI is at {airflow.url} (no login); `make stop` ends it.")
    wrong = [*demo_report.faults(case, days), *demo_report.ensemble_faults(case)]
    wrong += demo_report.loop_faults(case)
    for line in wrong:
        print(f"Not as it should be: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _rollback(case: UseCase) -> str:
    several = len(usecases.folders()) > 1
    return f"`make rollback REASON=…{f' USECASE={case.name}' if several else ''}`"


if __name__ == "__main__":
    sys.exit(main())
