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
    "statement", ["SELECT * FROM nothing", "SELEC 1", "SELECT nothing", "SELECT 'a' + DATE 'b'"]
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
