"""Where a use case's predictions are delivered, beside the lake: Delta tables and SQL tables.

A use case declares them as `destinations`. `include.inference.delivery` delivers a day.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Literal, get_args

from include.names import check_name

if TYPE_CHECKING:
    import pyarrow as pa

Source = Literal["predictions", "ensemble_predictions"]

DERIVED = ("day", "scored_at", "fallback", "version")
"""Columns that can be delivered in addition to the published ones: the partition's day, when the
day was published, what made the prediction (0: the model or all members), and the lake's version of
the day."""


@dataclass(frozen=True)
class DeltaTable:
    """A Delta table, in which each day is a partition.

    Attributes:
        name: its name, which is also that of its task.
        source: the published table that is delivered.
        uri: its folder or URI, such as `s3://connection@bucket/scores`; empty: `delta/<source>`
            in the use case's lake.
        columns: column there → published or derived column; empty: all of them. `day` is needed.
        types: column there → Arrow type, such as `float64`; the others keep theirs.
    """

    name: str = "delta"
    source: Source = "predictions"
    uri: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        _check(self)
        if self.columns and self.columns.get("day") != "day":
            raise ValueError(f"destination {self.name}: columns lacks 'day': 'day', its partition")


@dataclass(frozen=True)
class SqlTable:
    """A table of a database that Airflow has a connection to.

    Attributes:
        name: its name, which is also that of its task.
        connection: Airflow connection of the database.
        table: the table, such as `scores` or `analytics.scores`; it is created if it is missing
            and `create` is true.
        source: the published table that is delivered.
        columns: column there → published or derived column; empty: all that are not lists.
        types: column there → type of a created column, in the database's words.
        merge: whether a row replaces the one with the same key, so that rows missing from a new
            delivery are kept.
            Otherwise a day's rows replace all rows of that day, for which `day` is needed.
        create: whether a missing table is created.
    """

    name: str
    connection: str
    table: str
    source: Source = "predictions"
    columns: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    merge: bool = False
    create: bool = True

    def __post_init__(self) -> None:
        """Refuse what could never work."""
        _check(self)
        if not re.fullmatch(r"(\w+\.)?\w+", self.table, re.ASCII):
            raise ValueError(
                f"destination {self.name}: table is {self.table!r}, not a name such as scores or "
                "analytics.scores"
            )
        if not self.connection:
            raise ValueError(f"destination {self.name}: name the connection of its database")
        if self.columns and not self.merge and "day" not in self.columns.values():
            raise ValueError(
                f"destination {self.name}: columns lacks the derived column 'day', by which a day "
                "is replaced; add it, or set merge=True"
            )


Destination = DeltaTable | SqlTable


@dataclass(frozen=True)
class Day:
    """The rows of a day as a destination takes them.

    Attributes:
        key: columns there that identify a row.
        day: column there with the partition's day; empty if there is none.
        facts: where the rows come from, as texts.
    """

    date: date
    schema: "pa.Schema"
    key: list[str]
    day: str
    rows: int
    facts: dict[str, str]
    batches: "Iterator[pa.RecordBatch]"


def _check(one: Destination) -> None:
    check_name("destination", one.name)
    if one.source not in get_args(Source):
        raise ValueError(
            f"destination {one.name}: source is {one.source!r}, not {' or '.join(get_args(Source))}"
        )
    if unknown := sorted(set(one.types) - set(one.columns or one.types)):
        raise ValueError(f"destination {one.name}: types has {unknown[0]}, which columns lacks")
