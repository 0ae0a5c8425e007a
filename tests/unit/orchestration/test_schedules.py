"""When a DAG first runs by itself, by Airflow's own scheduler code."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import TimeRestriction

from include.orchestration.schedules import daily, weekly

FirstRun = Callable[..., tuple[datetime, str]]


@pytest.fixture
def first_run(monkeypatch: pytest.MonkeyPatch) -> FirstRun:
    """Time and partition of the run that Airflow plans at a time, for a DAG without runs."""

    def found(*at: int) -> tuple[datetime, str]:
        now = datetime(2026, 11, 29, *at, tzinfo=UTC)
        monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: now)
        timetable = decode_timetable(encode_timetable(daily("08:00")))
        first = timetable.next_dagrun_info_v2(
            last_dagrun_info=None, restriction=TimeRestriction(None, None, catchup=False)
        )
        assert first is not None
        return first.run_after, str(first.partition_key)

    return found


TODAY = (datetime(2026, 11, 29, 8, tzinfo=UTC), "2026-11-28")
TOMORROW = (datetime(2026, 11, 30, 8, tzinfo=UTC), "2026-11-29")


@pytest.mark.parametrize("hour", range(24))
def test_a_dag_that_is_unpaused_waits_for_its_next_time_at_whatever_hour_that_is(
    hour: int, first_run: FirstRun
) -> None:
    assert first_run(hour, 2) == (TOMORROW if hour >= 8 else TODAY)


def test_a_dag_that_is_parsed_just_after_its_time_keeps_the_run_that_is_due(
    first_run: FirstRun,
) -> None:
    assert first_run(7, 59, 59) == TODAY
    assert first_run(8, 0, 30) == TODAY


@pytest.mark.parametrize("day", [29, 30])
def test_a_weekly_dag_that_is_unpaused_waits_for_its_next_sunday(
    day: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 11, day, 12, tzinfo=UTC)
    monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: now)
    first = decode_timetable(encode_timetable(weekly())).next_dagrun_info_v2(
        last_dagrun_info=None, restriction=TimeRestriction(None, None, catchup=False)
    )
    assert first is not None
    assert first.run_after == datetime(2026, 12, 6, 3, 30, tzinfo=UTC)
