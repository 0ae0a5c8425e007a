"""A file whose rows cannot be read, or that changes meanwhile, fails the day and is named."""

import io
from collections.abc import Callable
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.errors import BadData, MissingData
from include.lake.tables import Lake
from include.usecases.flight_delays.schema import FLIGHTS
from include.validation import contract, land, rows
from tests.case import CASE, at
from tests.unit import children
from tests.unit.conftest import NEW_DAY
from tests.unit.helpers import landed, refused, replace
from tests.unit.validation.days import reports, validate

COLUMNS = list(FLIGHTS.schema.columns)


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
    (breach,) = reports(lake, key)[-1][0]["breaches"]
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


@pytest.mark.parametrize("times", [30, pytest.param(300, marks=pytest.mark.exhaustive)])
def test_a_file_with_any_bytes_changed_is_valid_or_bad_data_never_a_bug_nor_a_crash(
    times: int, lake: Lake, start: Callable[..., Any]
) -> None:
    path = landed(lake, "flights", NEW_DAY)
    replace(path, pq.read_table(path)[:60], row_group_size=20, compression="none")
    child = start(children.read_damaged, {}, str(lake.root), NEW_DAY, times)
    child.join()
    assert child.exitcode == 0


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
