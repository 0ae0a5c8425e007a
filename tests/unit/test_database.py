"""What a database's errors mean: down, or asked for something wrong."""

from contextlib import suppress

import pytest
from sqlalchemy import text

from include.database import connected
from include.errors import BadData, DependencyDown


def test_a_block_that_fails_leaves_nothing(database: str) -> None:
    with connected(database, "x") as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    with suppress(ZeroDivisionError), connected(database, "x") as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise ZeroDivisionError
    with connected(database, "x") as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 0


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM nothing",
        "SELEC 1",
        "SELECT nothing",
        "SELECT #",
        "SELECT (",
        "SELECT abs(1, 2)",
    ],
)
def test_a_wrong_statement_is_bad_data(statement: str, database: str) -> None:
    with (
        pytest.raises(BadData, match=r"^The orders cannot be read: .+"),
        connected(database, "The orders cannot be read") as connection,
    ):
        connection.execute(text(statement))


def test_a_connection_that_drops_is_a_dependency_that_is_down(postgres: str) -> None:
    with pytest.raises(DependencyDown), connected(postgres, "x") as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def test_a_database_whose_provider_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ORACLE_TEST", "oracle://me@example.org/x")
    with pytest.raises(BadData, match="Is the provider of this kind of database installed"):
        connected("oracle_test", "x").__enter__()


def test_values_are_not_in_the_error_that_a_log_shows(database: str) -> None:
    with pytest.raises(BadData) as failure, connected(database, "x") as connection:
        connection.execute(text("SELECT :who FROM nothing"), {"who": "Jane Patient"})
    told: BaseException | None = failure.value
    while told is not None:
        assert "Jane" not in str(told)
        told = told.__cause__
