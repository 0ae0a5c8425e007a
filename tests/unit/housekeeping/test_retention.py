"""Housekeeping deletes what is old of each kind, and never what anything needs."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from include.errors import DependencyDown, MissingData
from include.housekeeping import retention
from include.inference import delivery
from include.lake import files, tables
from include.lake.files import blames, list_folder, put_text, walk
from include.lake.tables import Lake, Version, remove_version
from include.messages import Housekept, Tally
from include.registry import unused
from include.training import snapshot
from tests.case import CASE, at
from tests.unit import children
from tests.unit.conftest import OLD_DAY, History, copy_lake
from tests.unit.helpers import Clock, infer
from tests.unit.housekeeping.published import DAY, age, is_whole, publish

KINDS = [
    "replaced_versions", "leftovers", "quarantine", "chunk_scores", "delivered_files", "logs",
    "mlflow_runs",
]  # fmt: skip


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Airflow's folder of logs."""
    return tmp_path / "logs"


@pytest.fixture
def old(own_registry: Path, logs: Path) -> dict[str, Any]:
    """Something of each kind that is old enough to be deleted."""
    lake = CASE.lake
    made: dict[str, Any] = {"replaced_versions": publish(lake, days=100)}
    publish(lake, days=99)
    publish(lake, days=98)
    made["quarantine"] = publish(lake, "quarantine/validated", days=100)
    made["leftovers"] = lake.version(f"left/{DAY}/20130301T000000.000000-0123abcd")
    made["leftovers"].write_frame("a", pl.DataFrame({"x": [1]}))
    age(made["leftovers"].path, 100)
    for kind, path in {
        "chunk_scores": lake.partition_path("scores", DAY) / "chunks" / "1.parquet",
        "logs": logs / f"dag_id={CASE.name}.delivery" / "run_id=old" / "task_id=x" / "1.log",
    }.items():
        put_text(path, "content")
        age(path.parent, 100)
        made[kind] = path
    age(made["logs"].parent.parent, 100)
    return made


def keep_house(logs: Path, *open_dags: str, dry_run: bool = False) -> Housekept:
    return retention.keep_house(CASE, open_dags, logs, dry_run)


def there(logs: Path) -> set[str]:
    """All files of the lake and all logs, but for reports."""
    found = [*walk(CASE.lake.root), *walk(logs)]
    return {str(one.path) for one in found if one.path.is_file() and one.path.suffix != ".md"}


def gone(old: dict[str, Any]) -> set[str]:
    """The kinds of which nothing is left."""
    places = {
        kind: Path(str(one.path if isinstance(one, Version) else one)) for kind, one in old.items()
    }
    return {kind for kind, place in places.items() if not place.exists()}


def test_what_is_old_is_deleted_of_each_kind_and_the_result_says_how_much(
    old: dict[str, Any], logs: Path
) -> None:
    before = there(logs)
    size = sum(one.bytes for one in walk(old["replaced_versions"].path))
    told = keep_house(logs)
    assert list(told.deleted) == KINDS
    assert {kind for kind, tally in told.deleted.items() if tally.things} == {*old}
    assert told.deleted["replaced_versions"].bytes == size
    assert (told.dry_run, told.stays) == (False, [])
    assert gone(old) == {*old}
    assert len(before - there(logs)) == 2 + 1 + 3 + 1 + 1
    assert list_folder(CASE.lake.partition_path("quarantine/validated", DAY)) == []
    again = keep_house(logs)
    assert sum(tally.things for tally in again.deleted.values()) == 0


def test_a_dry_run_deletes_nothing_and_says_what_it_would_delete(
    old: dict[str, Any], logs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = there(logs)
    told = keep_house(logs, dry_run=True)
    assert there(logs) == before
    page = Path(told.report).read_text()
    assert "A dry run: nothing was deleted." in page
    for kind, one in old.items():
        path = one.path if isinstance(one, Version) else one.parent
        assert f"- {path.parent if kind == 'logs' else path}, " in page
        assert f"| {kind} | 1 |" in caplog.text
    assert keep_house(logs).deleted == told.deleted


def test_while_a_run_is_open_all_that_it_may_refer_to_stays(
    old: dict[str, Any], logs: Path
) -> None:
    told = keep_house(logs, CASE.dag_id("delivery"))
    assert gone(old) == {"leftovers", "quarantine"}
    assert f"Runs of {CASE.dag_id('delivery')} are not over." in told.stays[0]
    keep_house(logs, CASE.dag_id("batch_inference"))
    assert gone(old) == {"leftovers", "quarantine", "logs"}
    keep_house(logs)
    assert gone(old) == {*old}


def test_what_is_young_stays(logs: Path, own_registry: Path) -> None:
    lake = CASE.lake
    for days in (12, 11, 10):
        publish(lake, days=days)
    young = publish(lake, "quarantine/validated", days=80)
    scores = lake.partition_path("scores", DAY) / "chunks"
    for name, days in (("1.parquet", 100), ("2.parquet", 20)):
        put_text(scores / name, "content")
        age(Path(str(scores / name)), days)
    run = logs / f"dag_id={CASE.name}.delivery" / "run_id=long"
    for name, days in (("1.log", 100), ("2.log", 20)):
        put_text(run / name, "content")
        age(run / name, days)
    assert sum(tally.things for tally in keep_house(logs).deleted.values()) == 0
    assert is_whole(young)


def test_each_kind_has_its_own_age(
    old: dict[str, Any], logs: Path, configure: Callable[..., None]
) -> None:
    ages = {
        "replaced_versions": "keep_replaced_days", "quarantine": "keep_quarantine_days",
        "chunk_scores": "keep_scores_days", "logs": "keep_logs_days",
    }  # fmt: skip
    configure(**dict.fromkeys(ages.values(), 365))
    deleted = {"leftovers"}
    for kind, setting in ages.items():
        keep_house(logs)
        assert gone(old) == deleted
        configure(**{setting: 90})
        deleted.add(kind)
    keep_house(logs)
    assert gone(old) == {*old}


def test_other_use_cases_and_airflows_own_logs_stay(own_registry: Path, logs: Path) -> None:
    others = [
        logs / f"dag_id={CASE.name}_2.delivery" / "run_id=x" / "1.log",
        logs / "dag_processor" / "2013-03-01" / "x.log",
        logs / f"dag_id={CASE.name}.delivery" / "note.txt",
    ]
    for path in others:
        put_text(path, "content")
    age(logs, 1000)
    keep_house(logs)
    assert all(path.exists() for path in others)


def test_the_lake_of_a_champion_loses_nothing_that_is_needed_even_years_later(
    lake: Lake, own_registry: Path, logs: Path, history: History
) -> None:
    for _ in range(3):
        publish(lake, "training", lake.version(history.snapshot).key)
    age(Path(str(lake.root)), 1000)
    told = keep_house(logs)
    assert {kind for kind, tally in told.deleted.items() if tally.things} == {
        "quarantine",
        "replaced_versions",  # of which nothing names the evaluation and one of the snapshots
    }
    assert told.deleted["replaced_versions"].things == 2
    assert len(list(lake.published_keys("validated"))) == 20
    for key in lake.published_keys("actuals"):
        for table in ("validated", "actuals"):
            version = lake.current(table, key)
            manifest = version.manifest()
            assert {part: version.describe(part) for part in manifest.parts} == manifest.parts
    assert take_again(lake, history.snapshot)


def take_again(lake: Lake, reference: str) -> bool:
    """Whether a snapshot and all days that it was made of are as they were published."""
    snapshot.verify(at(lake), reference)
    sources = lake.version(reference).manifest().metadata["sources"].values()
    versions = [lake.version(source["version"]) for day in sources for source in day]
    return all(
        version.describe(part).sha256 == promised.sha256
        for version in versions
        for part, promised in version.manifest().parts.items()
    )


def test_replaced_files_of_a_delivered_delta_table_are_deleted(
    lake: Lake, own_registry: Path, logs: Path, history: History
) -> None:
    infer(lake, OLD_DAY, history.champion)
    [destination] = CASE.destinations
    for _ in range(2):
        delivery.deliver(CASE, destination.name, OLD_DAY)
    rows = pl.read_delta(f"{lake.root}/delta/predictions")
    assert keep_house(logs).deleted["delivered_files"].things == 0
    table = Path(f"{lake.root}/delta/predictions")
    age_commits(table)
    [replaced, _] = sorted(table.rglob("*.parquet"), key=lambda path: path.stat().st_mtime)
    size = replaced.stat().st_size
    assert keep_house(logs, dry_run=True).deleted["delivered_files"] == Tally(1, size)
    assert replaced.exists()
    assert keep_house(logs).deleted["delivered_files"] == Tally(1, size)
    assert not replaced.exists()
    assert pl.read_delta(f"{lake.root}/delta/predictions").equals(rows)


def age_commits(table: Path) -> None:
    """Have the commits of a Delta table say that they were made 100 days ago."""
    for path in table.glob("_delta_log/*.json"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "remove" in line:
                line["remove"]["deletionTimestamp"] -= 100 * 86_400_000
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_what_cannot_be_deleted_fails_the_run_after_all_else_is_deleted(
    old: dict[str, Any], logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError("it is mounted")

    monkeypatch.setattr(retention, "remove_version", refuse)
    with pytest.raises(DependencyDown, match=r"2 things could not be deleted.*it is mounted"):
        keep_house(logs)
    assert gone(old) == {*old} - {"replaced_versions", "quarantine"}


def test_a_version_whose_removal_was_interrupted_is_a_leftover(
    old: dict[str, Any], logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tables, "remove_folder", interrupted)
        with pytest.raises(KeyboardInterrupt):
            keep_house(logs)
    assert not (old["replaced_versions"].path / "manifest.json").exists()
    assert is_whole(CASE.lake.current("table", DAY))
    folder = Path(str(old["replaced_versions"].path))
    older = folder.rename(folder.with_name(f"20130301T000000.000000-{folder.name[-8:]}"))
    age(older, 100)
    assert keep_house(logs).deleted["leftovers"].things == 2
    assert not older.exists()


@pytest.mark.exhaustive
def test_killed_at_any_removal_it_leaves_a_whole_lake(
    old: dict[str, Any], tmp_path: Path, start: Callable[..., Any]
) -> None:
    environment = {name: os.environ[name] for name in ("ML_DATA_DIR", "MLFLOW_TRACKING_URI")}
    lake, saved = CASE.lake, tmp_path / "saved"
    copy_lake(Path(str(lake.root)), saved)
    for number in count(1):
        child = start(children.keep_house_until_removal, environment, number)
        child.join()
        assert is_whole(lake.current("table", DAY))
        manifest = lake.manifest("quarantine/validated", DAY)
        assert manifest is None or is_whole(lake.current("quarantine/validated", DAY))
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        shutil.rmtree(str(lake.root))
        copy_lake(saved, Path(str(lake.root)))
    assert number > 8
    assert gone(old) == {*old} - {"logs"}


def test_on_s3_it_deletes_the_same_and_the_current_versions_stay_whole(
    s3_root: str, own_registry: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(s3_root)
    replaced, *kept = [publish(lake) for _ in range(3)]
    quarantined = publish(lake, "quarantine/validated")
    left = lake.new_version("left", DAY)
    left.write_frame("a", pl.DataFrame({"x": [1]}))
    put_text(lake.partition_path("scores", DAY) / "chunks" / "1.parquet", "content")
    monkeypatch.setattr(Clock, "ahead", timedelta(days=200).total_seconds())
    for module in (retention, tables, files):
        monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(unused, "unused_runs", lambda *_: [])
    case = at(lake)
    dry = retention.keep_house(case, [], logs, dry_run=True)
    assert {kind for kind, tally in dry.deleted.items() if tally.bytes} == {
        "replaced_versions", "leftovers", "quarantine", "chunk_scores"
    }  # fmt: skip
    assert is_whole(replaced)
    assert retention.keep_house(case, [], logs, dry_run=False).deleted == dry.deleted
    for version in (replaced, quarantined, left):
        assert list_folder(version.path) == []
    assert all(map(is_whole, [*kept, lake.current("table", DAY)]))
    again = retention.keep_house(case, [], logs, dry_run=False)
    assert sum(tally.things for tally in again.deleted.values()) == 0


def test_a_reader_on_s3_whose_version_is_removed_is_told(s3_root: str) -> None:
    version = Lake(s3_root).new_version("table", DAY)
    rows = pl.DataFrame({"x": np.random.default_rng(7).random(3_000_000)})
    version.write_frame("a", rows, row_group_rows=500_000)  # 24 MB: more than is read ahead
    version.publish(["a"])
    with version.parquet("a") as opened:
        assert opened.read_row_group(0).num_rows == 500_000
        remove_version(version.path)
        with (
            pytest.raises(MissingData, match="was removed while it was read"),
            blames(version.path),
        ):
            opened.read_row_group(5)
    with pytest.raises(MissingData, match="housekeeping"):
        version.read("a")
