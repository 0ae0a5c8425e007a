"""Makes the version that the champion replaced champion again, in seconds, whatever else runs.

Its ensemble is rolled back with it. Run it again to go back one more version. If the version to
remove is named, two people who run it at the same time go back one version, not two. Days that the
bad champion scored stay as they are: run `batch_inference` for them again (a backfill of
`data_validation` does that) to have them scored by the restored version.
"""

from typing import Any

from airflow.sdk import Param, task

from include.messages import Rollback
from include.orchestration.assets import assets_of
from include.orchestration.pipelines import check_conf, pipeline, usecases_of_process
from include.orchestration.tasks import typed
from include.usecase import UseCase

PARAMS = {
    "reason": Param(
        type="string",
        minLength=1,
        maxLength=500,
        description="Why: kept with the version that is rolled back.",
    ),
    "version": Param(
        None,
        type=["null", "string"],
        maxLength=9,
        pattern="^[0-9]*$",
        description="The version to roll back: if it is no longer champion, nothing is done. "
        "Empty: the current champion.",
    ),
}


@pipeline(
    schedule=None,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["training"],
    params=lambda _: PARAMS,
)
def model_rollback(case: UseCase) -> None:
    """Find the two versions, then move the alias."""
    asset = assets_of(case).champion

    @task
    @typed
    def find_previous(*, params: Any = None, dag_run: Any = None) -> Rollback:
        """The champion and the version before it, fixed so that a retry goes back no further."""
        from include.registry import promotion, registry

        check_conf(dag_run.conf, PARAMS)
        champion = registry.find_champion(case)
        before = promotion.previous(case, champion, params["version"])
        return Rollback(champion, before)

    @task(outlets=[asset])
    @typed
    def roll_back(versions: Rollback, *, params: Any = None, outlet_events: Any = None) -> str:
        """Make the version before it champion again. Returns its number."""
        from include.registry import promotion

        promotion.roll_back(case, versions.model, versions.to, params["reason"])
        outlet_events[asset].extra = {**vars(versions.to), "reason": params["reason"]}
        return versions.to.version

    roll_back(find_previous())


for case in usecases_of_process():
    model_rollback(case)
