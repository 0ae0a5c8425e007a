"""Published predictions → the tables of those who use them, for exactly the day that was published.

Each destination of the use case has a task, which replaces what the destination has of this day:
all rows or none. If a destination is down, its task is retried and the others go on. A backfill, a
rerun or a day that is scored again after a rollback is delivered again.

The run of a published day skips the destinations of other tables; a run that is started by hand
delivers to all.
"""

from typing import Any

from airflow.sdk import PartitionedAssetTimetable, task
from airflow.sdk.exceptions import AirflowSkipException

from include.destinations import Destination
from include.messages import Delivered
from include.orchestration.assets import assets_of
from include.orchestration.pipelines import pipeline, usecases_of_process
from include.orchestration.tasks import typed
from include.usecase import UseCase


@pipeline(
    schedule=lambda case: PartitionedAssetTimetable(
        assets=assets_of(case).predictions | assets_of(case).ensemble_predictions
    ),
    max_active_runs=4,
    doc_md=__doc__,
    tags=["delivery"],
)
def delivery(case: UseCase) -> None:
    """Deliver a published day to each destination."""
    assets = assets_of(case)

    def deliver_to(destination: Destination) -> None:
        source = getattr(assets, destination.source)

        @task(task_id=destination.name, doc_md=f"Deliver {destination.source}.", inlets=[source])
        @typed
        def deliver(
            *, partition_key: str | None = None, triggering_asset_events: Any = None
        ) -> Delivered:
            from include.inference import delivery

            if triggering_asset_events and source not in triggering_asset_events:
                raise AirflowSkipException(f"{destination.source} was not published by this event")
            return delivery.deliver(case, destination.name, partition_key)

        deliver()

    for destination in case.destinations:
        deliver_to(destination)


for case in usecases_of_process():
    if case.destinations:
        delivery(case)
