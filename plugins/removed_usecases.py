"""Fails unfinished runs of use cases that are no longer enabled, when Airflow starts.

Airflow neither starts nor ends a run whose DAG is gone, and its UI hides it. The run would wait
unnoticed, and continue with an old day when the use case comes back.
"""

import logging
import sys
from typing import Any

from airflow.jobs.job import Job
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

log = logging.getLogger(__name__)

NOTE = (
    "The use case {usecase} is no longer enabled, so this run was failed when Airflow started. "
    "What it has published stays. To enable the use case again, name it in ML_USECASES and restart "
    "Airflow; then clear this run, or backfill the day."
)


class RunFailer:
    """Listens for the start of a scheduler."""

    @hookimpl
    def on_starting(self, component: Any) -> None:
        """Fail the unfinished runs of DAGs whose use case is not enabled."""
        if not isinstance(component, Job) or sys.argv[1:2] != ["scheduler"]:
            return
        from include import usecases
        from include.errors import BadData

        try:
            names = {
                folder.name for folder in usecases.folders()
            }  # a broken use case may be repaired
            own = {case.name for case in usecases.enabled()}
        except BadData as error:  # Airflow must start anyway, and its DAGs show the error, too
            log.error("Runs of removed use cases are left as they are: %s", error)
            return
        fail_runs_of_others(names, own)


def fail_runs_of_others(names: set[str], own: set[str]) -> None:
    """Fail the unfinished runs of DAGs from this project's files that belong to no use case.

    Args:
        names: the use cases whose runs stay.
        own: those of them that have DAGs. The files of these DAGs are this project's; Airflow
            may run other projects, too.
    """
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState, State, TaskInstanceState
    from sqlalchemy import select, tuple_

    from include.usecase import parted

    with create_session() as session:
        file = tuple_(DagModel.bundle_name, DagModel.relative_fileloc)
        places = {
            (dag.bundle_name, dag.relative_fileloc)
            for dag in session.scalars(select(DagModel))
            if parted(dag.dag_id)[0] in own
        }
        unfinished = (
            select(DagRun)
            .join(DagModel, DagModel.dag_id == DagRun.dag_id)
            .where(DagRun.state.in_(State.unfinished_dr_states), file.in_(places))
        )
        for run in session.scalars(unfinished).all():
            usecase, _ = parted(run.dag_id)
            if not usecase or usecase in names:  # a DAG without a use case is not removed
                continue
            for task in run.get_task_instances(state=State.unfinished, session=session):
                task.set_state(TaskInstanceState.FAILED, session=session)
            run.set_state(DagRunState.FAILED)
            run.note = NOTE.format(usecase=usecase)
            log.error("%s of %s: %s", run.run_id, run.dag_id, run.note)


class RemovedUsecases(AirflowPlugin):
    """Registers the listener."""

    name = "removed_usecases"
    listeners = [RunFailer()]  # noqa: RUF012  Airflow reads it from the class
