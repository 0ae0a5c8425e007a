"""The history: rows are only ever added, nothing twice, and of what changes the newest counts."""

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from include.errors import BadData
from include.lake.tables import Lake
from include.monitoring.history import (
    IDENTITY,
    SCHEMA,
    TABLE,
    Figure,
    append,
    label,
    newest,
    read,
    select,
    to_frame,
)
from include.partitions import days_before
from tests.case import at

KEY = "2013-06-30"
SKILL = Figure("outcomes", "skill", 0.1, 900, "1", {"model": "champion", "slice": "all"})


@pytest.fixture
def empty(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "empty"))


def values(lake: Lake, days: int = 30) -> list[float]:
    """All values, in the order of time."""
    return read(at(lake), KEY, days)["value"].to_list()


def files(lake: Lake, key: str = KEY) -> list[Path]:
    folder = lake.partition_path(TABLE, key)
    assert isinstance(folder, Path)
    return sorted(folder.glob("*.parquet"))


def skill(value: float, n: int = 900) -> Figure:
    return Figure(SKILL.pipeline, SKILL.metric, value, n, SKILL.model_version, SKILL.labels)


# --- Adding ---------------------------------------------------------------------------------------

figure = st.builds(
    Figure,
    pipeline=st.sampled_from(["outcomes", "drift"]),
    metric=st.sampled_from(["psi", "skill"]),
    value=st.floats(width=32),  # NaN and infinities too
    n=st.integers(0, 3),
    model_version=st.sampled_from(["", "1", "2"]),
    labels=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
)


def facts(lake: Lake) -> pl.DataFrame:
    return read(at(lake), KEY, 1).drop("recorded_at").sort(IDENTITY)


@given(st.lists(figure, max_size=12), st.integers(0, 12))
def test_whatever_is_added_twice_or_in_parts_reads_the_same(found: list[Figure], cut: int) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, parts = Lake(one), Lake(other)
        assert append(at(whole), KEY, found) == len(facts(whole))
        assert append(at(whole), KEY, found) == 0
        for some in (found[:cut], found[cut:], found):
            append(at(parts), KEY, some)
        assert_frame_equal(facts(parts), facts(whole))


def test_a_figure_is_read_as_it_was_added(empty: Lake) -> None:
    assert append(at(empty), KEY, [SKILL]) == 1
    [row] = read(at(empty), KEY, 1).rows(named=True)
    labels = '{"model": "champion", "slice": "all"}'
    expected = (date(2013, 6, 30), "outcomes", "1", "skill", labels, 0.1, 900)
    assert tuple(row.values())[:-1] == expected
    assert row["recorded_at"] <= datetime.now(UTC)


def test_the_same_day_twice_adds_nothing_and_writes_nothing(empty: Lake) -> None:
    append(at(empty), KEY, [SKILL])
    before = files(empty)
    assert append(at(empty), KEY, [SKILL]) == 0
    assert files(empty) == before


def test_the_newest_of_changed_figures_counts_and_the_oldest_stays(empty: Lake) -> None:
    for value in (0.1, 0.2, 0.2, 0.1):
        append(at(empty), KEY, [skill(value)])
        assert values(empty) == [value]
    assert [pl.read_parquet(path)["value"].to_list() for path in files(empty)] == [
        [0.1], [0.2], [0.1]
    ]  # fmt: skip


def test_the_same_value_of_more_rows_is_news(empty: Lake) -> None:
    append(at(empty), KEY, [skill(0.1, n=500)])
    assert append(at(empty), KEY, [skill(0.1, n=900)]) == 1
    assert read(at(empty), KEY, 1)["n"].to_list() == [900]


def test_only_what_is_new_is_added(empty: Lake) -> None:
    append(at(empty), KEY, [SKILL])
    assert append(at(empty), KEY, [SKILL, Figure("drift", "psi", 0.3)]) == 1
    assert [len(pl.read_parquet(path)) for path in files(empty)] == [1, 1]


def test_no_figures_are_no_file(empty: Lake) -> None:
    assert append(at(empty), KEY, []) == 0
    assert files(empty) == []


def test_a_figure_that_is_not_a_number_is_the_same_one_again(empty: Lake) -> None:
    nothing = Figure("drift", "psi", float("nan"), 0)
    assert append(at(empty), KEY, [nothing]) == 1
    assert append(at(empty), KEY, [nothing]) == 0


def test_the_order_of_labels_does_not_make_another_figure(empty: Lake) -> None:
    append(at(empty), KEY, [Figure("drift", "psi", 1, 9, "", {"a": "x", "b": "y"})])
    assert append(at(empty), KEY, [Figure("drift", "psi", 1, 9, "", {"b": "y", "a": "x"})]) == 0


def test_the_last_value_of_a_repeated_figure_counts() -> None:
    assert to_frame(KEY, [skill(0.1), skill(0.2)])["value"].to_list() == [0.2]


@pytest.mark.parametrize("years", [1, 100])
def test_figures_added_after_the_clock_went_back_are_still_newer(empty: Lake, years: int) -> None:
    append(at(empty), KEY, [skill(0.1)])
    [path] = files(empty)
    later = datetime.now(UTC) + timedelta(days=365 * years)
    ahead = pl.read_parquet(path).with_columns(recorded_at=pl.lit(later, SCHEMA["recorded_at"]))
    path.unlink()
    ahead.write_parquet(path)
    for value in (0.2, 0.3, 0.2):
        assert append(at(empty), KEY, [skill(value)]) == 1
        assert values(empty) == [value]
    names = [path.name for path in files(empty)]
    assert len(set(names)) == 4, "nothing was replaced"


@pytest.mark.parametrize("key", ["2013-6-30", "", "../x"])
def test_a_key_that_is_not_a_day_has_no_history(key: str, empty: Lake) -> None:
    with pytest.raises(BadData, match="is not a partition"):
        append(at(empty), key, [SKILL])
    assert list(empty.root.rglob("*")) == []


# --- Reading --------------------------------------------------------------------------------------


def test_a_history_with_a_gap_gives_its_days_in_order(empty: Lake) -> None:
    for back in (3, 20, 0, 11):
        append(at(empty), days_before(KEY, back), [skill(back)])
    assert values(empty) == [20, 11, 3, 0]
    assert read(at(empty), KEY, 30)["time"].is_sorted()


@pytest.mark.parametrize(("days", "expected"), [(1, [0]), (3, [0]), (4, [3, 0]), (400, [3, 0])])
def test_only_the_days_that_are_asked_for_are_read(
    days: int, expected: list[float], empty: Lake
) -> None:
    for back in (3, 0, -1):
        append(at(empty), days_before(KEY, back), [skill(back)])
    assert values(empty, days) == expected


def test_without_a_history_there_is_an_empty_table(empty: Lake) -> None:
    found = read(at(empty), KEY, 30)
    assert found.schema == SCHEMA
    assert found.is_empty()
    assert newest(found) is None
    assert select(found, "skill", model="champion").is_empty()


def test_an_unfinished_version_is_not_read(empty: Lake) -> None:
    append(at(empty), KEY, [SKILL])
    [path] = files(empty)
    (path.parent / f".{path.name}.123.abc").write_bytes(path.read_bytes()[:20])
    (path.parent / ".hidden.parquet").write_bytes(b"PAR1")
    assert values(empty) == [0.1]


def test_rows_are_selected_by_metric_and_labels(empty: Lake) -> None:
    psi = [
        Figure("drift", "psi", place, 1, "", {"feature": name}) for place, name in enumerate("ab")
    ]
    append(at(empty), KEY, [SKILL, *psi, Figure("drift", "psi", 9)])
    rows = read(at(empty), KEY, 1)
    assert select(rows, "psi", feature="b")["value"].to_list() == [1]
    assert sorted(select(rows, "psi")["value"]) == [0, 1, 9]
    assert select(rows, "psi", feature="b", kind="stable").is_empty()
    assert newest(select(rows, "psi")) == date(2013, 6, 30)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_label_is_found_again_whatever_it_says(value: str) -> None:
    rows = to_frame(KEY, [Figure("drift", "psi", 1, 1, "", {"category": value})])
    assert rows.select(label("category")).item() == value
    assert len(select(rows, "psi", category=value)) == 1


def test_the_history_can_be_in_any_place(root: str) -> None:
    lake = Lake(root)
    assert append(at(lake), KEY, [skill(0.1)]) == 1
    append(at(lake), days_before(KEY, 2), [skill(0.2)])
    assert append(at(lake), KEY, [skill(0.1)]) == 0
    append(at(lake), KEY, [skill(0.3)])
    assert values(lake) == [0.2, 0.3]


def test_a_reader_gets_the_readable_files_and_the_names_of_the_others(
    empty: Lake,
) -> None:
    append(at(empty), KEY, [skill(0.1)])
    append(at(empty), days_before(KEY, 1), [skill(0.2)])
    [file] = files(empty)
    file.write_bytes(file.read_bytes()[:-1])
    unreadable: list[str] = []
    assert read(at(empty), KEY, 2, unreadable)["value"].to_list() == [0.2]
    [told] = unreadable
    assert str(file) in told
    with pytest.raises(BadData, match=file.name):
        values(empty)
