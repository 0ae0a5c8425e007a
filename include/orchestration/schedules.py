"""When DAGs run by themselves."""

from datetime import timedelta

from airflow.sdk import CronPartitionTimetable


def daily(cron: str) -> CronPartitionTimetable:
    """A run each day, for the partition of the day before; the cron expression is in UTC.

    A DAG that is unpaused for the first time waits for its next time of day. By default Airflow
    would also make up for a time that has passed by less than a tenth of the interval, so that
    what a first start does would depend on the hour.
    """
    return CronPartitionTimetable(
        cron,
        timezone="UTC",
        run_offset=-1,
        run_immediately=timedelta(0),
        key_format="%Y-%m-%d",
    )
