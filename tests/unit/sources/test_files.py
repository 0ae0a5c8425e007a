"""Files that others drop: each kind, several a day, and what is wrong with one."""

import gzip
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from include.errors import BadData, MissingData
from include.lake.tables import Lake
from include.sources import files
from tests.unit.sources.orders import ORDERS

DAY = date(2026, 11, 3)
ROWS = pl.DataFrame(
    {
        "day": [DAY, DAY],
        "number": [1, 2],
        "customer": ["Åsa, B", None],
        "amount": [12.5, 1e6],
        "is_paid": [True, False],
        "placed_at": [datetime(2026, 11, 3, 8, tzinfo=UTC)] * 2,
    },
    schema_overrides={"number": pl.Int32},
)


def drop(folder: Path, name: str, rows: pl.DataFrame) -> Path:
    path = folder / "2026/11/03" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        rows.write_parquet(path)
    elif name.endswith(".csv"):
        path.write_text(rows.write_csv(datetime_format="%Y-%m-%dT%H:%M:%SZ"))
    else:
        text = rows.with_columns(pl.col("placed_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        path.write_text(text.write_ndjson())
    return path


def read(folder: Path | str, pattern: str = "%Y/%m/%d/*") -> pl.DataFrame:
    found = files.read(str(folder), pattern, DAY, ORDERS)
    assert found is not None
    return pl.concat(list(found.frames))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl", "a.ndjson"])
def test_each_kind_is_read_as_the_declared_types(name: str, tmp_path: Path) -> None:
    drop(tmp_path, name, ROWS)
    assert_frame_equal(read(tmp_path), ROWS)


def test_several_files_of_a_day_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, number in (("b.csv", 2), ("a.csv", 1), ("c.parquet", 3)):
        drop(tmp_path, name, ROWS.head(1).with_columns(number=pl.lit(number, pl.Int32)))
    assert read(tmp_path)["number"].to_list() == [1, 2, 3]


def test_the_origin_names_each_file_with_its_rows_and_identity(tmp_path: Path) -> None:
    paths = [drop(tmp_path, name, ROWS) for name in ("a.csv", "b.csv")]
    found = files.read(str(tmp_path), "%Y/%m/%d/*.csv", DAY, ORDERS)
    assert found is not None
    list(found.frames)
    told = found.origin["files"]
    assert [one["path"] for one in told] == list(map(str, paths))
    assert {one["rows"] for one in told} == {2}
    assert all("bytes, modified" in one["file"] for one in told)
    json.dumps(found.origin)


def test_without_a_file_there_is_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "2026/11/03").mkdir(parents=True)
    (tmp_path / "2026/11/03/.a.csv.part").touch()
    assert files.read(str(tmp_path), "%Y/%m/%d/*", DAY, ORDERS) is None


def test_files_on_s3_are_found_and_named_with_their_tag(s3_root: str, tmp_path: Path) -> None:
    drop(tmp_path, "a.csv", ROWS)
    root = Lake(s3_root).root
    root.fs.put(str(tmp_path / "2026"), f"{root.path}/drop/2026", recursive=True)
    found = files.read(f"{s3_root}/drop", "%Y/%m/%d/*.csv", DAY, ORDERS)
    assert found is not None
    assert_frame_equal(pl.concat(list(found.frames)), ROWS)
    assert found.origin["files"][0]["file"].startswith("etag ")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("b.csv", ROWS.drop("amount")),
        ("b.parquet", ROWS.with_columns(amount=pl.lit("12.5"))),
        ("b.parquet", ROWS.with_columns(placed_at=pl.col("placed_at").dt.replace_time_zone(None))),
    ],
)
def test_files_of_a_day_with_other_columns_are_both_named(
    name: str, rows: pl.DataFrame, tmp_path: Path
) -> None:
    first = drop(tmp_path, "a.csv", ROWS)
    second = drop(tmp_path, name, rows)
    with pytest.raises(BadData, match=rf"{second} has the columns .*{first} has .*amount Float64"):
        read(tmp_path)


@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_that_changes_while_it_is_read_is_read_again_later(
    name: str, is_replaced: bool, tmp_path: Path
) -> None:
    path = drop(tmp_path, name, ROWS)
    found = files.read(str(tmp_path), "%Y/%m/%d/*", DAY, ORDERS)
    assert found is not None
    frames = iter(found.frames)
    next(frames)
    if is_replaced:
        other = path.with_suffix(".new")
        other.write_bytes(path.read_bytes()[::-1])
        other.replace(path)
    else:
        with path.open("ab") as file:
            file.write(b"\n")
    with pytest.raises(MissingData, match=f"{path} was changed while it was read"):
        list(frames)


def test_a_time_without_a_zone_in_json_is_named(tmp_path: Path) -> None:
    path = drop(tmp_path, "a.jsonl", ROWS)
    path.write_text(path.read_text().replace('Z"', '"'))
    with pytest.raises(BadData, match=r"a.jsonl has rows .*'placed_at' .* has no time zone"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("day,number,amount\n2026-11-03,x,1\n", "a.csv cannot be read as csv .*int32"),
        ("day,number\n2026-11-03,1,2\n", "a.csv cannot be read as csv .*Expected 2 columns"),
        ("placed_at\n2026-11-03T08:00:00\n", "a.csv cannot be read as csv .*zone offset"),
        ("", "a.csv cannot be read as csv .*Empty CSV"),
    ],
)
def test_a_file_that_is_not_as_declared_is_named(content: str, words: str, tmp_path: Path) -> None:
    path = drop(tmp_path, "a.csv", ROWS)
    path.write_text(content)
    with pytest.raises(BadData, match=words):
        read(tmp_path)


def test_invalid_utf8_and_damaged_parquet_are_named(tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet"):
        path = drop(tmp_path, name, ROWS)
        path.write_bytes(path.read_bytes()[:-20] + b"\xff\xfe\x00" * 7)
        with pytest.raises(BadData, match=name):
            read(tmp_path, f"%Y/%m/%d/{name}")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    path = drop(tmp_path, "a.csv", ROWS)
    (path.parent / "a.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(BadData, match=r"a.csv.gz is of a kind that is not read"):
        read(tmp_path)


def test_text_may_have_line_breaks_anywhere_and_be_any_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 2_000)
    words = ["NA", "null", "line\nbreak, and more", None] * 200
    rows = pl.concat([ROWS.head(1)] * 800).with_columns(
        customer=pl.Series(words), number=pl.int_range(800, dtype=pl.Int32)
    )
    drop(tmp_path, "a.csv", rows)
    assert_frame_equal(read(tmp_path), rows)


def test_a_day_with_a_marker_is_there_when_the_marker_is(tmp_path: Path) -> None:
    path = drop(tmp_path, "a.csv", ROWS)
    asked = (str(tmp_path), "%Y/%m/%d/*", DAY, ORDERS, "%Y/%m/%d/_SUCCESS")
    assert files.read(*asked) is None
    (path.parent / "_SUCCESS").touch()
    found = files.read(*asked)
    assert found is not None
    assert len(pl.concat(list(found.frames))) == 2


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_file_without_rows_lands_if_the_input_may_be_empty(name: str, tmp_path: Path) -> None:
    drop(tmp_path, name, ROWS.clear())
    for may_be_empty in (False, True):
        like = replace(ORDERS, may_be_empty=may_be_empty)
        found = files.read(str(tmp_path), "%Y/%m/%d/*", DAY, like)
        assert found is not None
        frames = [frame for frame in found.frames if may_be_empty or len(frame)]
        assert [frame.columns for frame in frames][:1] == ([ROWS.columns] if may_be_empty else [])


def test_a_file_that_is_gone_by_then_is_looked_for_again(tmp_path: Path) -> None:
    path = drop(tmp_path, "a.csv", ROWS)
    found = files.read(str(tmp_path), "%Y/%m/%d/*", DAY, ORDERS)
    path.unlink()
    assert found is not None
    with pytest.raises(MissingData, match=f"{path} was removed before it was read"):
        list(found.frames)
