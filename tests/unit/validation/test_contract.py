"""Files that break the contract: a clear error with file, day and reason, and nothing published.

Each is tried on a day that nobody has published yet, and on a published one: readers see what
they saw before.
"""

import json
from collections.abc import Callable

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.errors import BadData, MissingData
from include.lake.tables import Lake
from include.usecases.flight_delays.schema import FLIGHTS
from include.validation import contract
from tests.case import CASE, at
from tests.unit.conftest import NEW_DAY, OLD_DAY
from tests.unit.helpers import landed, refused, replace
from tests.unit.validation.days import half, reports, validate

COLUMNS = list(FLIGHTS.schema.columns)


def test_a_missing_file_fails_the_day_and_is_named(lake: Lake) -> None:
    key = "2013-02-22"
    path = lake.landing_path("flights", key)
    words = [f"Partition {key}", str(path), "no file"]
    with refused(lake, "validated", key, *words, kind=MissingData):
        contract.check_contract(CASE, "validated", key)
    assert reports(lake, key)[-1][0]["state"] == "failed"


def test_a_missing_file_of_a_published_day_leaves_it_as_it_was(lake: Lake) -> None:
    path = lake.landing_path("flights", OLD_DAY)
    path.unlink()
    with refused(lake, "validated", OLD_DAY, str(path), kind=MissingData):
        contract.check_contract(CASE, "validated", OLD_DAY)


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
def test_a_file_that_is_not_parquet_fails_the_day_and_is_named(
    spoil: Callable[[bytes], bytes], reason: str, input_name: str, key: str, lake: Lake
) -> None:
    path = landed(lake, input_name, key)
    replace(path, spoil(path.read_bytes()))
    with refused(lake, "validated", key, f"Partition {key}", str(path), reason):
        validate(lake, key)
    (breach,) = reports(lake, key)[-1][0]["breaches"]
    assert str(path) in breach


def test_a_folder_named_parquet_fails_the_day_and_is_named(key: str, lake: Lake) -> None:
    path = landed(lake, "flights", key)
    path.rename(path.with_suffix(".part"))
    path.mkdir()
    with refused(lake, "validated", key, str(path), "is a directory"):
        validate(lake, key)


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
    assert len(reports(lake, key)[-1][0]["breaches"]) == 9


@pytest.mark.parametrize("input_name", ["flights", "weather"])
def test_a_file_without_rows_fails_the_day_and_is_named(
    input_name: str, key: str, lake: Lake
) -> None:
    path = landed(lake, input_name, key)
    replace(path, pq.read_table(path).slice(0, 0))
    with refused(lake, "validated", key, f"Partition {key}", str(path), "has no rows"):
        validate(lake, key)


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


def with_time_field(lake: Lake, field: pa.Field) -> list[str]:
    """Breaches of a real file whose column of times is declared otherwise."""
    columns = pq.read_schema(landed(lake, "flights", NEW_DAY))
    position = columns.get_field_index(field.name)
    return contract.contract_breaches(FLIGHTS, columns.set(position, field))


def test_a_type_on_which_polars_panics_is_a_breach(lake: Lake) -> None:
    (breach,) = with_time_field(lake, pa.field("time_hour", pa.timestamp("us", "Z")))
    assert breach.startswith("column 'time_hour' is timestamp[us, tz=Z], which cannot be read here")


def test_other_metadata_of_a_column_is_ignored(lake: Lake) -> None:
    field = pa.field("time_hour", pa.timestamp("us", "UTC"), metadata={b"note": b"\xff"})
    assert with_time_field(lake, field) == []


def test_truth_that_has_not_landed_is_missed(lake: Lake) -> None:
    with refused(lake, "actuals", NEW_DAY, f"actuals/{NEW_DAY}.parquet", kind=MissingData):
        contract.check_contract(CASE, "actuals", NEW_DAY)
