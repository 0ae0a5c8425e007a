"""Rows of a database, by a query of an Airflow connection, in bounded memory.

from include.sources import sql
from .schema import ORDERS

def fetch(input_name, day):
return sql.query("shop_db", "SELECT … FROM orders WHERE day = :day", {"day": day}, ORDERS)
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from include.database import connected
from include.errors import BadData
from include.sources.declared import column, types_of
from include.usecase import Fetched, Input
from include.wording import cut, listed

ROWS = 20_000
"""Rows that are fetched at once."""


def query(connection: str, text: str, parameters: Mapping[str, Any], like: Input) -> Fetched:
    """What a query returns, as the types that an input declares.

    Args:
        connection: Airflow connection of the database.
        text: the query, with parameters such as `:day`.
        parameters: their values; they are bound, never written into the text.
        like: the input that the rows are for.
    """
    said = " ".join(text.split())
    origin: dict[str, Any] = {
        "connection": connection,
        "query": cut(said, 2000),
        "query_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "parameters": {name: str(value) for name, value in parameters.items()},
        "rows": 0,
    }
    return Fetched(_frames(connection, text, parameters, like, origin), origin)


def _frames(
    connection: str,
    text: str,
    parameters: Mapping[str, Any],
    like: Input,
    origin: dict[str, Any],
) -> Iterator[pl.DataFrame]:
    """The rows, some at a time.

    Raises:
        BadData: the query is wrong, or a value is not what the input declares.
        DependencyDown: the database does not answer, or the connection drops.
    """
    import sqlalchemy

    types = types_of(like)
    failing = f"The query for {like.name} at the connection {connection} has failed"
    with connected(connection, failing) as opened:
        opened = opened.execution_options(stream_results=True, yield_per=ROWS)
        found = opened.execute(sqlalchemy.text(text), dict(parameters))
        names = list(found.keys())
        if twice := sorted({one for one in names if names.count(one) > 1}):
            raise BadData(
                f"The query for {like.name} at the connection {connection} gives {listed(twice)} "
                "twice. Nothing landed; name each column once in source.py."
            )
        for rows in found.partitions(ROWS):
            values = zip(*rows, strict=True)
            try:
                frame = pl.DataFrame(
                    [
                        column(name, own, types.get(name))
                        for name, own in zip(names, values, strict=True)
                    ]
                )
            except BadData as error:
                raise BadData(
                    f"The query for {like.name} at the connection {connection} gives rows that the "
                    f"contract does not allow: {error}. Nothing landed; change the query in "
                    "source.py or the contract in schema.py."
                ) from error
            origin["rows"] += len(frame)
            yield frame
        if not origin["rows"] and like.may_be_empty:
            yield pl.DataFrame(schema={one: types.get(one, pl.String) for one in names})
