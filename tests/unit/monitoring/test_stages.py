"""Stages that runs have passed or failed, the rows lost there, and their shares in 24 hours."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.errors import BadData
from include.inference import scoring
from include.lake.tables import Lake
from include.monitoring import stages
from include.monitoring.stages import StageRun, rates, record
from local.in_process import validate_day
from tests.case import CASE, at
from tests.unit.conftest import NEW_DAY, OLD_DAY
from tests.unit.helpers import damaged, landed, replace

NOW = datetime(2013, 2, 22, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
TASKS = {"preprocess": ["preprocess"], "infer": ["plan", "score"], "post-process": ["publish"]}
VALIDATION = {"validate": [f"inputs.{name}" for name in ("land", "check_partition", "publish")]}
PASSED = {"preprocess": "success", "plan": "success", "score_0": "success", "publish": "success"}
FAILED = {**PASSED, "score_0": "failed", "publish": "upstream_failed"}


@pytest.fixture
def empty(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "empty"))


def end(lake: Lake, run: str, states: dict[str, str | None], ended: datetime) -> list[StageRun]:
    """A run of a DAG ends."""
    return record(at(lake), "dag", run, OLD_DAY, states, TASKS, "made by nobody", ended)


def failures(found: list[StageRun]) -> dict[str, bool]:
    return {one.stage: one.failed for one in found}


def shares(lake: Lake, now: datetime = NOW, hours: float = 24) -> dict[str, tuple[float, int]]:
    """The share of failed runs of each stage, and of how many runs."""
    found = rates(at(lake), now, hours)
    return {one.labels["stage"]: (one.value, one.n) for one in found if one.metric == "failed_runs"}


def lost(lake: Lake, now: datetime = NOW) -> dict[str, tuple[float, int]]:
    """The share of failed rows of each stage, and of how many rows."""
    found = rates(at(lake), now)
    return {one.labels["stage"]: (one.value, one.n) for one in found if one.metric == "failed_rows"}


# --- What became of a run -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (PASSED, {"preprocess": False, "infer": False, "post-process": False}),
        (FAILED, {"preprocess": False, "infer": True}),
        ({"preprocess": "failed", "plan": "upstream_failed"}, {"preprocess": True}),
        ({"preprocess": "success", "plan": "skipped"}, {"preprocess": False}),
        ({"preprocess": "running", "plan": None}, {}),
        ({"plan": "success"}, {"infer": False}),
        ({}, {}),
    ],
)
def test_stages_that_were_reached_are_noted(
    states: dict[str, str | None], expected: dict[str, bool], empty: Lake
) -> None:
    assert failures(end(empty, "run", states, NOW)) == expected


@pytest.mark.parametrize("number", [0, 1, 11])
def test_one_mapped_task_that_failed_fails_its_stage(number: int, empty: Lake) -> None:
    mapped = {f"score_{place}": "success" for place in range(12)} | {f"score_{number}": "failed"}
    assert failures(end(empty, "run", mapped, NOW)) == {"infer": True}


@pytest.mark.parametrize("other", ["score_card", "rescore_0", "score_0_1", "scores", "score_"])
def test_a_task_whose_name_only_begins_alike_is_another(other: str, empty: Lake) -> None:
    assert failures(end(empty, "run", {"score": "success", other: "failed"}, NOW)) == {
        "infer": False
    }


# --- Its rows -------------------------------------------------------------------------------------


def ended(lake: Lake, key: str, failed: str = "") -> dict[str, tuple[int, int]]:
    """Rows that came into each stage of both pipelines, and those lost, if this task failed."""
    found = []
    for tasks in (VALIDATION, TASKS):
        states = {name: "success" for names in tasks.values() for name in names}
        states |= {failed: "failed"} if failed else {}
        found += record(at(lake), str(list(tasks)), "run", key, states, tasks, "predictions", NOW)
    return {one.stage: (one.rows, one.failed_rows) for one in found}


def test_every_stage_counts_the_rows_that_come_into_it(lake: Lake) -> None:
    scoring.preprocess(CASE, OLD_DAY)
    rows = len(lake.current("validated", OLD_DAY).read("flights"))
    assert ended(lake, OLD_DAY) == dict.fromkeys([*VALIDATION, *TASKS], (rows, 0))


@pytest.mark.parametrize("task", ["inputs.publish", "preprocess", "score", "publish"])
def test_a_stage_that_failed_has_lost_all_its_rows(task: str, lake: Lake) -> None:
    scoring.preprocess(CASE, OLD_DAY)
    stage = next(s for s, names in (VALIDATION | TASKS).items() if task in names)
    found = ended(lake, OLD_DAY, task)
    assert {name for name, (rows, failed) in found.items() if failed == rows} == {stage}
    assert found[stage][0] > 900


def test_rows_that_were_put_aside_are_lost_though_the_stage_passed(lake: Lake) -> None:
    path = landed(lake, "flights", OLD_DAY)
    rows = pl.read_parquet(path).with_row_index()
    wrong = pl.when(pl.col("index") < 7).then(9).otherwise("block_minutes")
    replace(path, rows.with_columns(block_minutes=wrong.cast(pl.Int32)).drop("index"))
    validate_day(CASE, "validated", OLD_DAY)
    scoring.preprocess(CASE, OLD_DAY)
    found = ended(lake, OLD_DAY)
    assert found["validate"] == (len(rows), 7)
    assert found["preprocess"] == (len(rows) - 7, 0)
    assert lost(lake)["validate"] == (7 / len(rows), len(rows))


def test_rows_without_what_scoring_needs_are_lost_in_preprocessing(lake: Lake) -> None:
    version = lake.new_version("validated", OLD_DAY)
    source = lake.current("validated", OLD_DAY)
    flights = source.read("flights").with_row_index()
    unknown = pl.when(pl.col("index") >= 5).then("distance")
    version.write_frame("flights", flights.with_columns(distance=unknown).drop("index"))
    version.write_frame("weather", source.read("weather"))
    version.publish(["flights", "weather"], source.manifest().metadata)
    scoring.preprocess(CASE, OLD_DAY)
    found = ended(lake, OLD_DAY)
    assert found["preprocess"] == (len(flights), 5)
    assert found["infer"] == (len(flights) - 5, 0)


@pytest.mark.parametrize(
    "content", [b"", b"no parquet at all", b"PAR1" + bytes(100)], ids=["empty", "text", "cut off"]
)
def test_a_day_refused_for_its_broken_file_is_a_failed_run_of_unknown_rows(
    content: bytes, lake: Lake
) -> None:
    replace(landed(lake, "flights", NEW_DAY), content)
    with pytest.raises(BadData):
        validate_day(CASE, "validated", NEW_DAY)
    states = {"inputs.check_partition": "failed"}
    record(CASE, "data_validation", "run", NEW_DAY, states, VALIDATION, "validated", NOW)
    assert (shares(lake), lost(lake)) == ({"validate": (1, 1)}, {})


def test_a_day_without_landed_files_is_a_failed_run_with_unknown_rows(empty: Lake) -> None:
    record(
        at(empty),
        "data_validation",
        "run",
        NEW_DAY,
        {"inputs.land": "failed"},
        VALIDATION,
        "validated",
        NOW,
    )
    assert (shares(empty), lost(empty)) == ({"validate": (1, 1)}, {})


def test_a_refused_day_has_lost_the_rows_that_landed(lake: Lake) -> None:
    rows = len(pl.read_parquet(landed(lake, "flights", NEW_DAY)))
    states = {"inputs.check_partition": "failed"}
    record(CASE, "data_validation", "run", NEW_DAY, states, VALIDATION, "validated", NOW)
    assert lost(lake) == {"validate": (1, rows)}


# --- Shares in 24 hours ---------------------------------------------------------------------------


def test_without_runs_there_is_nothing_to_say(empty: Lake) -> None:
    assert rates(at(empty), NOW) == []


@pytest.mark.parametrize(
    ("before", "counted"),
    [
        (timedelta(0), True), (timedelta(microseconds=-1), False), (24 * HOUR, False),
        (24 * HOUR - timedelta(microseconds=1), True), (9 * HOUR, True), (30 * HOUR, False),
    ],
)  # fmt: skip
def test_a_run_counts_from_its_end_for_24_hours(
    before: timedelta, counted: bool, empty: Lake
) -> None:
    end(empty, "run", PASSED, NOW - before)
    assert bool(rates(at(empty), NOW)) == counted


def test_each_run_is_counted_on_one_day_only(empty: Lake) -> None:
    for hours in range(72):
        end(empty, f"run {hours}", PASSED, NOW - hours * HOUR)
    assert [shares(empty, NOW - days * 24 * HOUR)["infer"][1] for days in range(3)] == [24, 24, 24]


def test_more_hours_than_a_day_can_be_asked_for(empty: Lake) -> None:
    end(empty, "run", PASSED, NOW - 60 * HOUR)
    assert shares(empty, hours=61)["infer"] == (0, 1)
    assert shares(empty, hours=59) == {}


def test_the_time_zone_of_a_clock_does_not_matter(empty: Lake) -> None:
    end(empty, "run", PASSED, (NOW - HOUR).astimezone(timezone(timedelta(hours=-11))))
    for hours in (-11, 0, 13):
        assert shares(empty, NOW.astimezone(timezone(timedelta(hours=hours))))["infer"] == (0, 1)


def test_a_cleared_run_replaces_its_record(empty: Lake) -> None:
    end(empty, "run", FAILED, NOW - 2 * HOUR)
    assert shares(empty)["infer"] == (1, 1)
    end(empty, "run", PASSED, NOW - HOUR)
    assert shares(empty)["infer"] == (0, 1)


def test_a_cleared_run_replaces_its_record_of_the_day_before(empty: Lake) -> None:
    end(empty, "run", FAILED, NOW - 20 * HOUR)
    end(empty, "run", PASSED, NOW - HOUR)
    assert shares(empty)["infer"] == (0, 1)


@pytest.mark.parametrize("hours", [2, 20])
def test_only_the_last_end_of_a_cleared_run_counts(hours: int, empty: Lake) -> None:
    end(empty, "run", FAILED, NOW - hours * HOUR)
    end(empty, "run", {"preprocess": "failed"}, NOW - HOUR)
    assert shares(empty) == {"preprocess": (1, 1)}


def test_the_runs_of_two_pipelines_are_distinguished(empty: Lake) -> None:
    for dag, states in (("one", PASSED), ("two", FAILED)):
        record(at(empty), dag, "run", OLD_DAY, states, TASKS, "predictions", NOW)
    infer = [one for one in rates(at(empty), NOW) if one.labels["stage"] == "infer"]
    assert [(one.labels["dag"], one.value) for one in infer] == [("one", 0), ("two", 1)]


def test_an_unfinished_version_is_not_counted(empty: Lake) -> None:
    end(empty, "run", PASSED, NOW)
    folder = empty.partition_path(stages.TABLE, NOW.date().isoformat())
    assert isinstance(folder, Path)
    (folder / ".dag-1.json.1.ab").write_text("[{")
    (folder / ".dag-1.json").write_text("[{")
    assert shares(empty)["infer"] == (0, 1)


ends = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(1, 23)), max_size=8)


@given(ends)
def test_shares_are_those_of_the_last_end_of_each_run(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, bool, int]]
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    found.sort(key=lambda one: -one[2])
    for run, failed, hours in found:
        end(lake, run, FAILED if failed else PASSED, NOW - hours * HOUR)
    last = {run: failed for run, failed, _ in found}
    count = Counter(last.values())
    expected = {"infer": (count[True] / len(last), len(last))} if last else {}
    assert {stage: it for stage, it in shares(lake).items() if stage == "infer"} == expected
    assert all(0 <= one.value <= 1 for one in rates(at(lake), NOW))


def test_a_run_whose_failed_tasks_were_cleared_and_passed_counts_as_repaired(lake: Lake) -> None:
    """Airflow does not ask what had ended well, so nobody notes the second end."""
    states = {"inputs.land": "success", "inputs.publish": "failed"}
    before = datetime(2020, 1, 1, 6, tzinfo=UTC)
    for run, key in (("run", OLD_DAY), ("other", NEW_DAY)):
        record(CASE, "data_validation", run, key, states, VALIDATION, "validated", before)
    assert shares(lake, before) == {"validate": (1.0, 2)}
    validate_day(CASE, "validated", OLD_DAY)
    assert shares(lake, before) == {"validate": (0.5, 2)}, "whatever the clocks say"


def test_a_record_that_is_damaged_is_passed_over_by_name(
    empty: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    end(empty, "run", PASSED, NOW)
    end(empty, "other", FAILED, NOW)
    folder = empty.partition_path(stages.TABLE, NOW.date().isoformat())
    assert isinstance(folder, Path)
    [bad, _] = sorted(folder.iterdir(), key=lambda path: "true" not in path.read_text())
    text = bad.read_text()
    for content in damaged(text):
        bad.write_text(content)
        assert shares(empty)["infer"] == (0, 1)
        assert str(bad) in caplog.text
        caplog.clear()
    bad.write_text(json.dumps({**json.loads(text), "a newer release": "says more"}))
    assert shares(empty)["infer"] == (0.5, 2)
