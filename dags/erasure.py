"""Erases the rows of a person, or of anything else that has to go, from all that a use case keeps.

Put their keys into a file of JSON lines that the workers can read, such as `{"person": "P-12"}`,
and start a run with its address. A dry run by default: its log and record say how many rows there
are. Then start a run with `dry_run` off, and delete the file.

- **erase** counts the rows of all tables and destinations, writes the record, then erases them. If
  a run of the use case is open, nothing is done yet: the task is retried. If it is killed, the
  retry finishes it.
"""

from pathlib import Path
from typing import Any

from airflow.sdk import Param, task

from include.messages import Erased
from include.orchestration.pipelines import check_conf, open_dags, pipeline, usecases_of_process
from include.orchestration.tasks import typed
from include.usecase import UseCase

PARAMS = {
    "file": Param(
        type="string",
        minLength=1,
        maxLength=1000,
        description="Path or URI of a file with a JSON object a line: columns of the inputs, and "
        "their values in the rows to erase.",
    ),
    "dry_run": Param(True, type="boolean", description="Whether to only count the rows."),
}


@pipeline(
    schedule=None,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["maintenance"],
    params=lambda _: PARAMS,
)
def erasure(case: UseCase) -> None:
    """Find the rows, write the record, erase them."""

    @task
    @typed
    def erase(*, params: Any = None, dag_run: Any = None, ti: Any = None) -> Erased:
        """Erase the rows, or only count them. Returns how many they are, by table."""
        from include.housekeeping import erasure

        check_conf(dag_run.conf, PARAMS)
        unfinished = open_dags(case, Path(__file__).parent, ti)
        return erasure.erase(case, params["file"], unfinished, params["dry_run"])

    erase()


for case in usecases_of_process():
    erasure(case)
