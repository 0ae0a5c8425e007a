"""What a partition is, who sees it when, and what is left of it; on a folder and on S3."""

import json
import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import partitions
from include.errors import BadData, DependencyDown, MissingData, Overtaken
from include.inference import fallback, scoring
from include.lake import files, tables
from include.lake.tables import Lake, Manifest, Version
from include.monitoring import history, stages
from include.monitoring.page import health
from include.training import snapshot
from local.in_process import validate_day
from tests.case import CASE
from tests.unit.conftest import NEW_DAY, OLD_DAY
from tests.unit.helpers import Clock, damaged, shown

DAY = "2013-03-01"


def publish(lake: Lake, content: int, key: str = DAY, rows: int = 10) -> Version:
    version = lake.new_version("table", key)
    for part in ("a", "b"):
        version.write_frame(part, pl.DataFrame({"content": [content] * rows}))
    version.publish(["a", "b"], {"content": content})
    return version


def contents(lake: Lake, key: str = DAY) -> set[int]:
    version = lake.current("table", key)
    return {value for part in ("a", "b") for value in version.read(part)["content"].to_list()}


def test_a_version_is_invisible_before_it_is_published(root: str) -> None:
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


def test_a_manifest_has_rows_bytes_hash_and_columns_of_every_part(root: str) -> None:
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
    assert partitions.key_of(str(version)) == DAY
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
    with pytest.raises(BadData, match=f"{path} cannot be read to its end .*CRC checksum"):
        version.read("a")


def test_a_part_whose_writing_fails_never_appears(root: str) -> None:
    version = Lake(root).new_version("table", DAY)
    version.write_frame("a", pl.DataFrame({"content": [1]}))
    before = version.describe("a")
    with pytest.raises(ZeroDivisionError), version.write("a", pa.schema([("x", pa.int8())])):
        _ = 1 / 0
    assert version.describe("a") == before
    assert [path.name for path in files.list_folder(version.path)] == ["a.parquet"]


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


def test_a_replaced_version_can_still_be_read(root: str) -> None:
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
    with pytest.raises(Overtaken, match=f"{slow} is not published: {quick.name} is"):
        slow.publish(["a"])
    assert lake.current("table", DAY).name == quick.name
    assert slow.manifest().parts.keys() == {"a"}, "who has its reference can read it"


def test_the_version_from_newer_inputs_stays_no_matter_which_began_first(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    first, second = lake.new_version("table", DAY), lake.new_version("table", DAY)
    for version in (first, second):
        version.write_frame("a", pl.DataFrame({"content": [1]}))
    first.publish(["a"], made_from="newer inputs")
    with pytest.raises(Overtaken):
        second.publish(["a"], made_from="an older version of the inputs")
    assert lake.current("table", DAY).name == first.name
    second.publish(["a"], made_from="newer inputs")
    assert lake.current("table", DAY).name == second.name


@pytest.mark.parametrize("before", [None, 1])
def test_at_the_same_moment_the_version_from_newer_inputs_wins(
    before: int | None, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(root)
    if before is not None:
        publish(lake, before)
    older, newer = (lake.new_version("table", DAY) for _ in range(2))
    for version in (older, newer):
        version.write_frame("a", pl.DataFrame({"content": [1]}))
    look, others = Version.check_is_newest, []

    def look_and_be_overtaken(version: Version, made_from: str | None = None) -> Manifest | None:
        found = look(version, made_from)
        if version is older and not others:
            others.append(Thread(target=newer.publish, args=(["a"],)))
            others[0].start()
            others[0].join(0.3)  # on S3 it has ended by now; in a folder it waits for the lock
        return found

    monkeypatch.setattr(Version, "check_is_newest", look_and_be_overtaken)
    with suppress(Overtaken):
        older.publish(["a"])
    others[0].join()
    assert lake.current("table", DAY).name == newer.name


def test_a_writer_that_hangs_is_named_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.1)
    lock = tmp_path / "table" / ".lock"
    with files.locked(lock), pytest.raises(DependencyDown, match=f"it holds the lock {lock}"):
        publish(Lake(str(tmp_path)), 1)
    publish(Lake(str(tmp_path)), 1)


# --- Clocks ---------------------------------------------------------------------------------------

SECONDS = st.integers(-(10**9), 10**9)
DAYS = st.integers(-3 * 86_400, 3 * 86_400)
"""Seconds: less than a week apart, after which what is not published is removed."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(tables, "datetime", Clock)
    return Clock


@given(st.lists(SECONDS, min_size=2, max_size=5))
def test_the_last_published_version_is_current_whatever_the_clocks_say(
    tmp_path_factory: pytest.TempPathFactory, clock: type[Clock], clocks: list[int]
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for content, clock.ahead in enumerate(clocks):
        publish(lake, content, rows=1)
        assert contents(lake) == {content}


@given(DAYS, DAYS, st.booleans())
def test_a_run_that_began_first_never_replaces_a_later_one_whatever_the_clocks_say(
    tmp_path_factory: pytest.TempPathFactory,
    clock: type[Clock],
    first: int,
    second: int,
    in_order: bool,
) -> None:
    lake, runs = Lake(str(tmp_path_factory.mktemp("lake"))), []
    for content, clock.ahead in enumerate((first, second)):
        version = lake.new_version("table", DAY)
        version.write_frame("a", pl.DataFrame({"content": [content]}))
        runs.append(version)
    for version in runs if in_order else runs[::-1]:
        with suppress(Overtaken):
            version.publish(["a"])
    assert lake.current("table", DAY).name == runs[1].name


def test_a_later_version_is_found_on_s3_too(s3_root: str, clock: type[Clock]) -> None:
    lake = Lake(s3_root)
    for content, clock.ahead in enumerate((600, 0)):
        publish(lake, content)
    assert contents(lake) == {1}


# --- Manifests ------------------------------------------------------------------------------------


def test_a_damaged_manifest_is_named_and_publishing_the_day_again_replaces_it(
    tmp_path: Path,
) -> None:
    lake = Lake(str(tmp_path))
    publish(lake, 1, rows=1)
    path = tmp_path / "table" / f"date={DAY}" / "current.json"
    good = path.read_text()
    other = json.dumps({**json.loads(good), "key": "2013-03-02"})
    for content in [*damaged(good), other]:
        path.write_text(content)
        with pytest.raises(BadData, match=re.escape(str(path))) as failure:
            lake.manifest("table", DAY)
        assert "each keeps its own manifest.json" in str(failure.value)
    publish(lake, 2, rows=1)
    assert contents(lake) == {2}


@given(st.data())
def test_a_manifest_of_any_content_is_read_or_refused_and_never_a_bug(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    publish(lake, 1, rows=1)
    path = lake.partition_path("table", DAY) / "current.json"
    found = json.loads(files.read_text(path))
    place = data.draw(st.sampled_from([(found, name) for name in found] + [
        (part, name) for part in found["parts"].values() for name in part
    ]))  # fmt: skip
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    place[0][place[1]] = data.draw(st.recursive(leaf, st.lists, max_leaves=3))
    files.put_text(path, json.dumps(found))
    with suppress(BadData):
        assert isinstance(lake.manifest("table", DAY), Manifest)


def test_a_slow_run_is_overtaken_though_the_manifest_is_damaged(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    slow = lake.new_version("table", DAY)
    publish(lake, 2)
    (tmp_path / "table" / f"date={DAY}" / "current.json").write_text("{")
    slow.write_frame("a", pl.DataFrame({"content": [1]}))
    with pytest.raises(Overtaken):
        slow.publish(["a"])


def test_fields_of_a_newer_release_are_ignored(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    publish(lake, 1)
    path = tmp_path / "table" / f"date={DAY}" / "current.json"
    before, found = lake.manifest("table", DAY), json.loads(path.read_text())
    parts = {name: {**part, "unknown": None} for name, part in found["parts"].items()}
    path.write_text(json.dumps({**found, "schema": 2, "parts": parts}))
    assert lake.manifest("table", DAY) == before


def test_one_day_whose_manifest_is_damaged_stops_no_other_day(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    """A whole day's validation and scoring look at many days before it."""
    path = lake.partition_path("validated", "2013-02-10") / "current.json"
    files.put_text(path, "{")
    assert validate_day(CASE, "validated", NEW_DAY)["flights"] > 900
    features = scoring.preprocess(CASE, NEW_DAY)
    assert len(fallback.baselines(CASE, features)) > 900
    assert str(path) in caplog.text
    assert "2013-02-10 is passed over" in caplog.text


# --- What is no partition -------------------------------------------------------------------------

STRANGERS = [
    "date=2013-02-20.bak", "date=__HIVE_DEFAULT_PARTITION__", "date=", "date=2013-2-20",
    "2013-02-20", "date=2013-02-21 copy", "date=9999-12-31", "year=2013", "_delta_log", ".DS_Store",
]  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_a_folder_that_is_not_a_partition_is_skipped_by_all_readers_of_days(
    name: str, lake: Lake
) -> None:
    days = {table: list(lake.published_keys(table)) for table in ("validated", "actuals")}
    for table in (*days, "history", "stage_runs"):
        source = lake.partition_path("validated", OLD_DAY)
        shutil.copytree(str(source), str(lake.root / table / name))
    (lake.root / "actuals" / "date=2013-02-22").write_text("a file")
    assert {table: list(lake.published_keys(table)) for table in days} == days
    assert lake.is_newest("actuals", OLD_DAY)
    assert str(snapshot.newest_day(CASE)) == OLD_DAY
    assert len(fallback.baselines(CASE, scoring.preprocess(CASE, OLD_DAY))) > 900
    assert history.read(CASE, OLD_DAY, 90).is_empty()
    assert stages.rates(CASE, datetime(2013, 2, 21, tzinfo=UTC)) == []
    assert OLD_DAY in {day.key for day in health.look(CASE).partitions}
    assert health.look(CASE).problems == []


def test_a_folder_that_is_not_a_version_is_not_taken_for_a_later_one(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    names = ["20991345T000000.000000-00000000", "99991231T235959.999999-00000000", "backup", "z"]
    for name in names:
        (tmp_path / "table" / f"date={DAY}" / name).mkdir(parents=True)
    assert lake.new_version("table", DAY).name[:4] == str(datetime.now(UTC).year)


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
