"""Delivers a published day to a destination: all of its rows or none, and as often as needed.

A delivery replaces what an earlier one delivered, so a retry, a rerun or a backfill leaves each row
there once.
"""

import logging
import time
from collections.abc import Iterator
from datetime import datetime

import polars as pl
import pyarrow as pa

from include import metrics
from include.destinations import DERIVED, Day, DeltaTable, Destination, SqlTable
from include.errors import BadData, DependencyDown
from include.inference import delta_table, sql_table
from include.lake.files import first_line, to_arrow
from include.lake.tables import Version
from include.messages import Delivered
from include.metrics import Sample
from include.partitions import midnight, parse_key
from include.usecase import UseCase
from include.wording import listed

TRIES = 3
"""How often a day is delivered at most if it is published again meanwhile."""

log = logging.getLogger(__name__)


def deliver(case: UseCase, name: str, key: str) -> Delivered:
    """Deliver the published rows of a day.

    Args:
        name: the destination.

    Raises:
        MissingData: the day is not published.
        BadData: the destination has other columns, or refuses the rows.
        DependencyDown: the destination does not answer, or is locked or full.
    """
    destination = find(case, name)
    about = {"table": destination.source, "destination": name}
    try:
        delivered = _deliver(case, destination, key)
    except Exception:
        metrics.send(case.name, "delivery_failing", 1, **about)
        raise
    metrics.send(case.name, "delivered_rows_total", delivered.rows, **about)
    metrics.send(case.name, "delivery_failing", 0, **about)
    newest = Sample("delivered_day_timestamp_seconds", midnight(key).timestamp(), about)
    metrics.send_of_day(case.lake, destination.source, key, [newest])
    return delivered


def _deliver(case: UseCase, destination: Destination, key: str) -> Delivered:
    began = time.monotonic()
    for _ in range(TRIES):
        version = case.lake.current(destination.source, key)
        day = read(case, destination, version)
        if isinstance(destination, DeltaTable):
            where = delta_table.replace_day(case, destination, day)
        else:
            where = sql_table.replace_day(destination, day)
        if case.lake.current(destination.source, key) == version:
            break
        log.info("%s was published again meanwhile, and is delivered again", key)
    else:
        raise DependencyDown(
            f"{destination.source} of {key} was published again during each of {TRIES} deliveries "
            f"to {destination.name}. The last one is whole; the retry delivers the newest version."
        )
    log.info(
        "Delivered: %s rows of %s to %s in %.1f s: %s",
        f"{day.rows:,}", version, destination.name, time.monotonic() - began, where,
    )  # fmt: skip
    return Delivered(str(version), day.rows, where)


def find(case: UseCase, name: str) -> Destination:
    """The destination with a name."""
    return next(one for one in case.destinations if one.name == name)


def read(case: UseCase, destination: Destination, version: Version) -> Day:
    """The rows of a published version as a destination takes them, read in batches.

    Raises:
        BadData: the destination names a column that there is not.
    """
    manifest = version.manifest()
    with version.parquet("predictions", verify=False) as file:
        published = pa.schema([_plain(field) for field in file.schema_arrow])
    if taken := [name for name in published.names if name in DERIVED and name != "fallback"]:
        raise BadData(
            f"{version.table} of {case.name} has columns with the names of derived ones: "
            f"{listed(taken)}. Nothing was delivered; rename them in KEY of schema.py."
        )
    every = _available(published)
    wanted = dict(destination.columns) or _all_of(destination, every)
    if unknown := [f"{there} (from {here})" for there, here in wanted.items() if here not in every]:
        raise BadData(
            f"The destination {destination.name} of {case.name} has columns that {version.table} "
            f"cannot fill: {listed(unknown)}. There are {listed(every, 100)}. Nothing was "
            "delivered; change `columns` in its declaration."
        )
    merged = isinstance(destination, SqlTable) and destination.merge
    if merged and (lacking := [one for one in case.key if one not in wanted.values()]):
        raise BadData(
            f"The destination {destination.name} of {case.name} merges rows by their key, and "
            f"`columns` lacks {listed(lacking)} of it. Nothing was delivered; add them, or set "
            "merge=False."
        )
    schema = pa.schema([_typed(destination, there, every[here]) for there, here in wanted.items()])
    names = {here: there for there, here in wanted.items()}
    facts = {
        "usecase": case.name,
        "lake_version": str(version),
        "model_version": str(manifest.metadata.get("model", {}).get("version", "")),
        "made_from": manifest.made_from,
        "published_at": manifest.published_at,
    }
    return Day(
        date=parse_key(version.key),
        schema=schema,
        key=[names[column] for column in case.key if column in names],
        day=names.get("day", ""),
        rows=manifest.parts["predictions"].rows,
        facts=facts,
        batches=_batches(case, version, wanted, schema),
    )


def _available(published: pa.Schema) -> dict[str, pa.DataType]:
    """Every column that can be delivered, with its type."""
    derived = {
        "day": pa.date32(),
        "scored_at": pa.timestamp("us", "UTC"),
        "fallback": pa.int8(),
        "version": pa.string(),
    }
    return derived | {field.name: field.type for field in published}


def _all_of(destination: Destination, every: dict[str, pa.DataType]) -> dict[str, str]:
    """All columns, by name: the published ones first."""
    is_delta = isinstance(destination, DeltaTable)
    own = [name for name in every if name not in DERIVED or name == "fallback"]
    names = [*own, *(name for name in DERIVED if name not in own)]
    return {name: name for name in names if is_delta or not pa.types.is_nested(every[name])}


def _plain(field: pa.Field) -> pa.Field:
    """A field as destinations know it: without dictionary, and times in UTC."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_timestamp(kind):
        kind = pa.timestamp("us", "UTC" if kind.tz else None)
    return pa.field(field.name, kind)


def _typed(destination: Destination, name: str, kind: pa.DataType) -> pa.Field:
    if isinstance(destination, DeltaTable) and name in destination.types:
        try:
            kind = pa.type_for_alias(destination.types[name])
        except ValueError as error:
            raise BadData(
                f"The destination {destination.name} gives the column {name} the type "
                f"{destination.types[name]!r}, which Arrow does not know. Nothing was delivered; "
                "use one such as float64, int32, string or date32."
            ) from error
    return pa.field(name, kind)


def _batches(
    case: UseCase, version: Version, wanted: dict[str, str], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    manifest = version.manifest()
    constants = {
        "day": pl.lit(parse_key(version.key)),
        "scored_at": pl.lit(datetime.fromisoformat(manifest.published_at)).dt.cast_time_unit("us"),
        "fallback": pl.lit(0, pl.Int8),
        "version": pl.lit(version.name),
    }
    with version.parquet("predictions") as file:
        there = set(file.schema_arrow.names)
        read = [here for here in wanted.values() if here in there] or case.key[:1]
        for batch in file.iter_batches(case.settings.batch_rows, columns=read):
            rows = pl.DataFrame(pl.from_arrow(batch))
            found = rows.with_columns(
                (pl.col(here) if here in there else constants[here]).alias(f"to {name}")
                for name, here in wanted.items()
            ).select(pl.col(f"to {name}").alias(name) for name in wanted)
            try:
                table = to_arrow(found).cast(schema)
            except pa.ArrowInvalid as error:
                raise BadData(
                    f"{version.table} of {version.key} have values that `types` of a destination "
                    f"cannot hold ({first_line(error)}). Nothing was delivered; change them."
                ) from error
            yield from table.combine_chunks().to_batches()
