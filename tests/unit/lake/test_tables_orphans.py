"""What killed writers leave is removed once it is old, and nothing else ever is."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.errors import Overtaken
from include.housekeeping.retention import leftovers
from include.housekeeping.versions import days_of
from include.lake import files, tables
from include.lake.files import ORPHANED_AFTER, list_folder, put_text, walk
from include.lake.tables import Lake, Version, version_name
from tests.unit import children
from tests.unit.helpers import Clock

DAY = "2013-03-01"
OLD = ORPHANED_AFTER + timedelta(hours=1)


def clean(lake: Lake) -> list[str]:
    """Remove what `housekeeping` finds in a lake of killed writers. Returns what was removed."""
    there = list(walk(lake.root))
    found = list(leftovers(days_of(lake.root, there), there))
    for one in found:
        one.remove()
    return [one.what for one in found]


def begin(lake: Lake, age: timedelta, table: str = "table", changed: timedelta = OLD) -> Version:
    """A version that was begun a while ago, and last written to."""
    version = Version(lake, table, DAY, version_name(datetime.now(UTC) - age))
    version.write_frame("a", pl.DataFrame({"x": [1]}))
    age_folder(version.path, changed)
    return version


def age_folder(folder: object, age: timedelta) -> None:
    """Make a folder and all that is in it look as if nobody had written to it for a while."""
    assert isinstance(folder, Path)
    then = (datetime.now(UTC) - age).timestamp()
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is more than a week later."""
    monkeypatch.setattr(Clock, "ahead", OLD.total_seconds())
    monkeypatch.setattr(tables, "datetime", Clock)
    monkeypatch.setattr(files, "datetime", Clock)


def test_the_next_writer_of_a_day_removes_an_old_version_that_was_never_published(
    tmp_path: Path,
) -> None:
    lake = Lake(str(tmp_path))
    old = begin(lake, OLD)
    lake.new_version("table", "2013-03-02")
    assert list_folder(old.path), "of another day it is not found"
    lake.new_version("table", DAY)
    assert not old.path.exists()


@pytest.mark.parametrize(
    ("age", "changed"),
    [(timedelta(0), OLD), (timedelta(days=6, hours=23), OLD), (OLD, timedelta(days=6))],
    ids=["begun now", "begun this week", "written to this week"],
)
def test_a_version_whose_writer_may_live_is_never_removed(
    age: timedelta, changed: timedelta, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    young = begin(lake, age, changed=changed)
    lake.new_version("table", DAY)
    assert clean(lake) == []
    young.publish(["a"])
    assert lake.current("table", DAY).read("a")["x"].to_list() == [1]


def test_a_published_version_is_never_removed(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    replaced, overtaken, current = (begin(lake, OLD + timedelta(n)) for n in (1, 2, 0))
    for version in (replaced, current, overtaken):
        with suppress(Overtaken):
            version.publish(["a"])
    age_folder(tmp_path, OLD)
    lake.new_version("table", DAY)
    assert clean(lake) == []
    assert all(version.read("a")["x"].to_list() == [1] for version in (replaced, overtaken))


@pytest.mark.parametrize("name", ["backup", "20130301T000000.000000-0000000x", "date=2013-03-01"])
def test_what_is_not_a_version_is_never_removed(name: str, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    folder = tmp_path / "table" / f"date={DAY}" / name
    put_text(folder / "note.txt", "mine")
    age_folder(tmp_path, OLD)
    lake.new_version("table", DAY)
    assert clean(lake) == []
    assert (folder / "note.txt").exists()


def test_nothing_is_removed_while_it_is_not_known_what_is_published(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    old = begin(lake, OLD)
    put_text(tmp_path / "table" / f"date={DAY}" / "current.json", "{")
    assert clean(lake) == []
    assert list_folder(old.path)


def test_cleaning_finds_them_in_every_table_and_half_written_files_everywhere(
    tmp_path: Path,
) -> None:
    lake = Lake(str(tmp_path))
    orphans = [begin(lake, OLD, table) for table in ("training", "quarantine/validated")]
    folders = ["landing/flights", f"history/date={DAY}", f"scores/date={DAY}/chunks"]
    scratch = [tmp_path / folder / ".x.parquet.4711.ab12cd34" for folder in folders]
    mine = [tmp_path / "landing/flights" / name for name in (".DS_Store", ".x.1", "x.parquet")]
    for path in (*scratch, *mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("PAR1")
    assert clean(lake) == [str(orphan.path) for orphan in orphans], "files are young"
    age_folder(tmp_path, OLD)
    assert sorted(clean(lake)) == sorted(map(str, scratch))
    assert all(path.exists() for path in mine)


def test_the_next_writer_into_a_folder_removes_old_half_written_files(tmp_path: Path) -> None:
    old, young = (tmp_path / f".x.json.{n}.ab12cd34" for n in (1, 2))
    old.write_text("{")
    age_folder(tmp_path, OLD)
    young.write_text("{")
    put_text(tmp_path / "x.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "x.json"]


def test_what_cannot_be_removed_does_not_stop_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake(str(tmp_path))
    old = begin(lake, OLD)
    monkeypatch.setattr(tables, "remove_folder", lambda _: 1 / 0)
    lake.new_version("table", DAY)
    assert f"{old.path} was begun" in caplog.text


@pytest.mark.usefixtures("later")
def test_an_old_version_on_s3_is_removed_too(s3_root: str) -> None:
    lake = Lake(s3_root)
    old = begin_on_s3(lake, timedelta(0))
    published = begin_on_s3(lake, timedelta(0))
    published.publish(["a"])
    young = begin_on_s3(lake, -OLD)
    assert clean(lake) == [str(old.path)]
    names = {path.name for path in list_folder(old.path.parent)}
    assert names == {published.name, young.name, "current.json"}


def begin_on_s3(lake: Lake, age: timedelta) -> Version:
    version = Version(lake, "table", DAY, version_name(datetime.now(UTC) - age))
    version.write_frame("a", pl.DataFrame({"x": [1]}))
    return version


@pytest.mark.exhaustive
@pytest.mark.usefixtures("later")
def test_nothing_is_left_of_writers_that_were_killed_at_any_step(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    root = str(tmp_path / "lake")
    lake, functions = Lake(root), {"atomic_file", "publish"}
    for step in range(1, 200):
        child = start(children.write_until_step, {}, root, step, step, functions)
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert step > 50
    children.write_version(lake, 0)
    clean(lake)
    versions = [path for path in list_folder(lake.partition_path("table", DAY)) if path.is_dir()]
    left = {file.name for version in versions for file in list_folder(version)}
    assert left == {"first.parquet", "second.parquet", "manifest.json"}
    assert children.content(lake) == 0
    assert [path.name for path in tmp_path.rglob(".*")] == [".lock"]
