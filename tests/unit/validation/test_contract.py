"""Files that break the contract: a clear error with file, day and reason, and nothing published.

Each is tried on a day that nobody has published yet, and on a published one: readers see what
they saw before.
"""

import hashlib
import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandera.polars
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.errors import BadData, MissingData
from include.lake.tables import Lake
from include.usecase import Input
from include.usecases.flight_delays.schema import FLIGHTS
from include.validation import contract, land, rows
from local.in_process import validate_day
from tests.case import CASE, at
from tests.unit import children
from tests.unit.conftest import NEW_DAY, OLD_DAY
from tests.unit.helpers import ENDS, NO_DATES, landed, refused, replace, shown

COLUMNS = list(FLIGHTS.schema.columns)

Table = Callable[[pa.Table], pa.Table]


@pytest.fixture(params=[NEW_DAY, OLD_DAY], ids=["new day", "published day"])
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def validate(lake: Lake, key: str) -> None:
    assert validate_day(at(lake), "validated", key)


def latest_report(lake: Lake, key: str) -> dict:
    """The newest report of a day, as JSON; its page tells the same."""
    folder = lake.partition_path("validated", key)
    assert isinstance(folder, Path)
    path = max(folder.glob("*/report.json"), key=lambda path: path.stat().st_mtime_ns)
    report = json.loads(path.read_text())
    page = path.with_suffix(".html").read_text()
    assert all(str(line[:40]) in page for line in [report["key"], report["state"]])
    return report


def test_a_missing_file_fails_the_day_and_is_named(lake: Lake) -> None:
    key = "2013-02-22"
    path = lake.landing_path("flights", key)
    words = [f"Partition {key}", str(path), "no file"]
    with refused(lake, "validated", key, *words, kind=MissingData):
        contract.check_contract(CASE, "validated", key)
    assert latest_report(lake, key)["state"] == "failed"


def test_a_missing_file_of_a_published_day_leaves_it_as_it_was(lake: Lake) -> None:
    path = lake.landing_path("flights", OLD_DAY)
    path.unlink()
    with refused(lake, "validated", OLD_DAY, str(path), kind=MissingData):
        contract.check_contract(CASE, "validated", OLD_DAY)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def as_csv(content: bytes) -> bytes:
    return pl.read_parquet(content).write_csv().encode()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: b"", "size is 0 bytes"),
        (half, "magic bytes not found in footer"),
        (lambda content: content[:-1], "magic bytes not found in footer"),
        (lambda content: content[: len(content) - 8 - 300] + content[-8:], "cannot be read as"),
        (as_csv, "magic bytes not found in footer"),
        (lambda content: json.dumps({"error": "quota"}).encode() * 9, "magic bytes not found"),
    ],
    ids=["empty", "cut off", "one byte short", "hole in the footer", "a CSV", "an error message"],
)
@pytest.mark.parametrize("input_name", ["flights", "weather"])
def test_a_file_that_is_no_parquet_fails_the_day_and_is_named(
    spoil: Callable[[bytes], bytes], reason: str, input_name: str, key: str, lake: Lake
) -> None:
    path = landed(lake, input_name, key)
    replace(path, spoil(path.read_bytes()))
    with refused(lake, "validated", key, f"Partition {key}", str(path), reason):
        validate(lake, key)
    (breach,) = latest_report(lake, key)["breaches"]
    assert str(path) in breach


def test_a_folder_named_parquet_fails_the_day_and_is_named(key: str, lake: Lake) -> None:
    path = landed(lake, "flights", key)
    path.rename(path.with_suffix(".part"))
    path.mkdir()
    with refused(lake, "validated", key, str(path), "is a directory"):
        validate(lake, key)


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
@pytest.mark.parametrize("input_name", ["flights", "weather"])
def test_a_file_with_a_damaged_page_in_the_middle_fails_the_day_and_is_named(
    input_name: str, compression: str, key: str, lake: Lake
) -> None:
    path = landed(lake, input_name, key)
    replace(path, pq.read_table(path), row_group_size=20, compression=compression)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    replace(path, bytes(content))
    with refused(lake, "validated", key, f"Partition {key}", str(path), "is damaged"):
        validate(lake, key)
    (breach,) = latest_report(lake, key)["breaches"]
    assert str(path) in breach


def test_a_value_that_its_page_checksum_contradicts_is_never_published(
    key: str, lake: Lake
) -> None:
    path = landed(lake, "flights", key)
    table = pq.read_table(path)
    flat: dict[str, Any] = {"compression": "none", "use_dictionary": False}
    replace(path, table, write_page_checksum=True, **flat)
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(COLUMNS.index("distance"))
    content[column.data_page_offset + 200] ^= 1  # another distance, and a valid one
    replace(path, bytes(content))
    assert pq.read_table(path)["distance"] != table["distance"]
    with refused(lake, "validated", key, f"Partition {key}", str(path), "is damaged", "CRC"):
        validate(lake, key)


def test_a_file_with_any_bytes_changed_is_valid_or_bad_data_never_a_bug_nor_a_crash(
    lake: Lake, start: Callable[..., Any]
) -> None:
    path = landed(lake, "flights", NEW_DAY)
    replace(path, pq.read_table(path)[:60], row_group_size=20, compression="none")
    child = start(children.read_damaged, {}, str(lake.root), NEW_DAY, 300)
    child.join()
    assert child.exitcode == 0


@pytest.mark.parametrize("name", COLUMNS)
def test_a_missing_column_fails_the_day_and_is_named(name: str, lake: Lake) -> None:
    path = landed(lake, "flights", OLD_DAY)
    replace(path, pq.read_table(path).drop_columns([name]))
    with refused(lake, "validated", OLD_DAY, str(path), f"column '{name}' is missing"):
        validate(lake, OLD_DAY)


@pytest.mark.parametrize("name", ["arr_delay", "", "Carrier", "größe"])
def test_an_extra_column_fails_the_day_and_is_named(name: str, key: str, lake: Lake) -> None:
    path = landed(lake, "flights", key)
    table = pq.read_table(path)
    replace(path, table.append_column(name, table["distance"]))
    with refused(lake, "validated", key, str(path), f"column '{name}' is not in the contract"):
        validate(lake, key)


def test_a_file_with_thousands_of_extra_columns_makes_a_message_and_a_report_that_can_be_read(
    lake: Lake,
) -> None:
    path = landed(lake, "flights", NEW_DAY)
    table = pq.read_table(path)[:1]
    columns = {name: table[name] for name in COLUMNS}
    columns |= {f"extra {number}": table["flight"] for number in range(4_000)}
    columns |= {"long" * 100_000: table["flight"]}
    replace(path, pa.table(columns))
    words = ["column 'extra 9' is not in the contract", "and 3,991 more like these"]
    with refused(lake, "validated", NEW_DAY, *words) as failure:
        validate(lake, NEW_DAY)
    assert len(str(failure.value)) < 3_000
    for report in path.parents[2].glob(f"validated/date={NEW_DAY}/*/report.*"):
        assert report.stat().st_size < 10_000


@pytest.mark.parametrize(
    ("old", "new"), [("dest", "dest_code"), ("distance", "distances"), ("flight", "Flight")]
)
def test_a_renamed_column_fails_the_day_with_both_names(
    old: str, new: str, key: str, lake: Lake
) -> None:
    path = landed(lake, "flights", key)
    replace(path, pl.read_parquet(path).rename({old: new}))
    words = [f"column '{old}' is missing (is it '{new}' now?)", f"column '{new}' is not in the"]
    with refused(lake, "validated", key, str(path), *words):
        validate(lake, key)


def test_reordered_columns_fail_the_day_and_are_named(key: str, lake: Lake) -> None:
    path = landed(lake, "flights", key)
    moved = [*COLUMNS[1:], COLUMNS[0]]
    replace(path, pl.read_parquet(path).select(moved))
    words = ["columns are in another order: " + ", ".join(moved), "must be " + ", ".join(COLUMNS)]
    with refused(lake, "validated", key, str(path), *words):
        validate(lake, key)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_another_type_fails_the_day_and_is_named(name: str, lake: Lake) -> None:
    path = landed(lake, "flights", OLD_DAY)
    table = pq.read_table(path)
    replace(path, table.set_column(COLUMNS.index(name), name, pa.array([1.5] * len(table))))
    with refused(lake, "validated", OLD_DAY, str(path), f"column '{name}' is Float64, must be "):
        validate(lake, OLD_DAY)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda time: time.cast(pa.timestamp("ns", "UTC")), "time_unit='ns', time_zone='UTC'"),
        (lambda time: time.cast(pa.timestamp("us", "Asia/Tokyo")), "time_zone='Asia/Tokyo'"),
        (lambda time: time.cast(pa.timestamp("us")), "time_unit='us', time_zone=None"),
        (lambda time: pa.chunked_array([pa.nulls(len(time))]), "Null"),
        (lambda time: time.cast(pa.string()).dictionary_encode(), "Categorical"),
    ],
)
def test_a_time_of_another_unit_or_zone_is_another_type(
    change: Callable[[pa.ChunkedArray], pa.ChunkedArray], found: str, lake: Lake
) -> None:
    path = landed(lake, "flights", OLD_DAY)
    table = pq.read_table(path)
    times = change(table["time_hour"])
    replace(path, table.set_column(COLUMNS.index("time_hour"), "time_hour", times))
    with refused(lake, "validated", OLD_DAY, "column 'time_hour' is ", found):
        validate(lake, OLD_DAY)


def test_a_column_that_is_there_twice_fails_the_day_and_is_named(key: str, lake: Lake) -> None:
    path = landed(lake, "flights", key)
    table = pq.read_table(path)
    twice = pa.table([*table.columns, table["dest"]], names=[*COLUMNS, "dest"])
    replace(path, twice)
    with refused(lake, "validated", key, str(path), "column 'dest' appears 2 times"):
        validate(lake, key)


def test_every_breach_in_every_file_is_named_at_once(key: str, lake: Lake) -> None:
    flights, weather = landed(lake, "flights", key), landed(lake, "weather", key)
    table = pl.read_parquet(flights).drop("tailnum", "seats").rename({"origin": "origins"})
    table = table.with_columns(pl.col("distance", "flight").cast(pl.Float64), extra=1)
    replace(flights, table.select(pl.exclude("date"), "date"))
    replace(weather, b"")
    words = [
        "9 breaches", str(flights), str(weather), "column 'tailnum' is missing",
        "column 'seats' is missing", "column 'origin' is missing (is it 'origins' now?)",
        "column 'origins' is not in the contract", "column 'extra' is not in the contract",
        "column 'flight' is Float64, must be Int32", "column 'distance' is Float64, must be Int32",
        "columns are in another order: carrier, flight", "0 bytes",
    ]  # fmt: skip
    with refused(lake, "validated", key, *words):
        validate(lake, key)
    assert len(latest_report(lake, key)["breaches"]) == 9


@pytest.mark.parametrize("input_name", ["flights", "weather"])
def test_a_file_without_rows_fails_the_day_and_is_named(
    input_name: str, key: str, lake: Lake
) -> None:
    path = landed(lake, input_name, key)
    replace(path, pq.read_table(path).slice(0, 0))
    with refused(lake, "validated", key, f"Partition {key}", str(path), "has no rows"):
        validate(lake, key)


@pytest.mark.parametrize("values", [2, 1000], ids=["few values", "many values"])
def test_text_that_is_not_utf_8_fails_the_day_and_names_the_column(
    values: int, key: str, lake: Lake
) -> None:
    path = landed(lake, "flights", key)
    table = pq.read_table(path)
    latin_1 = pa.array([f"São {n % values}".encode("latin-1") for n in range(len(table))])
    as_text = pa.Array.from_buffers(pa.string(), len(table), latin_1.buffers())
    replace(path, table.set_column(COLUMNS.index("tailnum"), "tailnum", as_text))
    with refused(lake, "validated", key, str(path), "column 'tailnum'", "UTF8"):
        validate(lake, key)


@pytest.mark.parametrize("key", [*NO_DATES, *ENDS])
@pytest.mark.parametrize("table", ["validated", "actuals"])
def test_a_key_that_is_no_partition_lands_and_publishes_nothing(
    table: str, key: str, tmp_path: Path
) -> None:
    for use in (land.land, contract.check_contract, validate_day):
        with pytest.raises(BadData) as failure:
            use(CASE, table, key)
        assert f"{key!r} is no partition" in str(failure.value)
    assert not list(tmp_path.rglob("*.parquet"))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("content", "kind"), [(b"", BadData), (b"a,b\n1,2\n" * 9, BadData), (None, MissingData)]
)
def test_a_bad_file_on_s3_fails_the_day_and_is_named(
    content: bytes | None, kind: type[BadData], s3_root: str
) -> None:
    lake = Lake(s3_root)
    path = lake.landing_path("flights", NEW_DAY)
    if content is not None:
        with path.open("wb") as file:
            file.write(content)
    with refused(lake, "validated", NEW_DAY, f"Partition {NEW_DAY}", str(path), kind=kind):
        contract.check_contract(at(lake), "validated", NEW_DAY)


def test_a_day_is_validated_on_s3_as_in_a_folder(s3_root: str, lake: Lake) -> None:
    remote = Lake(s3_root)
    validate(remote, NEW_DAY)
    validate(lake, NEW_DAY)
    assert shown(remote, "validated", NEW_DAY) == shown(lake, "validated", NEW_DAY)


def test_a_repaired_file_is_published_by_the_next_run(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    good = path.read_bytes()
    replace(path, half(good))
    with refused(lake, "validated", NEW_DAY, "cannot be read"):
        validate(lake, NEW_DAY)
    replace(path, good)
    validate(lake, NEW_DAY)
    assert shown(lake, "validated", NEW_DAY) is not None


def test_a_file_that_has_landed_is_never_fetched_again(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    replace(path, b"dropped by hand")
    assert land.land(CASE, "validated", NEW_DAY) == ["flights", "weather"]
    assert path.read_bytes() == b"dropped by hand"


def test_a_file_that_lands_during_a_fetch_stays(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may be checking it by now."""
    fetch, path = CASE.source.fetch, lake.landing_path("flights", NEW_DAY)

    def slow(name: str, day: date) -> pl.DataFrame | None:
        if name == "flights":
            replace(path, b"landed meanwhile")
        return fetch(name, day)

    monkeypatch.setattr(CASE.source, "fetch", slow)
    path.parent.mkdir(parents=True, exist_ok=True)
    land.land(CASE, "validated", NEW_DAY)
    assert path.read_bytes() == b"landed meanwhile"
    assert sorted(path.parent.glob(".*")) == []


def test_truth_lands_apart_from_what_is_scored(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert land.land(at(lake), "actuals", NEW_DAY) == ["actuals"]
    assert [path.name for path in (tmp_path / "landing").iterdir()] == ["actuals"]


def with_time_field(lake: Lake, field: pa.Field) -> list[str]:
    """Breaches of a real file whose column of times is declared otherwise."""
    columns = pq.read_schema(landed(lake, "flights", NEW_DAY))
    position = columns.get_field_index(field.name)
    return contract.contract_breaches(FLIGHTS, columns.set(position, field))


def test_a_type_on_which_polars_panics_is_a_breach(lake: Lake) -> None:
    (breach,) = with_time_field(lake, pa.field("time_hour", pa.timestamp("us", "Z")))
    assert breach.startswith("column 'time_hour' is timestamp[us, tz=Z], which cannot be read here")


def test_what_else_a_file_says_of_a_column_is_nothing_to_us(lake: Lake) -> None:
    field = pa.field("time_hour", pa.timestamp("us", "UTC"), metadata={b"note": b"\xff"})
    assert with_time_field(lake, field) == []


def test_a_file_emptied_between_two_gates_fails_the_day(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    (checked, *_) = contract.check_contract(CASE, "validated", NEW_DAY)
    replace(path, pl.read_parquet(path)[:0])
    with refused(lake, "validated", NEW_DAY, str(path), "replaced or changed"):
        rows.check_rows(CASE, checked)


def doubled(content: bytes) -> bytes:
    """A file of as many rows, of which each is there twice."""
    rows, target = pl.read_parquet(content), io.BytesIO()
    rows.gather([place // 2 * 2 for place in range(len(rows))]).write_parquet(target)
    return target.getvalue()


@pytest.mark.parametrize("change", ["replaced by a rename", "written over", "removed"])
@pytest.mark.parametrize("gate", ["duplicated_keys", "keep"])
def test_a_file_that_changes_while_it_is_checked_fails_the_day(
    gate: str, change: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = landed(lake, "flights", NEW_DAY)
    other, real = doubled(path.read_bytes()), getattr(rows, gate)

    def then_changed(*arguments: Any) -> Any:
        found = real(*arguments)
        if change == "replaced by a rename":
            path.with_suffix(".new").write_bytes(other)
            path.with_suffix(".new").rename(path)
        elif change == "written over":
            path.write_bytes(other)
        else:
            path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(rows, gate, then_changed)
    word = "no file" if (change, gate) == ("removed", "duplicated_keys") else "while it was being"
    kind = MissingData if word == "no file" else BadData
    with refused(lake, "validated", NEW_DAY, str(path), word, kind=kind):
        validate(lake, NEW_DAY)


def test_a_file_on_s3_that_is_replaced_while_it_is_checked_fails_the_day(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(s3_root)
    land.land(at(lake), "validated", NEW_DAY)
    path, real = lake.landing_path("flights", NEW_DAY), rows.duplicated_keys
    other = doubled(path.read_bytes())

    def then_replaced(*arguments: Any) -> Any:
        found = real(*arguments)
        path.write_bytes(other)
        return found

    monkeypatch.setattr(rows, "duplicated_keys", then_replaced)
    with refused(lake, "validated", NEW_DAY, str(path), "while it was being checked", "etag"):
        validate(lake, NEW_DAY)


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_the_manifest_names_exactly_the_file_that_was_validated(
    place: str, request: pytest.FixtureRequest, lake: Lake
) -> None:
    lake = lake if place == "folder" else Lake(request.getfixturevalue("s3_root"))
    validate(lake, NEW_DAY)
    path = lake.landing_path("flights", NEW_DAY)
    [check, _] = lake.current("validated", NEW_DAY).manifest().metadata["report"]["inputs"]
    content = path.read_bytes()
    assert f"{len(content)} bytes" in check["file"]
    if place == "folder":
        assert f"inode {path.stat().st_ino}, " in check["file"]
        assert check["sha256"] == hashlib.sha256(content).hexdigest()
    else:
        assert hashlib.md5(content).hexdigest() in check["file"]  # S3's etag of a small file


def test_truth_that_has_not_landed_is_missed(lake: Lake) -> None:
    with refused(lake, "actuals", NEW_DAY, f"actuals/{NEW_DAY}.parquet", kind=MissingData):
        contract.check_contract(CASE, "actuals", NEW_DAY)


@pytest.mark.parametrize(
    ("returned", "advice"),
    [
        (lambda rows: rows.to_pandas(), "pl.from_pandas"),
        (lambda rows: rows.to_arrow(), "pl.from_arrow"),
        (lambda rows: rows.lazy(), "frame.collect()"),
        (lambda rows: rows.to_dicts(), "Return a pl.DataFrame"),
    ],
    ids=["pandas", "Arrow", "a lazy frame", "dicts"],
)
def test_a_source_that_gives_no_polars_frame_is_told_what_to_return(
    returned: Callable[[pl.DataFrame], object],
    advice: str,
    lake: Lake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetch = CASE.source.fetch
    monkeypatch.setattr(CASE.source, "fetch", lambda *asked: returned(fetch(*asked)))
    words = [f"fetch('flights', {NEW_DAY})", advice, "Nothing landed"]
    with refused(lake, "validated", NEW_DAY, *words):
        land.land(CASE, "validated", NEW_DAY)
    assert not lake.landing_path("flights", NEW_DAY).exists()


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"event_time": "time"}, ["time", "Datetime", "a time with a zone", "replace_time_zone"]),
        ({"event_time": "day"}, ["event_time names day", "no column"]),
        ({"event_time": "id"}, ["event_time names id", "Int64"]),
        ({"max_null_rate": {"price": 0.1}}, ["max_null_rate names price", "id, time"]),
        ({"max_text_bytes": {"note": 9}}, ["max_text_bytes names note", "id, time"]),
    ],
)
def test_a_contract_that_could_never_be_checked_is_refused_when_it_is_declared(
    declared: dict[str, Any], words: list[str]
) -> None:
    columns = {"id": pandera.polars.Column(pl.Int64), "time": pandera.polars.Column(pl.Datetime)}
    schema = pandera.polars.DataFrameSchema(columns)
    with pytest.raises(ValueError, match="input readings: ") as failure:
        Input("readings", schema, ["id"], lambda day: pl.lit(True), **declared)
    assert [word for word in words if word not in str(failure.value)] == []
