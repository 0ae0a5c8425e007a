"""A day in a table of a database: one transaction, on SQLite and on Postgres."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import polars as pl
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import text

from include.database import connected
from include.destinations import SqlTable
from include.errors import BadData, DependencyDown
from include.inference import delivery
from tests.case import CASE
from tests.unit.deliveries import FIRST, SECOND, case_of, execute, publish, rows_of, sql_rows

KEPT = {"day": "day", "carrier": "carrier", "flight": "flight", "score": "score", "at": "scored_at"}


def test_a_day_is_delivered_to_a_database_and_again(database: str, tmp_path: Path) -> None:
    case = case_of(tmp_path, SqlTable("warehouse", database, "scores"))
    rows = rows_of(FIRST, [0.1, 0.2, None, 0.4, 0.5])
    publish(case.lake, FIRST, rows)
    publish(case.lake, SECOND, rows_of(SECOND, [0.7]))
    for key in (FIRST, SECOND, FIRST):
        delivery.deliver(case, "warehouse", key)
    found = sql_rows(database)
    assert len(found) == 6
    own = sorted((row for row in found if str(row["day"]) == FIRST), key=lambda row: row["flight"])
    assert [row["carrier"] for row in own] == rows["carrier"].to_list()
    assert [row["score"] and round(row["score"], 6) for row in own] == [0.1, 0.2, None, 0.4, 0.5]
    assert {row["fallback"] for row in own} == {0}
    assert {row["model_version"] for row in own} == {"7"}


def test_with_merge_rows_replace_those_with_the_same_key(database: str, tmp_path: Path) -> None:
    columns = {
        "date": "date",
        "carrier": "carrier",
        "flight": "flight",
        "origin": "origin",
        "p": "score",
    }
    case = case_of(tmp_path, SqlTable("warehouse", database, "scores", columns=columns, merge=True))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1, 0.2, 0.3]))
    delivery.deliver(case, "warehouse", FIRST)
    publish(case.lake, FIRST, rows_of(FIRST, [0.9]))
    delivery.deliver(case, "warehouse", FIRST)
    found = {row["flight"]: round(row["p"], 6) for row in sql_rows(database)}
    assert found == {0: 0.9, 1: 0.2, 2: 0.3}


def test_a_created_column_has_the_declared_type(postgres: str, tmp_path: Path) -> None:
    destination = SqlTable(
        "warehouse", postgres, "scores", columns=KEPT, types={"score": "NUMERIC(6, 3)"}
    )
    case = case_of(tmp_path, destination)
    publish(case.lake, FIRST, rows_of(FIRST, [0.12345]))
    delivery.deliver(case, "warehouse", FIRST)
    [row] = sql_rows(postgres)
    assert str(row["score"]) == "0.123"
    assert row["at"].tzinfo is not None


def test_psycopg_reads_what_was_delivered(
    postgres: str, postgres_server: str, tmp_path: Path
) -> None:
    case = case_of(tmp_path, SqlTable("warehouse", postgres, "public.scores", columns=KEPT))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1, 0.2]))
    delivery.deliver(case, "warehouse", FIRST)
    address = postgres_server.replace("postgres://", "postgresql://")
    with psycopg.connect(address) as connection:
        found = connection.execute("SELECT day, flight FROM scores ORDER BY flight").fetchall()
    assert found == [(date.fromisoformat(FIRST), 0), (date.fromisoformat(FIRST), 1)]


def test_a_missing_table_is_made_only_if_that_is_allowed(database: str, tmp_path: Path) -> None:
    case = case_of(tmp_path, SqlTable("warehouse", database, "scores", create=False))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    with pytest.raises(BadData, match="There is no table scores"):
        delivery.deliver(case, "warehouse", FIRST)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("CREATE TABLE scores (day DATE, carrier TEXT, flight INTEGER)", "score is missing there"),
        (
            "CREATE TABLE scores (day DATE, carrier TEXT, flight INTEGER, score REAL, "
            "at TIMESTAMP, owner TEXT NOT NULL)",
            "owner needs a value and gets none",
        ),
    ],
)
def test_a_table_with_other_columns_is_refused_and_named(
    table: str, words: str, database: str, tmp_path: Path
) -> None:
    execute(database, table)
    case = case_of(tmp_path, SqlTable("warehouse", database, "scores", columns=KEPT))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    with pytest.raises(BadData, match=words):
        delivery.deliver(case, "warehouse", FIRST)
    assert sql_rows(database) == []


def test_a_table_that_refuses_rows_is_as_it_was(database: str, tmp_path: Path) -> None:
    execute(
        database,
        "CREATE TABLE scores (day DATE, carrier TEXT, flight INTEGER, score REAL NOT NULL, "
        "at TIMESTAMP)",
    )
    case = case_of(tmp_path, SqlTable("warehouse", database, "scores", columns=KEPT))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1, 0.2]))
    delivery.deliver(case, "warehouse", FIRST)
    publish(case.lake, FIRST, rows_of(FIRST, [0.3, None]))
    with pytest.raises(BadData, match="scores of the connection"):
        delivery.deliver(case, "warehouse", FIRST)
    assert sorted(round(row["score"], 6) for row in sql_rows(database)) == [0.1, 0.2]


def test_a_locked_table_is_down_after_a_while(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(tmp_path, SqlTable("warehouse", database, "scores", columns=KEPT))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    delivery.deliver(case, "warehouse", FIRST)
    monkeypatch.setattr("include.database.LOCK_SECONDS", 1)
    with connected(database, "The test cannot lock") as other:
        other.execute(text("DELETE FROM scores"))
        with pytest.raises(DependencyDown, match="cannot be written"):
            delivery.deliver(case, "warehouse", FIRST)
        other.rollback()
    assert len(sql_rows(database)) == 1


def test_a_database_that_does_not_answer_is_down(
    unused_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", f"postgres://me:secret@127.0.0.1:{unused_port}/x")
    case = case_of(tmp_path, SqlTable("warehouse", "away", "scores"))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    with pytest.raises(DependencyDown, match="scores of the connection away") as failure:
        delivery.deliver(case, "warehouse", FIRST)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("connection", "words"),
    [(None, "There is no Airflow connection 'other'"), ("http://x", "is not that of an SQL data")],
)
def test_a_connection_that_is_missing_or_of_another_kind_is_named(
    connection: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection)
    case = case_of(tmp_path, SqlTable("warehouse", "other", "scores"))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    with pytest.raises(BadData, match=words):
        delivery.deliver(case, "warehouse", FIRST)


def test_lists_are_left_out_of_a_database_unless_named(sqlite: str, tmp_path: Path) -> None:
    case = case_of(tmp_path, SqlTable("warehouse", sqlite, "scores", source="ensemble_predictions"))
    lists = pl.Series([[0.1, 0.2]], dtype=pl.Array(pl.Float32, 2))
    rows = rows_of(FIRST, [0.1]).with_columns(score_one=lists)
    publish(case.lake, FIRST, rows, "ensemble_predictions")
    delivery.deliver(case, "warehouse", FIRST)
    assert "score_one" not in sql_rows(sqlite)[0]
    named = SqlTable(
        "warehouse", sqlite, "scores", source="ensemble_predictions",
        columns={"day": "day", "lists": "score_one"},
    )  # fmt: skip
    with pytest.raises(BadData, match="cannot be delivered to a database"):
        delivery.deliver(case_of(tmp_path, named), "warehouse", FIRST)


def at_once(*calls: Callable[[], object]) -> None:
    """Call functions in threads that begin at the same moment."""
    ready = Barrier(len(calls))

    def begin(call: Callable[[], object]) -> object:
        ready.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        for answer in [threads.submit(begin, call) for call in calls]:
            answer.result()


def test_deliveries_at_the_same_moment_leave_each_row_once(postgres: str, tmp_path: Path) -> None:
    case = case_of(tmp_path, SqlTable("warehouse", postgres, "scores", columns=KEPT))
    for key in (FIRST, SECOND):
        publish(case.lake, key, rows_of(key, [0.1, 0.2, 0.3]))
    for _ in range(3):  # at first, each of them finds no table
        at_once(
            *(partial(delivery.deliver, case, "warehouse", key) for key in (FIRST, FIRST, SECOND))
        )
        assert len(sql_rows(postgres)) == 6


def test_a_merge_without_the_whole_key_is_refused(sqlite: str, tmp_path: Path) -> None:
    columns = {"carrier": "carrier", "p": "score"}
    case = case_of(tmp_path, SqlTable("warehouse", sqlite, "scores", columns=columns, merge=True))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    with pytest.raises(BadData, match="`columns` lacks date, flight, origin of it"):
        delivery.deliver(case, "warehouse", FIRST)


def test_a_null_in_the_key_is_merged_with_itself(database: str, tmp_path: Path) -> None:
    columns = {**{name: name for name in CASE.key}, "p": "score"}
    case = case_of(tmp_path, SqlTable("warehouse", database, "scores", columns=columns, merge=True))
    rows = rows_of(FIRST, [0.1, 0.2]).with_columns(carrier=pl.lit(None, pl.String))
    publish(case.lake, FIRST, rows)
    for _ in range(2):
        delivery.deliver(case, "warehouse", FIRST)
    assert len(sql_rows(database)) == 2


def test_a_score_is_not_rounded_into_a_column_of_integers(database: str, tmp_path: Path) -> None:
    execute(
        database,
        "CREATE TABLE scores (day DATE, carrier TEXT, flight INTEGER, score INTEGER, at TIMESTAMP)",
    )
    case = case_of(tmp_path, SqlTable("warehouse", database, "scores", columns=KEPT))
    publish(case.lake, FIRST, rows_of(FIRST, [0.4]))
    with pytest.raises(BadData, match="score is INTEGER there, which would change float"):
        delivery.deliver(case, "warehouse", FIRST)


def test_a_column_that_fills_itself_needs_no_value(postgres: str, tmp_path: Path) -> None:
    execute(
        postgres,
        "CREATE TABLE scores (id BIGINT GENERATED ALWAYS AS IDENTITY, day DATE, carrier TEXT, "
        "flight INTEGER, score REAL, at TIMESTAMPTZ)",
    )
    case = case_of(tmp_path, SqlTable("warehouse", postgres, "scores", columns=KEPT))
    publish(case.lake, FIRST, rows_of(FIRST, [0.4]))
    delivery.deliver(case, "warehouse", FIRST)
    assert [row["id"] for row in sql_rows(postgres)] == [1]


def test_a_database_that_is_full_is_down_and_the_table_as_it_was(
    sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(tmp_path, SqlTable("warehouse", sqlite, "scores", columns=KEPT))
    publish(case.lake, FIRST, rows_of(FIRST, [0.1]))
    delivery.deliver(case, "warehouse", FIRST)
    many = pl.concat([rows_of(FIRST, [0.2])] * 50_000)
    publish(case.lake, FIRST, many.with_columns(flight=pl.int_range(50_000, dtype=pl.Int32)))
    make = sqlalchemy.create_engine

    def small(*arguments: Any, **options: Any) -> sqlalchemy.Engine:
        engine = make(*arguments, **options)
        sqlalchemy.event.listen(
            engine, "connect", lambda opened, _: opened.execute("PRAGMA max_page_count = 40")
        )
        return engine

    monkeypatch.setattr("airflow.providers.common.sql.hooks.sql.create_engine", small)
    with pytest.raises(DependencyDown, match="full"):
        delivery.deliver(case, "warehouse", FIRST)
    monkeypatch.undo()
    monkeypatch.setenv("AIRFLOW_CONN_SQLITE_TEST", f"sqlite://{tmp_path / 'outside.db'}")
    assert [round(row["score"], 6) for row in sql_rows(sqlite)] == [0.1]
