"""Landed files of a day → validated partition, quarantine and report.

The day's inputs, and the truth of an earlier day, pass the same gates, each group on its own:
late or broken truth never keeps a day from being scored.

- **land** fetches the files that have not landed yet. A day for which the use case expects no data
  (a weekend, a holiday) ends here: it is skipped, and nothing is scored.
- **check_contract** fails the day at once if a column is missing, extra, moved or of another type.
- **check_rows** puts bad rows into quarantine, each with its reasons. If the file is replaced
  meanwhile, the day fails: clear the run, and the new file is checked from the start.
- **check_partition** judges the day as a whole: volume, null rates, duplicates, freshness.
- **publish** makes the valid rows of all inputs visible at once. It is skipped if another run has
  already published the day from newer files.
- **record_stages** records for the monitor how the run ended.

A use case that declares `file_events` has two more DAGs. **file_events** waits for its files, and
**validation_on_file** then validates the inputs of their days in the same way. The schedule
validates each day all the same, so that a file that nobody reported waits for the morning at most.
"""

from typing import Any

from airflow.sdk import Asset, PartitionedAssetTimetable, task, task_group

from include.messages import LandedFile, Published, RowCheck
from include.orchestration.assets import assets_of
from include.orchestration.pipelines import pipeline, usecases_of_process
from include.orchestration.schedules import daily
from include.orchestration.tasks import record_stages, skips_if_overtaken, typed
from include.orchestration.watch import watched
from include.usecase import UseCase

STAGES = {
    "validate": [
        f"inputs.{name}"
        for name in ("land", "check_contract", "check_rows", "check_partition", "publish")
    ]
}


@task_group
def gates(case: UseCase, table: str, days_back: int, outlet: Asset) -> Any:
    """The gates for a day's inputs of one table."""

    @task
    def land(*, partition_key: str | None = None) -> str:
        """Fetch what has not landed yet. Returns the day, as a partition key."""
        from airflow.sdk.exceptions import AirflowSkipException

        from include import partitions
        from include.validation import land

        key = partitions.days_before(partition_key, days_back)
        if not land.is_due(case, table, key):
            land.pass_over(case, table, key)
            raise AirflowSkipException(f"The use case expects no {table} for {key}.")
        land.land(case, table, key)
        return key

    @task
    @typed
    def check_contract(key: str) -> list[LandedFile]:
        """Check the columns and types of every landed file. Returns the files."""
        from include.validation import contract

        return contract.check_contract(case, table, key)

    @task(
        map_index_template="{{ input_name }}",
        doc_md="Split one file into valid rows and quarantined ones. Returns the counts.",
    )
    @typed
    def check_rows(file: LandedFile) -> RowCheck:
        from airflow.sdk import get_current_context

        from include.validation import rows

        get_current_context()["input_name"] = file.input_name
        return rows.check_rows(case, file)

    @task
    @typed
    def check_partition(checks: list[RowCheck]) -> str:
        """Judge the day as a whole, and write its report. Returns what may be published."""
        from include.validation import partition

        return partition.check_partition(case, checks)

    @task(outlets=[outlet])
    @skips_if_overtaken
    @typed
    def publish(version: str, *, outlet_events: Any = None) -> Published:
        """Publish the day. Returns the rows of each input."""
        from include import partitions
        from include.validation import partition

        outlet_events[outlet].add_partitions(partitions.key_of(version))
        outlet_events[outlet].extra = {"version": version}
        return Published(partition.publish(case, version))

    return publish(check_partition(check_rows.expand(file=check_contract(land()))))


@pipeline(
    schedule=lambda case: daily(case.validated_at),
    max_active_runs=4,
    doc_md=__doc__,
    tags=["validation"],
)
def data_validation(case: UseCase) -> None:
    """Yesterday's inputs, and the truth of an earlier day."""
    assets = assets_of(case)
    inputs = gates.override(group_id="inputs")(case, "validated", 0, assets.validated)
    inputs >> record_stages(case, STAGES, "validated")
    gates.override(group_id="truth")(case, "actuals", case.truth_delay_days, assets.actuals)


@pipeline(schedule=watched, doc_md=__doc__, tags=["validation"])
def file_events(case: UseCase) -> None:
    """The days whose files have arrived."""
    arrived = assets_of(case).arrived

    @task(outlets=[arrived])
    def find_days(*, triggering_asset_events: Any = None, outlet_events: Any = None) -> list[str]:
        """Find the days that the files start. Skipped if there are none."""
        from airflow.sdk.exceptions import AirflowSkipException

        from include.validation import arrived as files

        events = [event for found in triggering_asset_events.values() for event in found]
        paths = [path for event in events for path in event.extra["payload"]["paths"]]
        days = files.days_to_start(case, paths)
        if not days:
            raise AirflowSkipException("No file starts a day; the log says why.")
        outlet_events[arrived].add_partitions(days)
        return days

    find_days()


@pipeline(
    schedule=lambda case: PartitionedAssetTimetable(assets=assets_of(case).arrived),
    max_active_runs=4,
    doc_md=__doc__,
    tags=["validation"],
)
def validation_on_file(case: UseCase) -> None:
    """The inputs of a day whose files have arrived before its schedule."""
    validated = assets_of(case).validated
    inputs = gates.override(group_id="inputs")(case, "validated", 0, validated)
    inputs >> record_stages(case, STAGES, "validated")


for case in usecases_of_process():
    data_validation(case)
    if case.file_events:
        file_events(case)
        validation_on_file(case)
