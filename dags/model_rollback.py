"""The champion goes, the version that it replaced comes back: in seconds, whatever else runs.

Its ensemble goes and comes with it. Run it again to go back one version more; where the version
that has to go is named, two people who run it at once go back one version, not two. Days that the
bad champion has scored stay as they are: run `batch_inference` for them again (a backfill of
`data_validation` does it) to have them scored by the one that came back.
"""

from typing import Any

from airflow.sdk import Param, dag, task

from include.orchestration.alerting import run_failed, run_succeeded
from include.orchestration.assets import CHAMPION
from include.orchestration.task_defaults import TASK_DEFAULTS, check_conf

PARAMS = {
    "reason": Param(
        type="string",
        minLength=1,
        maxLength=500,
        description="Why: kept with the version that goes.",
    ),
    "version": Param(
        None,
        type=["null", "string"],
        maxLength=9,
        pattern="^[0-9]*$",
        description="The version that has to go: if it is champion no more, nothing is done. "
        "Empty: whichever is champion.",
    ),
}


@dag(
    schedule=None,
    max_active_runs=1,
    default_args=TASK_DEFAULTS,
    on_failure_callback=run_failed,
    on_success_callback=run_succeeded,
    doc_md=__doc__,
    tags=["training"],
    params=PARAMS,
)
def model_rollback() -> None:
    """Find the two versions, then move the alias."""

    @task(multiple_outputs=False)
    def find_previous(*, params: Any = None, dag_run: Any = None) -> dict[str, dict[str, str]]:
        """The champion and the version before it, fixed so that a retry goes back no further."""
        from dataclasses import asdict

        from include.registry import promotion, registry

        check_conf(dag_run.conf, PARAMS)
        champion = registry.find_champion()
        before = promotion.previous(champion, params["version"])
        return {"model": asdict(champion), "to": asdict(before)}

    @task(outlets=[CHAMPION])
    def roll_back(
        versions: dict[str, dict[str, str]], *, params: Any = None, outlet_events: Any = None
    ) -> str:
        """Put the version before back. Returns its number."""
        from include.registry import promotion
        from include.registry.registry import ModelVersion

        model, to = ModelVersion(**versions["model"]), ModelVersion(**versions["to"])
        promotion.roll_back(model, to, params["reason"])
        outlet_events[CHAMPION].extra = {**versions["to"], "reason": params["reason"]}
        return to.version

    roll_back(find_previous())


model_rollback()
