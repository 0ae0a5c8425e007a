"""Delivers a day to a table of a database, in one transaction.

The rows are copied into a temporary table, in batches. Then they replace the day's rows, or those
with the same keys. A connection that ends before the commit leaves the table as it was.
"""

import secrets
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from include import datasets
from include.database import connected, quoted_name
from include.datasets import CONNECTION, Dataset
from include.destinations import Day, SqlTable
from include.errors import BadData
from include.wording import listed

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table


INSERT_ROWS = 5_000
"""Rows of one INSERT, where the database has no faster way."""


def replace_day(destination: SqlTable, day: Day) -> str:
    """Replace a day's rows in a table, or with `merge` the rows with the same keys.

    Returns:
        The table and its connection.

    Raises:
        BadData: the table is missing, has other columns, or refuses rows.
        DependencyDown: the database does not answer, or is locked or full.
    """
    from sqlalchemy import and_, delete, exists, select

    where = f"{destination.table} of the connection {destination.connection}"
    with connected(destination.connection, f"The table {where} cannot be written") as connection:
        _wait_for_others(connection, destination)
        target = _target(connection, destination, day)
        staging = _staging(connection, target, day.schema)
        for batch in day.batches:
            _load(connection, staging, batch)
        if destination.merge:
            same = and_(*(target.c[name].is_not_distinct_from(staging.c[name]) for name in day.key))
            connection.execute(delete(target).where(exists().where(same)))
        else:
            connection.execute(delete(target).where(target.c[day.day] == day.date))
        names = day.schema.names
        rows = select(*(staging.c[name] for name in names))
        connection.execute(target.insert().from_select(names, rows))
        staging.drop(connection)
        written = _dataset(connection, destination, day)
    datasets.wrote(written)
    return where


def delete_rows(destination: SqlTable, keys: pa.Table, dry_run: bool) -> int:
    """Delete the rows with one of several keys.

    Args:
        keys: the columns there that tell which rows they are.
        dry_run: only count them.

    Returns:
        How many rows they are; 0 without a table.

    Raises:
        BadData: the table lacks one of the columns.
        DependencyDown: the database does not answer, or is locked.
    """
    from sqlalchemy import and_, delete, exists, func, inspect, select

    where = f"{destination.table} of the connection {destination.connection}"
    with connected(destination.connection, f"Rows of {where} cannot be erased") as connection:
        _wait_for_others(connection, destination)
        target = _declared(destination, keys.schema)
        if not inspect(connection).has_table(target.name, schema=target.schema):
            return 0
        staging = _staging(connection, target, keys.schema)
        for batch in keys.to_batches():
            _load(connection, staging, batch)
        same = and_(*(target.c[name] == staging.c[name] for name in keys.column_names))
        matching = exists().where(same)
        found = connection.execute(select(func.count()).select_from(target).where(matching))
        number = int(found.scalar_one())
        if not dry_run:
            connection.execute(delete(target).where(matching))
        staging.drop(connection)
    return number


def _declared(destination: SqlTable, schema: pa.Schema) -> "Table":
    """The destination's table with these columns, whether it is there or not."""
    from sqlalchemy import Column, MetaData, Table

    place, _, name = destination.table.rpartition(".")
    columns = [Column(field.name, _sql_type(field.type)) for field in schema]
    return Table(name, MetaData(), *columns, schema=place or None)


def _dataset(connection: "Connection", destination: SqlTable, day: Day) -> Dataset:
    """What was delivered, under the name of the table: database, schema, table."""
    place, _, name = destination.table.rpartition(".")
    levels = [connection.engine.url.database, place or connection.dialect.default_schema_name, name]
    full = ".".join(dict.fromkeys(one for one in levels if one))  # in MySQL, a schema is a database
    namespace = f"{CONNECTION}{destination.connection}"
    return Dataset(namespace, full, tuple(day.schema.names), day.rows)


def _wait_for_others(connection: "Connection", destination: SqlTable) -> None:
    """Let one delivery to a table end before the next one begins.

    Two of the same day would not see each other's rows, and both would insert them. SQLite locks
    the whole file.
    """
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        lock = text("SELECT pg_advisory_xact_lock(hashtext(:name))")
        connection.execute(lock, {"name": f"delivery to {destination.table}"})


def _target(connection: "Connection", destination: SqlTable, day: Day) -> "Table":
    """The table, which is created if it is missing.

    Raises:
        BadData: it is missing and may not be created, or has other columns.
    """
    from sqlalchemy import inspect, text

    table = _declared(destination, day.schema)
    if not inspect(connection).has_table(table.name, schema=table.schema):
        if not destination.create:
            raise BadData(
                f"There is no table {destination.table} at the connection "
                f"{destination.connection}, and {destination.name} may not create it. Nothing was "
                "delivered; create the table, or declare create=True."
            )
        described = ", ".join(
            f"{quoted_name(connection, one)} "
            f"{destination.types.get(one) or table.c[one].type.compile(connection.dialect)}"
            for one in day.schema.names
        )
        preparer = connection.dialect.identifier_preparer
        connection.execute(text(f"CREATE TABLE {preparer.format_table(table)} ({described})"))
        return table
    there = {one["name"]: one for one in inspect(connection).get_columns(table.name, table.schema)}
    wrong = [f"{one} is missing there" for one in day.schema.names if one not in there]
    wrong += [
        f"{field.name} is {there[field.name]['type']} there, which would change {field.type}"
        for field in day.schema
        if field.name in there and not _fits(field.type, there[field.name]["type"])
    ]
    wrong += [
        f"{one} needs a value and gets none"
        for one, facts in there.items()
        if one not in day.schema.names and not facts["nullable"] and not _fills_itself(facts)
    ]
    if wrong:
        raise BadData(
            f"The table {destination.table} of the connection {destination.connection} has other "
            f"columns than {destination.name} delivers: {listed(wrong)}. Nothing was delivered. "
            "Change the table or the declared `columns`, then clear this run."
        )
    return table


def _fits(kind: pa.DataType, there: Any) -> bool:
    """Whether a column of a table holds the values of an Arrow type without changing them."""
    import sqlalchemy as sa

    is_number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if is_number and isinstance(there, sa.Integer | sa.Boolean | sa.Date | sa.DateTime):
        return False
    return not (pa.types.is_timestamp(kind) and isinstance(there, sa.Date | sa.Integer))


def _fills_itself(facts: Any) -> bool:
    """Whether a column of a table gets a value without being given one."""
    return (
        facts.get("default") is not None
        or facts.get("autoincrement") is True
        or bool(facts.get("identity") or facts.get("computed"))
    )


def _staging(connection: "Connection", target: "Table", schema: pa.Schema) -> "Table":
    """An empty temporary table for the rows; it ends with the connection."""
    from sqlalchemy import Column, MetaData, Table

    columns = [Column(field.name, _sql_type(field.type)) for field in schema]
    name = f"staging_{target.name[:40]}_{secrets.token_hex(4)}"
    staging = Table(name, MetaData(), *columns, prefixes=["TEMPORARY"])
    staging.create(connection)
    return staging


def check_types(day: Day) -> None:
    """Check that a database can hold each column.

    Raises:
        BadData: it cannot.
    """
    for field in day.schema:
        _sql_type(field.type)


def _sql_type(kind: pa.DataType) -> Any:
    """The SQL type that holds the values of an Arrow type.

    Raises:
        BadData: there is none.
    """
    import sqlalchemy as sa

    if pa.types.is_decimal(kind):
        return sa.Numeric(kind.precision, kind.scale)
    if pa.types.is_timestamp(kind):
        return sa.DateTime(timezone=kind.tz is not None)
    known = {
        pa.bool_(): sa.Boolean(), pa.int8(): sa.SmallInteger(), pa.int16(): sa.SmallInteger(),
        pa.int32(): sa.Integer(), pa.int64(): sa.BigInteger(), pa.uint8(): sa.SmallInteger(),
        pa.uint16(): sa.Integer(), pa.uint32(): sa.BigInteger(), pa.uint64(): sa.Numeric(20, 0),
        pa.float32(): sa.REAL(), pa.float64(): sa.Double(), pa.string(): sa.Text(),
        pa.large_string(): sa.Text(), pa.date32(): sa.Date(), pa.binary(): sa.LargeBinary(),
        pa.large_binary(): sa.LargeBinary(),
    }  # fmt: skip
    if kind not in known:
        raise BadData(
            f"A column of the type {kind} cannot be delivered to a database. Nothing was "
            "delivered; leave it out of the declared `columns`."
        )
    return known[kind]


def _load(connection: "Connection", staging: "Table", batch: pa.RecordBatch) -> None:
    if connection.dialect.name == "postgresql":
        _copy(connection, staging, batch)
        return
    for start in range(0, batch.num_rows, INSERT_ROWS):
        connection.execute(staging.insert(), batch.slice(start, INSERT_ROWS).to_pylist())


def _copy(connection: "Connection", staging: "Table", batch: pa.RecordBatch) -> None:
    """Load rows with Postgres's COPY, which psycopg 2 and 3 do in different ways."""
    import io

    import polars as pl

    columns = ", ".join(quoted_name(connection, name) for name in batch.schema.names)
    command = f"COPY {quoted_name(connection, staging.name)} ({columns}) FROM STDIN (FORMAT csv)"
    rows = pl.DataFrame(pl.from_arrow(batch)).with_columns(
        pl.selectors.binary().bin.encode("hex").str.replace("", r"\x", literal=True)
    )
    content = rows.write_csv(include_header=False, quote_style="non_numeric").encode()
    cursor: Any = connection.connection.cursor()
    try:
        if hasattr(cursor, "copy"):
            with cursor.copy(command) as copy:
                copy.write(content)
        else:
            cursor.copy_expert(command, io.BytesIO(content))
    finally:
        cursor.close()
