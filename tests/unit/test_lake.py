"""What a partition is, who sees it when, and what is left of it; on a folder and on S3."""

import json
import os
import socket
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import lake as lake_module
from include.errors import BadData, MissingData
from include.lake import Lake, Manifest, Version
from tests.unit.helpers import replace, shown

DAY = "2013-03-01"
NO_DATES = [
    None, "", "2013-3-1", "20130301", "2013-W09-5", "2013-02-30", "2013-03-01T00:00", " 2013-03-01",
    "2013-03-01\n", "../x", "2013-03-01/../2013-03-02", "date=2013-03-01", "yesterday", 20130301,
    date(2013, 3, 1),
]  # fmt: skip
ENDS = ["0001-01-01", "0010-12-31", "9990-01-01", "9999-12-31"]
"""Dates without room for the days before and after them."""

SOME_DAYS = st.dates(date.min + lake_module.ROOM, date.max - lake_module.ROOM)


def publish(lake: Lake, content: int, key: str = DAY, rows: int = 10) -> Version:
    version = lake.new_version("table", key)
    for part in ("a", "b"):
        version.write_frame(part, pl.DataFrame({"content": [content] * rows}))
    version.publish(["a", "b"], {"content": content})
    return version


def contents(lake: Lake, key: str = DAY) -> set[int]:
    version = lake.current("table", key)
    return {value for part in ("a", "b") for value in version.read(part)["content"].to_list()}


@pytest.mark.parametrize("key", [*NO_DATES, *ENDS])
def test_a_key_that_is_no_partition_is_refused_by_name(key: str, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for use in (lake_module.parse_key, lambda key: lake.manifest("table", key)):
        with pytest.raises(BadData) as failure:
            use(key)
        assert repr(key) in str(failure.value)
    with pytest.raises(BadData):
        lake.new_version("table", key)
    assert list(tmp_path.iterdir()) == []


@given(SOME_DAYS)
def test_a_key_is_the_day_it_names(day: date) -> None:
    assert lake_module.parse_key(day.isoformat()) == day


@given(SOME_DAYS, st.integers(0, 3000))
def test_days_before_a_key_are_counted_back(day: date, days: int) -> None:
    assert lake_module.days_before(day.isoformat(), days) == (day - timedelta(days)).isoformat()


def test_nobody_sees_a_version_before_it_is_published(root: str) -> None:
    lake = Lake(root)
    version = lake.new_version("table", DAY)
    version.write_frame("a", pl.DataFrame({"content": [1]}))
    assert lake.manifest("table", DAY) is None
    assert list(lake.published_keys("table")) == []
    with pytest.raises(MissingData, match=rf"'table' has no published partition {DAY} under .*"):
        lake.current("table", DAY)
    with pytest.raises(MissingData, match=version.name):
        version.manifest()


def test_a_version_replaces_the_one_before_whole(root: str) -> None:
    lake = Lake(root)
    old, new = publish(lake, 1), publish(lake, 2)
    assert lake.current("table", DAY).name == new.name
    assert contents(lake) == {2}
    assert old.read("a")["content"].to_list() == [1] * 10
    assert old.manifest().metadata == {"content": 1}


def test_a_manifest_tells_rows_bytes_hash_and_columns_of_every_part(root: str) -> None:
    lake = Lake(root)
    publish(lake, 1)
    parts = shown(lake, "table", DAY)
    assert parts is not None
    assert {(part.rows, tuple(part.columns)) for part in parts.values()} == {(10, ("content",))}


def test_a_reference_leads_back_to_its_version(root: str) -> None:
    lake = Lake(root)
    version = publish(lake, 1)
    again = lake.version(str(version))
    assert (again.table, again.key, again.path) == (version.table, version.key, version.path)
    assert lake_module.key_of(str(version)) == DAY
    nested = Version(lake, "quarantine/table", DAY, version.name)
    assert lake.version(str(nested)).table == "quarantine/table"


def test_published_keys_are_listed_newest_first(root: str) -> None:
    lake = Lake(root)
    for key in ("2013-03-02", "2012-12-31", "2013-03-01"):
        publish(lake, 1, key)
    lake.new_version("table", "2013-03-03").write_frame("a", pl.DataFrame({"content": [1]}))
    assert list(lake.published_keys("table")) == ["2013-03-02", "2013-03-01", "2012-12-31"]
    assert list(lake.published_keys("no such table")) == []


def test_a_part_is_read_by_column(root: str) -> None:
    version = Lake(root).new_version("table", DAY)
    version.write_frame("a", pl.DataFrame({"x": [1, 2], "y": ["é", "日本"]}))
    assert version.read("a", ["y"]).to_dict(as_series=False) == {"y": ["é", "日本"]}


def test_a_part_that_is_not_there_is_missing_by_path(root: str) -> None:
    version = Lake(root).new_version("table", DAY)
    with pytest.raises(MissingData, match=rf"table/date={DAY}/{version.name}/a\.parquet"):
        version.read("a")


def test_every_page_of_a_part_has_a_checksum(tmp_path: Path) -> None:
    version = Lake(str(tmp_path)).new_version("table", DAY)
    version.write_frame("a", pl.DataFrame({"x": np.random.default_rng(7).random(1000)}))
    path = version.part_path("a")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC checksum"):
        version.read("a")


def test_a_part_whose_writing_fails_never_appears(root: str) -> None:
    version = Lake(root).new_version("table", DAY)
    version.write_frame("a", pl.DataFrame({"content": [1]}))
    before = version.describe("a")
    with pytest.raises(ZeroDivisionError), version.write("a", pa.schema([("x", pa.int8())])):
        _ = 1 / 0
    assert version.describe("a") == before
    assert [path.name for path in lake_module.list_folder(version.path)] == ["a.parquet"]


def test_a_text_is_written_and_replaced_whole(root: str) -> None:
    path = Lake(root).root / "folder" / "note.txt"
    for text in ("first", "zweite Ausgabe: größer"):
        lake_module.put_text(path, text)
        assert lake_module.read_text(path) == text
    assert [found.name for found in lake_module.list_folder(path.parent)] == ["note.txt"]


def test_scratch_files_of_killed_writers_do_no_harm(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    version = publish(lake, 1)
    for folder in (version.path, version.path.parent, version.path.parent.parent):
        assert isinstance(folder, Path)
        (folder / ".current.json.4711.ab12cd34").write_text("{")
        (folder / ".a.parquet.4711.ab12cd34").write_bytes(b"PAR1")
    assert list(lake.published_keys("table")) == [DAY]
    assert contents(lake) == {1}
    publish(lake, 2)
    assert contents(lake) == {2}


def test_what_was_replaced_can_still_be_read(root: str) -> None:
    lake = Lake(root)
    publish(lake, 1)
    reader = lake.current("table", DAY)
    publish(lake, 2)
    assert reader.read("a")["content"].unique().to_list() == [1]
    assert contents(lake) == {2}


def test_a_run_that_was_overtaken_changes_nothing(root: str) -> None:
    lake = Lake(root)
    slow = lake.new_version("table", DAY)
    quick = publish(lake, 2)
    slow.write_frame("a", pl.DataFrame({"content": [1]}))
    current = slow.publish(["a"])
    assert current.version == quick.name
    assert lake.current("table", DAY).name == quick.name


def test_what_is_made_from_newer_inputs_stays_whoever_began_first(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    first, second = lake.new_version("table", DAY), lake.new_version("table", DAY)
    for version in (first, second):
        version.write_frame("a", pl.DataFrame({"content": [1]}))
    first.publish(["a"], made_from="newer inputs")
    second.publish(["a"], made_from="an older version of the inputs")
    assert lake.current("table", DAY).name == first.name
    second.publish(["a"], made_from="newer inputs")
    assert lake.current("table", DAY).name == second.name


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "size is 0 bytes"),
        (b"PAR1", "smaller than"),
        (b"a,b\n1,2\n" * 10, "magic bytes not found"),
        (b"PAR1" + b"\xff" * 100 + b"\x40\x00\x00\x00PAR1", "thrift"),
    ],
)
def test_what_is_no_parquet_is_bad_data_by_path_and_reason(
    content: bytes, reason: str, root: str
) -> None:
    path = Lake(root).root / "landing" / "flights" / f"{DAY}.parquet"
    with lake_module.atomic_file(path) as scratch:
        scratch.write_bytes(content)
    with pytest.raises(BadData) as failure:
        lake_module.open_parquet(path)
    assert str(path) in str(failure.value)
    assert reason in str(failure.value)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a directory": lambda path: path.mkdir(),
    "a named pipe": os.mkfifo,
    "a character device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_regular_file_is_refused_at_once_by_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket is at most a hundred bytes long
    NO_FILES[kind](Path("x.parquet"))
    path = tmp_path / "x.parquet"
    for read in (lake_module.open_parquet, lake_module.read_text):
        with pytest.raises(BadData, match=f"{path} is {kind}, not a file"):
            read(path)


def test_a_link_to_a_file_is_read_as_the_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("content")
    (tmp_path / "link").symlink_to("text")
    assert lake_module.read_text(tmp_path / "link") == "content"


def test_a_manifest_is_what_was_published(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    version = publish(lake, 1)
    manifest = lake.manifest("table", DAY)
    assert isinstance(manifest, Manifest)
    assert manifest == version.manifest()
    assert (manifest.table, manifest.key, manifest.version) == ("table", DAY, version.name)
    assert datetime.fromisoformat(manifest.published_at).tzinfo is not None
    assert json.loads((version.path.parent / "current.json").read_text())["metadata"] == {
        "content": 1
    }


def test_a_file_of_another_lake_is_not_changed_by_replacing_it(tmp_path: Path) -> None:
    """The tests copy lakes by hard links: this is why they may."""
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    lake_module.put_text(first, "old")
    second.hardlink_to(first)
    lake_module.put_text(first, "new")
    replace(second, b"other")
    assert (first.read_text(), second.read_text()) == ("new", "other")
