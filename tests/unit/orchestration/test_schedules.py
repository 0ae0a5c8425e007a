"""When a DAG first runs by itself, by Airflow's own scheduler code."""

from datetime import UTC, datetime

import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import TimeRestriction

from include.orchestration.schedules import daily


@pytest.mark.parametrize("hour", range(24))
def test_a_dag_that_is_unpaused_waits_for_its_next_time_at_whatever_hour_that_is(
    hour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 11, 29, hour, 1, tzinfo=UTC)
    monkeypatch.setattr("airflow.timetables.trigger.utcnow", lambda: now)
    timetable = decode_timetable(encode_timetable(daily("08:00")))
    first = timetable.next_dagrun_info_v2(
        last_dagrun_info=None, restriction=TimeRestriction(None, None, catchup=False)
    )
    assert first is not None
    tomorrow = hour >= 8
    assert first.run_after == datetime(2026, 11, 30 if tomorrow else 29, 8, tzinfo=UTC)
    assert first.partition_key == ("2026-11-29" if tomorrow else "2026-11-28")
