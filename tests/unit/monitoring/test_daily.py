"""The steps of a day’s monitoring: what is kept of a day, and when a retraining is asked for."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import pytest

from include.lake.files import read_text
from include.lake.tables import Lake
from include.monitoring import daily, decision
from include.monitoring import history as records
from tests.case import CASE, at
from tests.unit.conftest import LAST_DAY, OLD_DAY, History
from tests.unit.helpers import infer

NOW = datetime(2013, 2, 21, 8, tzinfo=UTC)


def test_a_retraining_requested_for_an_old_day_does_not_use_later_days(
    lake: Lake, tmp_path: Path
) -> None:
    before = LAST_DAY - timedelta(1)
    assert daily.train_until(CASE, str(LAST_DAY)) == str(before)
    assert daily.train_until(CASE, str(LAST_DAY + timedelta(9))) == str(LAST_DAY)
    assert daily.train_until(at(Lake(str(tmp_path / "empty"))), str(LAST_DAY)) == str(before)


def test_a_days_figures_are_added_once_and_its_decision_stored_in_words_and_figures(
    lake: Lake, history: History
) -> None:
    infer(lake, OLD_DAY, history.champion)
    assert daily.observe(CASE, OLD_DAY, NOW) > 100
    assert daily.observe(CASE, OLD_DAY, NOW) == 0
    found = daily.decide(CASE, OLD_DAY)
    assert decision.read(CASE, OLD_DAY) == found
    kept = records.select(records.read(CASE, OLD_DAY, 1), "decision")["value"].to_list()
    assert kept == [decision.ACTIONS.index(found.action)]
    report = lake.partition_path("reports", OLD_DAY) / "report.html"
    assert daily.write_report(CASE, OLD_DAY, found) == str(report)
    assert found.summary in unescape(read_text(report))


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("2013-03-20", False),  # the day itself, of which nothing is asked twice
        ("2013-03-21", True), ("2013-03-19", True),  # a later day may have been looked at first
        ("2013-03-29", True), ("2013-03-11", True),
        ("2013-03-30", False), ("2013-03-10", False),
    ],
)  # fmt: skip
def test_a_retraining_is_recent_within_the_cooldown_on_either_side(
    key: str, near: bool, tmp_path: Path, configure: Callable[..., None]
) -> None:
    configure(retraining_cooldown_days=10)
    case = at(Lake(str(tmp_path / "empty")))
    daily.note_retraining(case, "2013-03-20")
    assert daily.retraining_is_recent(case, key) == near


def test_calibration_is_sent_of_all_rows_and_of_slices_that_have_enough(
    lake: Lake, history: History
) -> None:
    infer(lake, OLD_DAY, history.champion)
    daily.observe(CASE, OLD_DAY, NOW)
    sent = {
        sample.labels["slice"]
        for sample in daily._samples(CASE, OLD_DAY)
        if sample.name == "outcomes_calibration"
    }
    assert {"all", "origin = EWR", "carrier = UA"} <= sent
    assert "carrier = HA" not in sent  # one flight a day
