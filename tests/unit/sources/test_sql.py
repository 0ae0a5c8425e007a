"""Rows of a database land as their contract declares them, or say why they cannot."""

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from sqlalchemy import text

from include.database import connected
from include.errors import BadData, DependencyDown
from include.sources import sql
from tests.unit.sources.orders import ORDERS

DAY = date(2026, 11, 3)
QUERY = "SELECT day, number, customer, amount, is_paid, placed_at FROM orders WHERE day = :day"
TABLE = {
    "sqlite": "CREATE TABLE orders (day DATE, number INTEGER, customer TEXT, amount NUMERIC, "
    "is_paid BOOLEAN, placed_at TEXT)",
    "postgresql": "CREATE TABLE orders (day DATE, number BIGINT, customer TEXT, "
    "amount NUMERIC(30, 2), is_paid BOOLEAN, placed_at TIMESTAMPTZ)",
}
ROW = {
    "day": str(DAY), "number": 1, "customer": "Åsa", "amount": "12.34", "is_paid": True,
    "placed_at": "2026-11-03T10:00:00+02:00",
}  # fmt: skip


def fill(connection: str, *rows: dict[str, Any]) -> None:
    with connected(connection, "The test cannot prepare") as opened:
        opened.execute(text(TABLE[opened.dialect.name]))
        columns, values = ", ".join(ROW), ", ".join(f":{name}" for name in ROW)
        for row in rows:
            opened.execute(text(f"INSERT INTO orders ({columns}) VALUES ({values})"), row)


def rows_of(connection: str, query: str = QUERY, **parameters: Any) -> pl.DataFrame:
    found = sql.query(connection, query, parameters or {"day": str(DAY)}, ORDERS)
    return pl.concat(list(found.frames))


def test_rows_have_the_declared_types_whatever_the_database_gives(database: str) -> None:
    fill(database, ROW, {**ROW, "number": 2, "customer": None}, {**ROW, "day": "2026-11-04"})
    found = rows_of(database).sort("number")
    assert found.schema == {name: one.dtype.type for name, one in ORDERS.schema.columns.items()}
    assert found.row(0) == (DAY, 1, "Åsa", 12.34, True, datetime(2026, 11, 3, 8, tzinfo=UTC))
    assert found["customer"].to_list() == ["Åsa", None]


def test_the_origin_says_which_query_with_which_values_gave_how_many_rows(database: str) -> None:
    fill(database, ROW)
    fetched = sql.query(database, QUERY, {"day": str(DAY)}, ORDERS)
    list(fetched.frames)
    assert fetched.origin["connection"] == database
    assert fetched.origin["query"] == QUERY
    assert fetched.origin["parameters"] == {"day": "2026-11-03"}
    assert fetched.origin["rows"] == 1


def test_a_value_is_never_part_of_the_query(database: str) -> None:
    fill(database, ROW)
    query = QUERY.replace("day = :day", "customer = :who")
    assert list(sql.query(database, query, {"who": "x' OR '1'='1"}, ORDERS).frames) == []


def test_many_rows_come_in_pieces(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "ROWS", 3)
    fill(sqlite, *({**ROW, "number": number} for number in range(10)))
    frames = list(sql.query(sqlite, QUERY, {"day": str(DAY)}, ORDERS).frames)
    assert [len(frame) for frame in frames] == [3, 3, 3, 1]
    assert pl.concat(frames)["number"].to_list() == list(range(10))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"amount": "12345678901234567.89"}, "'amount' holds .*it would be rounded"),
        ({"placed_at": "2026-11-03T10:00:00"}, "'placed_at' .* has no time zone"),
        ({"number": 2**40}, "'number' holds 1099511627776, not Int32"),
    ],
)
def test_a_value_that_would_change_is_refused(
    changed: dict[str, Any], words: str, request: pytest.FixtureRequest
) -> None:
    kind = "sqlite" if "placed_at" in changed else "postgres"  # Postgres always has a zone there
    connection = request.getfixturevalue(kind)
    fill(connection, {**ROW, **changed})
    with pytest.raises(BadData, match=f"query for orders .*{words}.*Nothing landed"):
        rows_of(connection)


def test_a_type_that_the_source_has_changed_is_named(database: str) -> None:
    fill(database, ROW)
    query = QUERY.replace("number", "customer AS number", 1)
    with pytest.raises(BadData, match="column 'number' holds 'Åsa', not Int32: it is a str"):
        rows_of(database, query)


def test_a_null_in_the_key_lands_for_the_contract_to_put_aside(database: str) -> None:
    fill(database, {**ROW, "number": None})
    assert rows_of(database)["number"].to_list() == [None]


@pytest.mark.parametrize("query", ["SELECT * FROM elsewhere", "SELEC day FROM orders"])
def test_a_wrong_query_is_bad_data(query: str, database: str) -> None:
    fill(database, ROW)
    with pytest.raises(BadData, match="query for orders at the connection"):
        rows_of(database, query)


def test_a_permission_that_is_gone_is_bad_data(postgres: str, postgres_server: str) -> None:
    fill(postgres, ROW)
    with connected(postgres, "x") as opened:
        opened.execute(text("DROP ROLE IF EXISTS guest"))
        opened.execute(text("CREATE ROLE guest LOGIN"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_GUEST", postgres_server.replace("//postgres@", "//guest@"))
        with pytest.raises(BadData, match="permission denied for table orders"):
            rows_of("guest")


def test_a_connection_that_drops_in_the_middle_of_a_day_is_down(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "ROWS", 10)
    fill(postgres, *({**ROW, "number": number} for number in range(2000)))
    frames = iter(sql.query(postgres, QUERY, {"day": str(DAY)}, ORDERS).frames)
    next(frames)
    with connected(postgres, "x") as other:
        other.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )
    with pytest.raises(DependencyDown, match="query for orders"):
        list(frames)
