"""DAGs of every use case, none of which can forget its retries or its alerts."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, dag, get_parsing_context

from include import usecases
from include.errors import BadData
from include.orchestration.alerting import run_failed, run_succeeded
from include.orchestration.tasks import TASK_DEFAULTS
from include.usecase import UseCase, parted
from include.wording import listed, quoted

OTHER_DAGS = {"file_events", "validation_on_file"}
"""DAGs of `dags/data_validation.py` that are not named after their file."""


def pipeline(
    schedule: Callable[[UseCase], Any] | None,
    tags: Sequence[str],
    params: Callable[[UseCase], dict[str, Param]] | None = None,
    **options: Any,
) -> Callable[[Callable[[UseCase], None]], Callable[[UseCase], DAG]]:
    """Turn a function that defines the tasks of a use case into one that makes its DAG.

    The DAG is called `<use case>.<name of the function>`, and has what every DAG here has: no
    catch-up, retries by kind of failure, and callbacks for its alerts.

    Args:
        schedule: returns the use case's schedule; None if its runs are only triggered.
        tags: in addition to the use case's name.
        params: returns the parameters of a run.
        options: passed to Airflow's `dag`.
    """

    def decorate(define: Callable[[UseCase], None]) -> Callable[[UseCase], DAG]:
        @functools.wraps(define)
        def make(case: UseCase) -> DAG:
            @dag(
                dag_id=case.dag_id(define.__name__),
                description=inspect.getdoc(define),
                schedule=schedule(case) if schedule else None,
                tags=[case.name, *tags],
                params=params(case) if params else None,
                catchup=False,
                default_args=TASK_DEFAULTS,
                on_failure_callback=run_failed,
                on_success_callback=run_succeeded,
                **options,
            )
            def tasks() -> None:
                define(case)

            made = tasks()
            made.fileloc = define.__code__.co_filename  # where its tasks are, not here
            return made

        return make

    return decorate


def usecases_of_process() -> list[UseCase]:
    """The use cases whose DAGs this process needs: all enabled ones, or in a task only its own.

    So no other use case can fail or delay a task.

    Raises:
        UsecaseInvalid: the task's use case is not enabled any more, or cannot be loaded.
    """
    if dag_id := get_parsing_context().dag_id:
        return [usecases.find(parted(dag_id)[0])]
    return usecases.enabled()


def check_conf(conf: Mapping[str, Any] | None, params: Mapping[str, Any]) -> None:
    """Refuse a run that was started with parameters that its DAG does not have.

    Airflow accepts them silently, so `dryrun` instead of `dry_run` would run for real.

    Args:
        conf: of the run.
        params: that the DAG declares.

    Raises:
        BadData: names the unknown parameters, and those that exist.
    """
    if unknown := sorted(set(conf or {}) - set(params)):
        raise BadData(
            f"This run was started with {listed(map(quoted, unknown))}, but its DAG has only the "
            f"parameters {', '.join(params)}. Nothing was done. Start a new run."
        )


def open_dags(case: UseCase, folder: Path, ti: Any) -> list[str]:
    """The use case's DAGs, other than the task's own, with a run that is not over.

    Args:
        folder: of the DAG files.
        ti: the task's instance, which asks Airflow.
    """
    names = {file.stem for file in folder.glob("*.py")} | OTHER_DAGS
    known = sorted(map(case.dag_id, names))
    unfinished = ["queued", "running"]
    return [
        dag_id
        for dag_id in known
        if dag_id != ti.dag_id and ti.get_dr_count(dag_id=dag_id, states=unfinished)
    ]


def logs_folder() -> Path | None:
    """Where Airflow writes the logs of tasks; None if it is not a folder of this machine."""
    from airflow.sdk.configuration import conf

    folder = Path(conf.get("logging", "base_log_folder"))
    return folder if folder.is_dir() else None
