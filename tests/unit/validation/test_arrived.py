"""Files that have arrived start each day once, and nothing else."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from include.file_events import FileEvent
from include.lake.tables import Lake
from include.validation.arrived import days_to_start
from tests.case import CASE, at

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("paths", "days", "words"),
    [
        (["drop/2026-11-02"], ["2026-11-02"], "drop/2026-11-02 starts 2026-11-02"),
        (["drop/2026-11-02", "drop/2026-11-01"] * 2, ["2026-11-01", "2026-11-02"], "starts"),
        (["drop/2026-11-03"], ["2026-11-03"], "starts 2026-11-03"),
        (["drop/2026-11-04"], [], "starts no day: 2026-11-04 has not begun"),
        (["drop/0001-01-01", "drop/notes"], [], "starts no day: its path names none"),
        (["drop/2026-10-30"], [], "of 2026-10-30 has landed before"),
        ([], [], ""),
    ],
)
def test_each_day_starts_once_and_the_log_says_why_others_do_not(
    paths: list[str], days: list[str], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake(str(tmp_path), CASE.name)
    case = replace(at(lake), file_events=[FileEvent("drop", "%Y-%m-%d")])
    landed = lake.landing_path(case.inputs[0].name, "2026-10-30")
    landed.parent.mkdir(parents=True)
    landed.touch()
    with caplog.at_level(logging.INFO, "include.validation.arrived"):
        assert days_to_start(case, paths, NOW) == days
    assert words in caplog.text
