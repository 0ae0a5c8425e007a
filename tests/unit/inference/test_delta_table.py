"""A day in a Delta table: one commit, read by engines that are not ours."""

import json
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from include.destinations import DeltaTable
from include.errors import BadData, DependencyDown
from include.inference import delivery, delta_table
from tests.unit.deliveries import (
    FIRST,
    SECOND,
    case_of,
    delta_of,
    publish,
    rows_of,
)


def test_every_engine_reads_a_delivered_day(root: str) -> None:
    case = case_of(root, DeltaTable())
    rows = rows_of(FIRST, [0.1, 0.2, None, 0.4])
    version = publish(case.lake, FIRST, rows)
    delivered = delivery.deliver(case, "delta", FIRST)
    assert (delivered.version, delivered.rows) == (str(version), 4)
    opened = delta_of(case)
    by_polars = pl.read_delta(opened).sort("flight")
    expected = rows.with_columns(pl.col("model").cast(pl.String))
    assert_frame_equal(by_polars.select(rows.columns), expected)
    assert by_polars["day"].unique().to_list() == [date.fromisoformat(FIRST)]
    assert by_polars["version"].unique().to_list() == [version.name]
    assert by_polars["fallback"].unique().to_list() == [0]
    by_duckdb = duckdb.from_arrow(opened.to_pyarrow_dataset().scanner().to_reader())
    [(count, total)] = by_duckdb.aggregate("count(*), sum(score)").fetchall()
    assert (count, round(total, 4)) == (4, 0.7)


def test_a_commit_says_where_its_rows_come_from(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable())
    version = publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    delivery.deliver(case, "delta", FIRST)
    said = delta_of(case).history(1)[0]
    known = said["usecase"], said["model_version"], said["lake_version"]
    assert known == (case.name, "7", str(version))


def test_a_day_that_is_delivered_again_replaces_itself_and_no_other_day(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable())
    for key in (FIRST, SECOND):
        publish(case.lake, key, rows_of(key, [0.1, 0.2, 0.3]))
        delivery.deliver(case, "delta", key)
    delivery.deliver(case, "delta", FIRST)
    publish(case.lake, FIRST, rows_of(FIRST, [0.9]))
    delivery.deliver(case, "delta", FIRST)
    found = pl.read_delta(delta_of(case)).group_by("day").agg("score").sort("day")
    assert found["score"].list.len().to_list() == [1, 3]


def test_a_day_that_has_no_rows_any_more_is_empty_there(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable())
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    delivery.deliver(case, "delta", FIRST)
    publish(case.lake, FIRST, rows_of(FIRST, []))
    assert delivery.deliver(case, "delta", FIRST).rows == 0
    assert pl.read_delta(delta_of(case)).is_empty()


def test_predictions_of_several_numbers_are_delivered_to_delta(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable(source="ensemble_predictions"))
    lists = pl.Series([[0.1, 0.2], None], dtype=pl.Array(pl.Float32, 2))
    rows = rows_of(FIRST, [0.1, 0.2]).with_columns(score_one=lists, fallback=pl.lit(2, pl.Int8))
    publish(case.lake, FIRST, rows, "ensemble_predictions")
    for _ in range(2):
        delivery.deliver(case, "delta", FIRST)
    found = pl.read_delta(delta_of(case, DeltaTable(source="ensemble_predictions")))
    assert found["score_one"].list.to_array(2).to_list() == [
        [pytest.approx(0.1), pytest.approx(0.2)],
        None,
    ]
    assert found["fallback"].to_list() == [2, 2]


def test_names_and_types_are_the_destinations_choice(tmp_path: Path) -> None:
    destination = DeltaTable(
        uri=str(tmp_path / "outside"),
        columns={"day": "day", "flight": "flight", "chance_of_delay": "score", "made": "scored_at"},
        types={"chance_of_delay": "float64"},
    )
    case = case_of(tmp_path / "lake", destination)
    publish(case.lake, FIRST, rows_of(FIRST, [0.25]))
    delivery.deliver(case, "delta", FIRST)
    found = pl.read_delta(str(tmp_path / "outside"))
    assert found.columns == list(destination.columns)
    assert found["chance_of_delay"].dtype == pl.Float64
    assert found["chance_of_delay"].item() == 0.25


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"day": "day", "late": "score"}, ["late is new", "flight is gone"]),
        ({"day": "day", "flight": "score"}, ["flight is float and was int32"]),
    ],
)
def test_a_delta_table_with_other_columns_is_refused_and_stays(
    changed: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    case = case_of(tmp_path, DeltaTable(columns={"day": "day", "flight": "flight"}))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    delivery.deliver(case, "delta", FIRST)
    before = delta_of(case).version()
    with pytest.raises(BadData) as failure:
        delivery.deliver(case_of(tmp_path, DeltaTable(columns=changed)), "delta", FIRST)
    assert all(word in str(failure.value) for word in [*words, "Nothing was delivered"])
    assert delta_of(case).version() == before


def test_a_column_that_is_not_published_is_named_with_those_that_are(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable(columns={"day": "day", "late": "scores"}))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    with pytest.raises(BadData, match=r"late \(from scores\).*There are day, .*score"):
        delivery.deliver(case, "delta", FIRST)


def test_a_delta_table_whose_store_is_away_is_down(
    s3_server: dict[str, str], unused_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.loads(s3_server["AIRFLOW_CONN_LAKE_TEST"])
    connection["extra"]["endpoint_url"] = f"http://127.0.0.1:{unused_port}"
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(connection))
    monkeypatch.setattr(delta_table, "PATIENCE", {"max_retries": "0", "retry_timeout": "1s"})
    case = case_of(tmp_path, DeltaTable(uri="s3://away@bucket/scores"))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    with pytest.raises(DependencyDown, match="s3://bucket/scores cannot be written"):
        delivery.deliver(case, "delta", FIRST)


def test_types_that_delta_does_not_know_become_wider_ones_or_are_named(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable())
    more = {"small": pl.Series([7], dtype=pl.UInt32), "raw": pl.Series([b"x"]),
            "words": pl.Series([["a", "b"]])}  # fmt: skip
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]).with_columns(**more))
    for _ in range(2):
        delivery.deliver(case, "delta", FIRST)
    row = pl.read_delta(delta_of(case)).row(0, named=True)
    assert (row["small"], row["raw"], row["words"]) == (7, b"x", ["a", "b"])
    clock = pl.Series([1], dtype=pl.Int64).cast(pl.Time)
    publish(case.lake, SECOND, rows_of(SECOND, [0.1]).with_columns(small=clock))
    with pytest.raises(BadData, match="column small has the type time64"):
        delivery.deliver(case, "delta", SECOND)


def test_a_value_that_a_declared_type_cannot_hold_is_bad_data(tmp_path: Path) -> None:
    columns = {"day": "day", "p": "score"}
    case = case_of(tmp_path, DeltaTable(columns=columns, types={"p": "int32"}))
    publish(case.lake, FIRST, rows_of(FIRST, [0.5]))
    with pytest.raises(BadData, match="have values that `types` of a destination cannot hold"):
        delivery.deliver(case, "delta", FIRST)


def test_a_key_column_with_the_name_of_a_derived_one_is_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable())
    publish(case.lake, FIRST, rows_of(FIRST, [0.5]).rename({"flight": "version"}))
    with pytest.raises(BadData, match="names of derived ones: version"):
        delivery.deliver(case, "delta", FIRST)


def test_derived_columns_alone_have_a_row_for_each_prediction(tmp_path: Path) -> None:
    case = case_of(tmp_path, DeltaTable(columns={"day": "day", "of": "version"}))
    publish(case.lake, FIRST, rows_of(FIRST, [0.5, 0.6, 0.7]))
    delivery.deliver(case, "delta", FIRST)
    assert len(pl.read_delta(delta_of(case))) == 3
