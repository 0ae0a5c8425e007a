"""Eight mapped scoring tasks of a thousand rows, compared with eight that import nothing.

The embedded Airflow runs the repository's own `batch_inference` on a day of 8,000 rows with
`ML_CHUNK_ROWS=1000`, and in turns a DAG whose eight mapped tasks return a constant. Every task is
a process of its own. The figure is the time from the first mapped task's start to the last one's
end; each DAG runs once as a warm-up. The chunks are scored again in every run.
"""

import shutil
from datetime import date, datetime, timedelta
from functools import partial
from statistics import median
from typing import Any

from benchmarks.common import (
    REPO,
    Claim,
    alternate,
    at_most,
    child,
    free_port,
    program,
    say,
    scratch_folder,
    usecase,
)
from local import embedded
from local.client import Airflow

RUNS = {"small": 3, "full": 7}
TASKS, ROWS = 8, 1000
MAX_RATIO = 2.0
KEY = "2013-03-01"
NOTHING = f'''"""Eight mapped tasks that import nothing."""

from airflow.sdk import dag, task


@dag(schedule=None)
def nothing() -> None:
    """Plan eight chunks, do nothing for each."""

    @task
    def plan_chunks() -> list[dict]:
        """Name the chunks."""
        return [{{"label": str(number)}} for number in range({TASKS})]

    @task
    def score(chunk: dict) -> str:
        """Import nothing, do nothing."""
        return chunk["label"]

    score.expand(chunk=plan_chunks())


nothing()
'''


def main(size: str) -> list[Claim]:
    """Start an Airflow on a folder of its own, run both DAGs in turns, stop it."""
    repeats, scoring = RUNS[size], usecase().dag_id("batch_inference")
    with scratch_folder() as folder:
        say("Training a champion; publishing a day of 8,000 real flights")
        child(prepare, {"ML_DATA_DIR": str(folder)})
        dags = folder / "dags"
        dags.mkdir()
        shutil.copy(REPO / "dags" / "batch_inference.py", dags)
        (dags / "nothing.py").write_text(NOTHING)
        try:
            airflow = embedded.start(
                folder, free_port(), dags_folder=dags, extra={"ML_CHUNK_ROWS": str(ROWS)}
            )
            sides = {
                "scoring": partial(_span, airflow, scoring, KEY),
                "nothing": partial(_span, airflow, "nothing", None),
            }
            for dag_id in (scoring, "nothing"):
                airflow.unpause(dag_id)
            say("Each once as a warm-up, then alternating")
            alternate(sides, 1)
            spans = {name: median(found) for name, found in alternate(sides, repeats).items()}
        finally:
            embedded.stop(folder)
    against = (
        f"{TASKS} mapped tasks that import nothing: {spans['nothing']:.2f} s, "
        f"scoring {spans['scoring']:.2f} s (medians of {repeats})"
    )
    ratio = spans["scoring"] / spans["nothing"]
    return [at_most("task imports", ratio, "x peer's time", MAX_RATIO, against)]


def _span(airflow: Airflow, dag_id: str, partition_key: str | None) -> float:
    """Run a DAG; returns the seconds from its first mapped task's start to the last one's end."""
    shutil.rmtree(airflow.data / "lake" / usecase().name / "scores", ignore_errors=True)
    run_id = airflow.trigger(dag_id, partition_key=partition_key)
    state = airflow.wait(dag_id, run_id)
    tasks = [one for one in airflow.task_instances(dag_id, run_id) if one["task_id"] == "score"]
    assert state == "success", f"{dag_id}: {state}"
    assert len(tasks) == TASKS, f"{dag_id}: {len(tasks)} tasks"
    started = min(datetime.fromisoformat(one["start_date"]) for one in tasks)
    ended = max(datetime.fromisoformat(one["end_date"]) for one in tasks)
    seconds = (ended - started).total_seconds()
    say(f"  {dag_id:18}{seconds:6.2f} s")
    return seconds


def prepare() -> dict[str, Any]:
    """Register a champion, and publish a validated day with this number of chunks."""
    case = usecase()
    import polars as pl

    from include.inference import scoring
    from include.registry import promotion, registry
    from include.usecases.flight_delays.models import xgboost

    days = [date(2013, 1, 1) + timedelta(days=number) for number in range(14)]
    flights = [rows for day in days if (rows := case.source.fetch("flights", day)) is not None]
    truth = [rows for day in days if (rows := case.source.fetch("actuals", day)) is not None]
    known = pl.concat(case.features.build_features({"flights": rows}) for rows in flights)
    known = known.join(case.features.build_labels(pl.concat(truth)), on=case.key)
    pipeline = xgboost(seed=7).fit(known, known["label"].to_numpy())
    run_id = registry.log_training(case, pipeline, {}, {"reason": "benchmark"})
    scores = pipeline.predict_proba(known)[:, 1]
    registry.log_reference(case, run_id, scoring.score_reference(case, scores))
    promotion.promote(case, registry.register(case, run_id), None, "benchmark")

    version = case.lake.new_version("validated", KEY)
    day_rows = pl.concat(flights)[: TASKS * ROWS].with_columns(
        pl.lit(date.fromisoformat(KEY)).alias("date"),
        pl.int_range(1, TASKS * ROWS + 1, dtype=pl.Int32).alias("flight"),
    )
    assert len(day_rows) == TASKS * ROWS
    version.write_frame("flights", day_rows)
    version.publish(["flights"])
    return {}


if __name__ == "__main__":
    raise SystemExit(program(main, prepare))
