"""Databases that Airflow has a connection to, and what their errors mean."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from include.errors import BadData, DependencyDown, PipelineError
from include.lake.files import first_line
from include.wording import cut

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

LOCK_SECONDS = 60
"""Maximum wait for a lock that another transaction holds."""

SQLITE_DOWN = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip
"""Codes of SQLite's errors that may pass. The others are of wrong statements, though SQLite gives
them the class of errors of a database that is down."""

UNKNOWN_COLUMN = re.compile(r"unknown (column|table)|doesn't exist", re.I)
"""What MySQL says of a wrong statement, with that class."""


@contextmanager
def connected(connection_id: str, failing: str) -> Iterator["Connection"]:
    """A transaction on a database, committed if the block ends without an error.

    Args:
        connection_id: the Airflow connection.
        failing: the beginning of the message if the database refuses or does not answer.

    Raises:
        BadData: the database refuses what it is asked.
        DependencyDown: it does not answer, or is locked or full.
    """
    from sqlalchemy import text

    engine = None
    try:
        engine = _engine(connection_id)
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            yield connection
    except PipelineError:
        raise
    except Exception as error:
        if (fault := fault_of(error)) is None:
            raise
        raise fault(f"{failing}: {_said(error)}.") from error
    finally:
        if engine is not None:
            engine.dispose()


def fault_of(error: Exception) -> "type[DependencyDown] | type[BadData] | None":
    """Whether a database is down or was asked for something wrong; None if it is neither."""
    from sqlalchemy import exc

    if isinstance(error, exc.DBAPIError):
        if error.connection_invalidated:
            return DependencyDown
        if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
            return BadData if _is_wrong(error.orig) else DependencyDown
        return BadData
    if isinstance(error, exc.SQLAlchemyError):
        return DependencyDown if isinstance(error, exc.TimeoutError) else BadData
    module = type(error).__module__.partition(".")[0]
    if module in ("psycopg", "psycopg2", "sqlite3"):
        is_down = "OperationalError" in {kind.__name__ for kind in type(error).__mro__}
        return DependencyDown if is_down and not _is_wrong(error) else BadData
    return None


def _is_wrong(error: BaseException | None) -> bool:
    """Whether an operational error is one of the statement."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF not in SQLITE_DOWN
    return UNKNOWN_COLUMN.search(str(error)) is not None


def quoted_name(connection: "Connection", name: str) -> str:
    """A name as the database's SQL quotes it."""
    return str(connection.dialect.identifier_preparer.quote(name))


def _said(error: Exception) -> str:
    return cut(first_line(getattr(error, "orig", None) or error), 400)


def _engine(connection_id: str) -> "Engine":
    """The engine of an Airflow connection.

    Raises:
        BadData: the connection does not exist, or is not that of a database.
    """
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
    from sqlalchemy.pool import NullPool

    advice = "Nothing was done. Fix it in Airflow (Admin, Connections), then clear this run."
    try:
        hook: Any = BaseHook.get_hook(connection_id)
    except AirflowNotFoundException as error:
        raise BadData(
            f"There is no Airflow connection {connection_id!r}, in which the address of the "
            f"database should be. {advice}"
        ) from error
    except AirflowException as error:
        raise BadData(
            f"The Airflow connection {connection_id!r} cannot be used: {first_line(error)}. Is the "
            f"provider of this kind of database installed (requirements.txt)? {advice}"
        ) from error
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise BadData(
            f"The Airflow connection {connection_id!r} is not that of an SQL database: its hook is "
            f"{type(hook).__name__}. {advice}"
        )
    # Errors would show the values of rows and parameters.
    options: dict[str, Any] = {"poolclass": NullPool, "hide_parameters": True}
    if hook.conn_type == "sqlite":
        options["connect_args"] = {"timeout": LOCK_SECONDS}
    engine: Engine = hook.get_sqlalchemy_engine(options)
    return engine
