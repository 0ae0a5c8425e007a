"""When DAGs run by themselves."""

from datetime import timedelta

from airflow.sdk import CronPartitionTimetable, CronTriggerTimetable


def daily(at: str) -> CronPartitionTimetable:
    """A run each day, for the partition of the day before.

    A DAG that is unpaused for the first time waits for its next time of day. By default Airflow
    would also make up for a time that has passed by less than a tenth of the interval, so that
    what a first start does would depend on the hour. Airflow plans a DAG's first run each time the
    file is parsed, so a parse just after the time of day must not skip that day: one minute lets
    the scheduler start it.

    Args:
        at: hour and minute in UTC, such as `06:00`.
    """
    hour, minute = map(int, at.split(":"))
    return CronPartitionTimetable(
        f"{minute} {hour} * * *",
        timezone="UTC",
        run_offset=-1,
        run_immediately=timedelta(minutes=1),
        key_format="%Y-%m-%d",
    )


def weekly() -> CronTriggerTimetable:
    """A run on Sundays at 03:30 UTC; a DAG that is unpaused later waits for the next one."""
    return CronTriggerTimetable("30 3 * * 0", timezone="UTC", run_immediately=timedelta(minutes=1))
