"""A day is judged as a whole, and published whole."""

import hashlib
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from include.errors import MissingData
from include.lake.tables import Lake
from include.validation import contract, partition, rows
from local.in_process import validate_day
from tests.case import CASE, at
from tests.unit.conftest import NEW_DAY, OLD_DAY
from tests.unit.helpers import landed, refused, replace, shown
from tests.unit.validation.days import Frame, half, validate, with_share, with_value


def until_five(rows: pl.DataFrame) -> pl.DataFrame:
    """What is left of a day that was cut off at 17:00 local time, 22:00 UTC."""
    return rows.filter(pl.col("sched_dep_time") < 1700)


def twice(rows: pl.DataFrame) -> pl.DataFrame:
    """Twice as many flights, each of a key of its own."""
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int32)
    return pl.concat([rows.with_columns(flight=number), rows.with_columns(flight=number + 5000)])


def of_tomorrow(rows: pl.DataFrame) -> pl.DataFrame:
    """The same flights, dated a day later."""
    return rows.with_columns(pl.col("date") + timedelta(1))


def repeated(rows: pl.DataFrame) -> pl.DataFrame:
    """Ten rows are there twice."""
    return pl.concat([rows, rows[:10]])


BAD_DAYS: list[tuple[str, Frame, list[str]]] = [
    (
        "too few rows",
        lambda rows: rows[::3],
        ["valid rows are outside ", "the median of the last 19 days"],
    ),
    ("too many rows", twice, ["0.5 to 1.6 × the median of the last 19 days"]),
    ("cut off in the evening", until_five, ["the last event is ", "h before the end of the day"]),
    ("too many bad rows", with_share("carrier", "ZZ", 0.06), ["bad, more than 5.0% (carrier"]),
    ("too many duplicates", repeated, ["20 of ", "share their key", "1.0%"]),
    ("rows of another day", of_tomorrow, ["row of another day ×"]),
    ("an all-null column", with_share("dest", None, 1), ["rows are bad", "dest: missing ×"]),
    ("an all-null optional column", with_share("seats", None, 1), ["seats is null in 100.0%"]),
    ("a key that is always null", with_share("flight", None, 1), ["flight: missing ×"]),
    ("an unknown category", with_share("origin", "BOS", 1), ["origin: isin(", ") ×"]),
    ("text that is not ASCII", with_share("dest", "MÜC", 0.5), ["dest: str_matches", ") ×"]),
]


@pytest.mark.parametrize(("what", "spoil", "words"), BAD_DAYS)
@pytest.mark.parametrize("key", [NEW_DAY, OLD_DAY], ids=["new day", "published day"])
def test_a_bad_day_fails_with_its_file_and_reason_and_publishes_nothing(
    what: str, spoil: Frame, words: list[str], key: str, lake: Lake
) -> None:
    path = landed(lake, "flights", key)
    replace(path, spoil(pl.read_parquet(path)))
    words = [word.replace("19 days", "20 days" if key == NEW_DAY else "19 days") for word in words]
    with refused(lake, "validated", key, f"Partition {key}", f", in {path}", *words):
        validate_day(CASE, "validated", key)


def test_everything_wrong_with_a_day_is_reported_at_once(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    rows = until_five(pl.read_parquet(path))[::2]
    rows = with_share("seats", None, 1)(with_share("carrier", "ZZ", 0.5)(rows))
    replace(path, pl.concat([rows, rows[-20:]]))
    words = ["5 breaches", "rows are bad", "share their key", "seats is null", "× the median"]
    with refused(lake, "validated", NEW_DAY, *words, "the last event"):
        validate_day(CASE, "validated", NEW_DAY)


def test_the_limits_are_settings(lake: Lake, configure: Callable[..., None]) -> None:
    path = landed(lake, "flights", NEW_DAY)
    rows = pl.read_parquet(path)
    replace(path, with_share("carrier", "ZZ", 0.06)(pl.concat([rows, rows[-10:]])[::3]))
    configure(max_quarantine_share=0.1, max_duplicate_share=0.1, min_volume_ratio=0.1)
    published = validate_day(CASE, "validated", NEW_DAY)
    assert 0.9 * len(rows) / 3 < published["flights"] < len(rows) / 3


def test_volume_is_not_judged_before_there_are_days_to_compare_with(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "empty"))
    path = landed(lake, "flights", NEW_DAY)
    replace(path, pl.read_parquet(path)[::20].vstack(pl.read_parquet(path)[-1:]).unique())
    assert validate_day(at(lake), "validated", NEW_DAY)


def test_volume_is_compared_with_the_days_of_the_window_only(
    lake: Lake, configure: Callable[..., None]
) -> None:
    version = lake.new_version("validated", NEW_DAY)
    assert len(partition.recent_rows(CASE, version)["flights"]) == 20
    configure(volume_window_days=5)
    recent = partition.recent_rows(CASE, version)["flights"]
    days = [f"2013-02-{day}" for day in (20, 19, 18, 17, 16)]
    manifests = [lake.manifest("validated", day) for day in days]
    assert recent == [manifest.parts["flights"].rows for manifest in manifests if manifest]


def test_a_day_without_weather_goes_on_with_a_warning(lake: Lake) -> None:
    key = "2013-12-31"
    assert list(validate_day(CASE, "validated", key)) == ["flights"]
    manifest = lake.manifest("validated", key)
    assert manifest is not None
    report = manifest.metadata["report"]
    assert report["state"] == "passed"
    (warning,) = report["warnings"]
    assert warning.startswith("weather has not landed")
    assert f"weather/{key}.parquet" in warning


@pytest.mark.parametrize(
    ("table", "name", "column"),
    [("validated", "weather", "temp"), ("actuals", "actuals", "arr_delay")],
)
def test_an_optional_file_may_be_absent_but_never_bad(
    lake: Lake, table: str, name: str, column: str
) -> None:
    path = landed(lake, name, NEW_DAY, table)
    replace(path, with_share(column, 9999.0, 0.5)(pl.read_parquet(path)))
    with refused(lake, table, NEW_DAY, f", in {path}", "rows are bad", column):
        validate_day(CASE, table, NEW_DAY)


def test_validating_again_replaces_rows_report_and_quarantine(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    good = pl.read_parquet(path)
    replace(path, with_value(good, 0, "carrier", "ZZ"))
    validate_day(CASE, "validated", NEW_DAY)
    assert len(lake.current("quarantine/validated", NEW_DAY).read("flights")) == 1
    replace(path, good)
    validate_day(CASE, "validated", NEW_DAY)
    assert len(lake.current("quarantine/validated", NEW_DAY).read("flights")) == 0
    assert lake.current("validated", NEW_DAY).read("flights").equals(good)


def test_validating_again_publishes_the_same_rows(lake: Lake) -> None:
    before = shown(lake, "validated", OLD_DAY)
    validate_day(CASE, "validated", OLD_DAY)
    assert shown(lake, "validated", OLD_DAY) == before


def test_a_repaired_file_is_published_by_the_next_run(lake: Lake) -> None:
    path = landed(lake, "flights", NEW_DAY)
    good = path.read_bytes()
    replace(path, half(good))
    with refused(lake, "validated", NEW_DAY, "cannot be read"):
        validate(lake, NEW_DAY)
    replace(path, good)
    validate(lake, NEW_DAY)
    assert shown(lake, "validated", NEW_DAY) is not None


def test_a_day_is_validated_on_s3_as_in_a_folder(s3_root: str, lake: Lake) -> None:
    remote = Lake(s3_root)
    validate(remote, NEW_DAY)
    validate(lake, NEW_DAY)
    assert shown(remote, "validated", NEW_DAY) == shown(lake, "validated", NEW_DAY)


def test_a_validation_whose_files_are_removed_says_what_to_clear(lake: Lake) -> None:
    checks = [
        rows.check_rows(CASE, file) for file in contract.check_contract(CASE, "validated", OLD_DAY)
    ]
    reference = partition.check_partition(CASE, checks)
    shutil.rmtree(lake.version(reference).path)
    with pytest.raises(MissingData, match=r"no file .*report\.json.* clear the whole run"):
        partition.publish(CASE, reference)


def test_published_rows_are_the_landed_rows_less_the_quarantine(lake: Lake) -> None:
    for key in lake.published_keys("validated"):
        manifest = lake.manifest("validated", key)
        assert manifest is not None
        for check in manifest.metadata["report"]["inputs"]:
            raw = pl.read_parquet(lake.landing_path(check["input"], key))
            assert check["rows"] == len(raw) == check["valid"] + check["quarantined"]
            assert manifest.parts[check["input"]].rows == check["valid"]


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
