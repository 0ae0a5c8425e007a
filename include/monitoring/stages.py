"""Records which stages the pipelines' runs passed, and with how many rows.

Every run writes one small file under the day on which it ended, whether it failed or not. A run
that is cleared and ends again replaces its file.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta

from include import metrics
from include.errors import BadData, MissingData
from include.lake.files import list_folder, open_parquet, put_text, read_json
from include.monitoring.history import Figure
from include.usecase import UseCase

TABLE = "stage_runs"
VALIDATE, PREPROCESS, INFER, POSTPROCESS = "validate", "preprocess", "infer", "post-process"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRun:
    """The result of one stage in one run.

    Attributes:
        rows: input rows.
        failed_rows: rows without output: put aside, or all of them if the stage failed.
    """

    dag_id: str
    run_id: str
    key: str
    stage: str
    failed: bool
    rows: int
    failed_rows: int


@dataclass(frozen=True)
class Record:
    """The file that a run writes when it ends.

    Attributes:
        key: the day that the run was for.
        output: table that the run publishes at its end.
        published: the published version of that table's partition when the run ended, and its
            time. None if there was none.
    """

    key: str
    output: str
    ended_at: Annotated[datetime, Meta(tz=True)]
    stages: list[StageRun]
    published: str | None = None


def record(
    case: UseCase,
    dag_id: str,
    run_id: str,
    key: str,
    states: Mapping[str, str | None],
    tasks: Mapping[str, list[str]],
    output: str,
    now: datetime | None = None,
) -> list[StageRun]:
    """Record the results of a run's stages.

    Args:
        key: the day that the run was for.
        states: task → state in Airflow; a mapped task's instance is `task_0`.
        tasks: stage → its tasks, in order. A stage without a failed or successful task was not
            reached and is not recorded.
        output: table that the run publishes at its end. If only failed tasks are cleared, Airflow
            does not record the run again, but a version published since shows that it was fixed.
        now: when the run ended; by default now.
    """
    ended = (now or datetime.now(UTC)).astimezone(UTC)
    found = []
    for stage, names in tasks.items():
        ends = [states.get(name) for name in names]
        ends += [
            state
            for task, state in states.items()
            if any(
                task.startswith(f"{name}_") and task[len(name) + 1 :].isdigit() for name in names
            )
        ]
        failed = "failed" in ends
        if not failed and "success" not in ends:
            continue
        rows, put_aside = _rows(case, key, stage)
        lost = rows if failed else put_aside
        found.append(StageRun(dag_id, run_id, key, stage, failed, rows, lost))
    name = hashlib.sha256(f"{dag_id} {run_id}".encode()).hexdigest()[:16]
    path = case.lake.partition_path(TABLE, ended.date().isoformat()) / f"{dag_id}-{name}.json"
    left = asdict(Record(key, output, ended, found, _published(case, output, key)))
    put_text(path, json.dumps({**left, "ended_at": ended.isoformat()}))
    for one in found:
        _send_metrics(case, one)
    return found


def _send_metrics(case: UseCase, run: StageRun) -> None:
    about = {"dag": run.dag_id, "stage": run.stage}
    result = "failed" if run.failed else "passed"
    metrics.count_one(
        case.name, "stage_runs_total", "result", result, ("failed", "passed"), **about
    )
    metrics.send(case.name, "stage_rows_total", run.failed_rows, result="failed", **about)
    metrics.send(
        case.name, "stage_rows_total", run.rows - run.failed_rows, result="passed", **about
    )


def _rows(case: UseCase, key: str, stage: str) -> tuple[int, int]:
    """Input rows of a stage, and how many of them it puts aside if it succeeds."""
    main = case.inputs[0].name
    validated = case.lake.readable_manifest("validated", key)
    made = case.lake.readable_manifest("features", key)
    if stage == VALIDATE:
        if validated is not None:
            checks = validated.metadata["report"]["inputs"]
            [check] = [one for one in checks if one["input"] == main]
            return check["rows"], check["quarantined"]
        try:
            with open_parquet(case.lake.landing_path(main, key)) as file:
                return file.metadata.num_rows, 0
        except (BadData, MissingData):  # their number is unknown
            return 0, 0
    if stage == PREPROCESS:
        rows = validated.parts[main].rows if validated else 0
        return rows, made.parts["rejected"].rows if made else 0
    return made.parts["features"].rows if made else 0, 0


def rates(case: UseCase, now: datetime, hours: float = 24) -> list[Figure]:
    """The share of runs and of rows that failed, by DAG and stage, in the hours before a time.

    If a run ended more than once, its last end counts. A damaged record is skipped and logged.
    """
    now = now.astimezone(UTC)
    since = now - timedelta(hours=hours)
    days = [since.date() + timedelta(days=n) for n in range((now.date() - since.date()).days + 1)]
    ended: dict[str, list[StageRun]] = {}
    for day in days:
        for path in list_folder(case.lake.partition_path(TABLE, day.isoformat())):
            if path.name.endswith(".json") and not path.name.startswith("."):
                try:
                    found = read_json(path, Record)
                except BadData as error:
                    log.warning("A run's stages are not counted: %s", error)
                    continue
                if since < found.ended_at <= now:
                    ended[path.name] = _as_fixed(case, found)
    passed = [one for stages in ended.values() for one in stages]
    figures = []
    for dag_id, stage in sorted({(one.dag_id, one.stage) for one in passed}):
        runs = [one for one in passed if (one.dag_id, one.stage) == (dag_id, stage)]
        rows, lost = sum(one.rows for one in runs), sum(one.failed_rows for one in runs)
        failed = sum(one.failed for one in runs)
        about = {"dag": dag_id, "stage": stage}
        figures.append(Figure("stages", "failed_runs", failed / len(runs), len(runs), "", about))
        if rows:
            figures.append(Figure("stages", "failed_rows", lost / rows, rows, "", about))
    return figures


def _published(case: UseCase, table: str, key: str) -> str | None:
    """The published version of a partition, as text that identifies the publication."""
    manifest = case.lake.readable_manifest(table, key)
    return f"{manifest.version} at {manifest.published_at}" if manifest else None


def _as_fixed(case: UseCase, found: Record) -> list[StageRun]:
    """The stages of a run, all passed if it was fixed since."""
    if _published(case, found.output, found.key) in (None, found.published):
        return found.stages
    fixed = [replace(one, failed_rows=0, failed=False) for one in found.stages if one.failed]
    return fixed + [one for one in found.stages if not one.failed]
