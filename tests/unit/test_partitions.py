"""A partition key is a day, with room for the days around it."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import partitions
from include.errors import BadData
from include.lake.tables import Lake
from tests.unit.helpers import ENDS, NO_DATES

SOME_DAYS = st.dates(date.min + partitions.ROOM, date.max - partitions.ROOM)


@pytest.mark.parametrize("key", [*NO_DATES, *ENDS])
def test_a_key_that_is_not_a_partition_is_refused_by_name(key: str, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for use in (partitions.parse_key, lambda key: lake.manifest("table", key)):
        with pytest.raises(BadData) as failure:
            use(key)
        assert repr(key) in str(failure.value)
    with pytest.raises(BadData):
        lake.new_version("table", key)
    assert list(tmp_path.iterdir()) == []


@given(SOME_DAYS)
def test_a_key_is_the_day_it_names(day: date) -> None:
    assert partitions.parse_key(day.isoformat()) == day


@given(SOME_DAYS, st.integers(0, 3000))
def test_days_before_a_key_are_counted_back(day: date, days: int) -> None:
    assert partitions.days_before(day.isoformat(), days) == (day - timedelta(days)).isoformat()
