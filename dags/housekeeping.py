"""Deletes what nothing needs any more: replaced versions, quarantine, old scores, logs and runs.

A dry run by default: log and report say what it would delete. Start a run with
`{"dry_run": false}`, or set `ML_HOUSEKEEPING_DRY_RUN=false`, to delete it.

- **clean** finds all of it first, writes a report to the lake, then deletes. Nothing that is
  current is touched, nor what registered models or other versions refer to, nor the newest versions
  of a day. While another run of the use case is open, what it may refer to stays. If the task is
  killed, the lake is whole, and the next run goes on.
"""

from pathlib import Path
from typing import Any

from airflow.sdk import Param, task

from include.messages import Housekept
from include.orchestration.pipelines import (
    check_conf,
    logs_folder,
    open_dags,
    pipeline,
    usecases_of_process,
)
from include.orchestration.schedules import weekly
from include.orchestration.tasks import typed
from include.usecase import UseCase


def params_of(case: UseCase) -> dict[str, Param]:
    """The parameters of a run."""
    return {
        "dry_run": Param(
            case.settings.housekeeping_dry_run,
            type="boolean",
            description="Whether to report only, and delete nothing.",
        )
    }


@pipeline(
    schedule=lambda _: weekly(),
    max_active_runs=1,
    doc_md=__doc__,
    tags=["maintenance"],
    params=params_of,
)
def housekeeping(case: UseCase) -> None:
    """Find, report and delete what nothing needs any more."""

    @task
    @typed
    def clean(*, params: Any = None, dag_run: Any = None, ti: Any = None) -> Housekept:
        """Delete it, or only report it. Returns how much that is, by kind."""
        from include.housekeeping import retention

        check_conf(dag_run.conf, params_of(case))
        unfinished = open_dags(case, Path(__file__).parent, ti)
        return retention.keep_house(case, unfinished, logs_folder(), params["dry_run"])

    clean()


for case in usecases_of_process():
    housekeeping(case)
