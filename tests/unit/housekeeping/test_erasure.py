"""Erased rows are nowhere any more, and everything else is as it was."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from include.destinations import DeltaTable, SqlTable
from include.errors import BadData, DependencyDown, MissingData
from include.housekeeping import erasure
from include.inference import delivery, delta_table
from include.lake.files import open_parquet, walk
from include.lake.tables import Lake, Version
from include.registry import registry
from include.statistics import profiles
from include.training import snapshot
from local.in_process import batch_inference
from tests.case import CASE, at
from tests.unit import children
from tests.unit.conftest import OLD_DAY, History, copy_lake
from tests.unit.deliveries import delta_of, sql_rows
from tests.unit.helpers import infer, landed

BEFORE_SCORING = {
    "landing/flights", "landing/actuals", "validated", "quarantine/validated", "actuals",
}  # fmt: skip


def keys_file(folder: Path, *rows: Any) -> str:
    file = folder / "keys.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def find_files(folder: Any, ending: str) -> list[Any]:
    found = [one.path for one in walk(folder) if one.path.name.endswith(ending)]
    return [path for path in found if path.is_file()]


@pytest.fixture
def plane(lake: Lake) -> str:
    """The tail number that most rows of the day have; it is not in the key of a row."""
    counts = (
        pl.read_parquet(landed(lake, "flights", OLD_DAY))["tailnum"].drop_nulls().value_counts()
    )
    return str(counts.sort("count", "tailnum")["tailnum"][-1])


def keys_of(lake: Lake, plane: str) -> pl.DataFrame:
    files = find_files(lake.root / "landing" / "flights", ".parquet")
    rows = pl.concat([pl.read_parquet(file) for file in files])
    return rows.filter(pl.col("tailnum") == plane).select(CASE.key)


def remaining(lake: Lake, keys: pl.DataFrame) -> list[str]:
    """Files of the lake that still have a row with one of the keys."""
    left = []
    for file in find_files(lake.root, ".parquet"):
        rows = pl.read_parquet(file)
        if set(CASE.key) <= set(rows.columns):
            same = rows.select(pl.col(name).cast(keys.schema[name]) for name in CASE.key)
            if len(same.join(keys, on=CASE.key, how="semi")):
                left.append(str(file))
    return left


def contents(lake: Lake) -> dict[str, bytes]:
    found = find_files(lake.root, "")
    return {str(path): path.read_bytes() for path in found if path.parent.name != "erasures"}


def test_the_rows_of_a_plane_are_nowhere_any_more_and_the_others_are_as_before(
    lake: Lake, history: History, plane: str, tmp_path: Path, sqlite: str
) -> None:
    destinations = [DeltaTable(), SqlTable("sql", sqlite, "scores")]
    case = replace(CASE, destinations=destinations)
    batch_inference(case, OLD_DAY, history.champion)
    for one in destinations:
        delivery.deliver(case, one.name, OLD_DAY)
    everyone = [history.champion, *registry.members(case, history.champion).values()]
    keys = keys_of(lake, plane)
    here = keys.filter(pl.col("date") == pl.lit(OLD_DAY).str.to_date())
    before = lake.current("predictions", OLD_DAY).read("predictions")
    assert remaining(lake, keys)

    erased = erasure.erase(case, keys_file(tmp_path, {"tailnum": plane}), [], dry_run=False)
    assert (erased.state, erased.columns, erased.keys) == ("erased", ["tailnum"], 1)
    assert erased.rows["landing/flights"] == len(keys)
    assert erased.rows["predictions"] == len(here) > 0
    assert erased.delivered == {"delta": len(here), "sql": len(here)}
    assert erased.models == sorted(map(str, everyone))
    assert json.loads(Path(erased.record).read_text())["rows"] == erased.rows

    assert remaining(lake, keys) == []
    after = lake.current("predictions", OLD_DAY).read("predictions")
    assert after.equals(before.join(here, on=CASE.key, how="anti", maintain_order="left"))
    for rows in (pl.read_delta(delta_of(case)), pl.DataFrame(sql_rows(sqlite))):
        assert sorted(rows["flight"]) == sorted(after["flight"])
    assert snapshot.verify(case, history.snapshot) == history.snapshot
    assert infer(lake, OLD_DAY, history.champion).select(CASE.key).equals(after.select(CASE.key))
    again = erasure.erase(case, keys_file(tmp_path, {"tailnum": plane}), [], dry_run=False)
    assert (again.rows, again.models) == ({}, [])


def test_a_retry_still_finds_the_rows_of_a_destination_that_was_down(
    lake: Lake, history: History, plane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(CASE, destinations=[DeltaTable()])
    batch_inference(case, OLD_DAY, history.champion)
    delivery.deliver(case, "delta", OLD_DAY)
    keys, file = keys_of(lake, plane), keys_file(tmp_path, {"tailnum": plane})
    count = erasure.erase(case, file, [], dry_run=True).delivered["delta"]

    def down(*_: object) -> int:
        raise DependencyDown("down")

    delete_rows = delta_table.delete_rows
    with monkeypatch.context() as patch:
        patch.setattr(delta_table, "delete_rows", lambda *on: delete_rows(*on) if on[3] else down())
        with pytest.raises(DependencyDown):
            erasure.erase(case, file, [], dry_run=False)
    assert erasure.erase(case, file, [], dry_run=False).delivered == {"delta": count}
    assert count
    assert remaining(lake, keys) == []
    assert len(pl.read_delta(delta_of(case))) == len(
        lake.current("predictions", OLD_DAY).read("predictions")
    )


def test_the_old_files_of_a_delta_table_go_too(
    lake: Lake, history: History, plane: str, tmp_path: Path
) -> None:
    case = replace(CASE, destinations=[DeltaTable()])
    batch_inference(case, OLD_DAY, history.champion)
    delivery.deliver(case, "delta", OLD_DAY)
    erasure.erase(case, keys_file(tmp_path, {"tailnum": plane}), [], dry_run=False)
    there = [Path(file).name for file in delta_of(case).file_uris()]
    assert sorted(path.name for path in find_files(lake.root / "delta", ".parquet")) == sorted(
        there
    )


def test_a_dry_run_counts_and_changes_nothing(
    lake: Lake, history: History, plane: str, tmp_path: Path
) -> None:
    case = replace(CASE, destinations=[DeltaTable()])
    batch_inference(case, OLD_DAY, history.champion)
    delivery.deliver(case, "delta", OLD_DAY)
    before, file = contents(lake), keys_file(tmp_path, {"tailnum": plane})
    counted = erasure.erase(case, file, [], dry_run=True)
    assert contents(lake) == before
    erased = erasure.erase(case, file, [], dry_run=False)
    assert (counted.state, counted.rows) == ("counted", erased.rows)
    assert (counted.delivered, counted.models) == (erased.delivered, erased.models)


def test_columns_of_the_key_are_enough(lake: Lake, tmp_path: Path) -> None:
    carrier = {"carrier": "UA", "date": OLD_DAY}
    erased = erasure.erase(CASE, keys_file(tmp_path, carrier), [], dry_run=False)
    path = landed(lake, "flights", OLD_DAY)
    assert "UA" not in pl.read_parquet(path)["carrier"].to_list()
    assert set(erased.rows) <= BEFORE_SCORING
    assert erased.models == []


def test_profiles_are_those_of_the_rows_that_are_left(lake: Lake, tmp_path: Path) -> None:
    erasure.erase(CASE, keys_file(tmp_path, {"carrier": "UA"}), [], dry_run=False)
    version = lake.current("validated", OLD_DAY)
    profiles._read.cache_clear()
    profile = profiles.read(version, "flights")
    assert profile is not None
    assert "UA" not in profile["carrier"].values
    assert profile["carrier"].rows == version.manifest().parts["flights"].rows


def test_a_landed_file_still_says_where_it_came_from(lake: Lake, tmp_path: Path) -> None:
    from include.validation.land import ORIGIN, origin_of

    path = landed(lake, "flights", OLD_DAY)
    rows = pl.read_parquet(path).to_arrow()
    path.unlink()
    import pyarrow.parquet as pq

    pq.write_table(rows.replace_schema_metadata({ORIGIN: b'{"query": "SELECT 1"}'}), path)
    erasure.erase(CASE, keys_file(tmp_path, {"carrier": "UA"}), [], dry_run=False)
    with open_parquet(path) as file:
        assert origin_of(file.metadata.metadata) == {"query": "SELECT 1"}


def test_a_destination_without_the_columns_is_left_to_a_person(
    lake: Lake, plane: str, tmp_path: Path, sqlite: str
) -> None:
    few = SqlTable("few", sqlite, "scores", columns={"at": "day", "score": "score"})
    case = replace(CASE, destinations=[few])
    erased = erasure.erase(case, keys_file(tmp_path, {"tailnum": plane}), [], dry_run=False)
    assert erased.delivered == {"few": None}


def test_a_damaged_file_is_named_and_the_others_are_searched(lake: Lake, tmp_path: Path) -> None:
    damaged = lake.root / "history" / "damaged.parquet"
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_text("not Parquet")
    file = keys_file(tmp_path, {"tailnum": "N14228"}, {"tailnum": "N24211"})
    erased = erasure.erase(CASE, file, [], dry_run=False)
    assert erased.unreadable == [str(damaged)]
    assert erased.rows["landing/flights"] > 0


def test_nothing_is_erased_while_a_run_is_open(lake: Lake, tmp_path: Path) -> None:
    before, file = contents(lake), keys_file(tmp_path, {"carrier": "UA"})
    with pytest.raises(DependencyDown, match=r"Runs of a\.b are not over.* Nothing was erased"):
        erasure.erase(CASE, file, ["a.b"], dry_run=False)
    assert contents(lake) == before
    assert erasure.erase(CASE, file, ["a.b"], dry_run=True).rows["landing/flights"] > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("[]", "has no rows"),
        ('{"carrier": "UA"}\n{"flight": 1}', "rows with different columns"),
        ('{"carrier": ', "is not JSON lines"),
        ('{"passenger": "P-1"}', "No input of flight_delays has the columns passenger"),
        ('{"carrier": null}', "a row with a null"),
        ('{"flight": "one"}', "column 'flight' holds 'one', not Int32"),
    ],
)
def test_a_file_that_names_no_rows_erases_none(
    text: str, said: str, lake: Lake, tmp_path: Path
) -> None:
    before = contents(lake)
    (tmp_path / "keys.jsonl").write_text(text)
    with pytest.raises(BadData, match=said):
        erasure.erase(CASE, str(tmp_path / "keys.jsonl"), [], dry_run=False)
    with pytest.raises(MissingData, match=r"no file .*gone\.jsonl"):
        erasure.erase(CASE, str(tmp_path / "gone.jsonl"), [], dry_run=False)
    assert contents(lake) == before


def test_a_version_that_an_erasure_left_half_changed_is_refused_until_the_next_one_ends(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = keys_file(tmp_path, {"carrier": "UA", "date": OLD_DAY})
    with monkeypatch.context() as patch:
        patch.setattr(Version, "amend", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            erasure.erase(CASE, file, [], dry_run=False)
    (mark,) = find_files(lake.root, erasure.MARK)
    table = mark.parent.parent.parent.name
    part = next(iter(lake.current(table, OLD_DAY).manifest().parts))
    with pytest.raises(BadData, match="not what was published"):
        lake.current(table, OLD_DAY).read(part)
    erasure.erase(CASE, file, [], dry_run=False)
    assert whole(lake)


@pytest.mark.exhaustive
def test_an_erasure_that_is_killed_at_any_file_is_finished_by_the_next(
    history: History, tmp_path: Path, start: Callable[..., Any], configure: Callable[..., None]
) -> None:
    configure(mlflow_tracking_uri=history.registry)
    file = keys_file(tmp_path, {"carrier": "UA"})
    for files in range(1, 1000, 25):
        root = tmp_path / f"lake-{files}"
        copy_lake(history.lakes / CASE.name, root)
        environment = {"MLFLOW_TRACKING_URI": history.registry}
        child = start(children.erase_until_file, environment, str(root), file, files)
        child.join()
        lake = Lake(str(root))
        erasure.erase(at(lake), file, [], dry_run=False)
        assert remaining_carrier(lake, "UA") == []
        assert whole(lake)
        if child.exitcode == 0:
            break
    assert files > 1


def remaining_carrier(lake: Lake, carrier: str) -> list[str]:
    return [
        str(file)
        for file in find_files(lake.root, ".parquet")
        if "carrier" in (rows := pl.read_parquet(file)).columns
        and (rows["carrier"].cast(pl.String) == carrier).any()
    ]


def whole(lake: Lake) -> bool:
    """Every part of every version is what its manifest says, and no mark is left."""
    for path in find_files(lake.root, "manifest.json"):
        table = str(path.parent.parent.parent.relative_to(lake.root))
        key = path.parent.parent.name.removeprefix("date=")
        version = Version(lake, table, key, path.parent.name)
        manifest = version.manifest()
        for part in (*manifest.parts, *manifest.profiles):
            version.read(part)
        if lake.current(table, key) == version:
            assert lake.manifest(table, key) == manifest
    return not find_files(lake.root, erasure.MARK)


def test_rows_on_s3_are_erased_too(
    lake: Lake, history: History, s3_root: str, tmp_path: Path
) -> None:
    remote = Lake(s3_root)
    for path in find_files(lake.root, ""):
        if OLD_DAY in str(path):
            (remote.root / str(path.relative_to(lake.root))).write_bytes(path.read_bytes())
    case = at(remote)
    erased = erasure.erase(case, keys_file(tmp_path, {"carrier": "UA"}), [], dry_run=False)
    assert erased.rows["landing/flights"] > 0
    left = remote.current("validated", OLD_DAY).read("flights")
    assert "UA" not in left["carrier"].to_list()
    assert erasure.erase(case, keys_file(tmp_path, {"carrier": "UA"}), [], dry_run=True).rows == {}
