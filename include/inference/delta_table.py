"""Delivers a day to a Delta table, as one commit that replaces the day's partition."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileInfo

from include import datasets
from include.destinations import Day, DeltaTable
from include.errors import BadData, DependencyDown
from include.lake.files import first_line
from include.usecase import UseCase
from include.wording import listed

PATIENCE = {"connect_timeout": "10s", "timeout": "60s", "max_retries": "3", "retry_timeout": "60s"}
"""How long an object store may take to answer; then the task is retried."""


def replace_day(case: UseCase, destination: DeltaTable, day: Day) -> str:
    """Replace the partition of a day; a missing table is created.

    The commit's metadata says which version of the lake the rows are from.

    Returns:
        The table and its new version.

    Raises:
        BadData: the table has other columns.
        DependencyDown: its store does not answer, or another writer was faster.
    """
    from deltalake import CommitProperties, WriterProperties, write_deltalake

    uri, options = location(case, destination)
    schema = pa.schema([pa.field(one.name, _delta_type(one.name, one.type)) for one in day.schema])
    failed: list[BaseException] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in day.batches:
                yield batch.cast(schema)
        except BaseException as error:  # Rust would hide which one it was
            failed.append(error)
            raise

    predicate = f"day = '{day.date}'"
    commit = CommitProperties(custom_metadata=day.facts)
    with _using(uri, failed):
        table = open_table(uri, options) or _create(uri, schema, options)
        _check_columns(destination, uri, table, schema)
        if day.rows:
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(schema, batches()),
                mode="overwrite",
                predicate=predicate,
                commit_properties=commit,
                writer_properties=WriterProperties(compression="ZSTD"),
            )
        else:
            table.delete(predicate, commit_properties=commit)
        table.update_incremental()
        written = str(table.version())
    datasets.wrote(datasets.folder(uri, day.schema.names, day.rows, version=written))
    return f"{uri} version {written}"


def delete_rows(case: UseCase, destination: DeltaTable, keys: pa.Table, dry_run: bool) -> int:
    """Delete the rows with one of several keys, and the files of earlier versions of the table.

    Args:
        keys: the columns there that tell which rows they are.
        dry_run: only count them.

    Returns:
        How many rows they are.

    Raises:
        DependencyDown: the table's store does not answer, or another writer was faster.
    """
    import polars as pl

    uri, options = location(case, destination)
    with _using(uri, []):
        if (table := open_table(uri, options)) is None:
            return 0
        if dry_run:
            there, wanted = pl.scan_delta(table), pl.LazyFrame(pl.from_arrow(keys))
            found = there.select(keys.column_names).join(wanted, keys.column_names, how="semi")
            return int(found.select(pl.len()).collect().item())
        same = " AND ".join(f't."{name}" = k."{name}"' for name in keys.column_names)
        merging = table.merge(keys, same, source_alias="k", target_alias="t")
        deleted = merging.when_matched_delete().execute()["num_target_rows_deleted"]
        # Earlier versions of the table would still have the rows.
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
        return int(deleted)


def vacuum(
    case: UseCase, destination: DeltaTable, days: int, dry_run: bool
) -> tuple[str, list[FileInfo]]:
    """Remove files that days have been delivered without for longer than some days.

    A table that sets `delta.deletedFileRetentionDuration` itself keeps them for that long instead.

    Returns:
        The table and these files.

    Raises:
        DependencyDown: its store does not answer.
    """
    from deltalake.fs import DeltaStorageHandler

    uri, options = location(case, destination)
    with _using(uri, []):
        if (table := open_table(uri, options)) is None:
            return uri, []
        own = "delta.deletedFileRetentionDuration" in table.metadata().configuration
        hours = None if own else 24 * days
        files = DeltaStorageHandler(uri, options).get_file_info(
            table.vacuum(hours, dry_run=True, full=True)
        )
        if files and not dry_run:
            table.vacuum(hours, dry_run=False, full=True)
    return uri, files


def open_table(uri: str, options: dict[str, str] | None) -> Any:
    """A Delta table; None if there is none yet."""
    from deltalake import DeltaTable as Opened
    from deltalake.exceptions import TableNotFoundError

    with suppress(TableNotFoundError):
        return Opened(uri, storage_options=options)
    return None


def _create(uri: str, schema: pa.Schema, options: dict[str, str] | None) -> Any:
    from deltalake import DeltaTable as Opened

    return Opened.create(uri, schema, mode="ignore", partition_by=["day"], storage_options=options)


@contextmanager
def _using(uri: str, failed: list[BaseException]) -> Iterator[None]:
    """A block that uses a table.

    Args:
        failed: errors of reading the rows, which are not the table's.

    Raises:
        DependencyDown: its store does not answer, or another writer was faster.
    """
    from deltalake.exceptions import DeltaError, SchemaMismatchError

    try:
        yield
    except Exception as error:
        if failed:
            raise failed[0] from None
        if isinstance(error, SchemaMismatchError) or "check constraint" in str(error).lower():
            raise BadData(
                f"The Delta table {uri} refuses the rows: {first_line(error)}. It is as it was. "
                "Change the table, or the destination's `columns` and `types`, then clear this run."
            ) from error
        if not isinstance(error, DeltaError | OSError):
            raise
        raise DependencyDown(
            f"The Delta table {uri} cannot be written: {first_line(error)}. It is as it was; the "
            "retry delivers the day again."
        ) from error


def location(case: UseCase, destination: DeltaTable) -> tuple[str, dict[str, str] | None]:
    """URI of a destination's table, and the options of its store."""
    uri = destination.uri or f"{case.lake.root}/delta/{destination.source}"
    if not uri.startswith("s3://"):
        return uri.removeprefix("file://"), None
    return _on_s3(uri)


def _on_s3(uri: str) -> tuple[str, dict[str, str]]:
    """An S3 URI without its connection, and that connection as options."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    name, at, path = uri.removeprefix("s3://").rpartition("@")
    hook = S3Hook(aws_conn_id=name if at else None)
    options: dict[str, str | None] = {}
    if (found := hook.get_credentials()) is not None:
        options = {
            "AWS_ACCESS_KEY_ID": found.access_key,
            "AWS_SECRET_ACCESS_KEY": found.secret_key,
            "AWS_SESSION_TOKEN": found.token,
        }
    options["AWS_ENDPOINT_URL"] = hook.conn_config.endpoint_url
    options["AWS_REGION"] = hook.region_name or "us-east-1"
    options["allow_http"] = "true"  # it is the endpoint that says whether to
    return f"s3://{path}", PATIENCE | {name: value for name, value in options.items() if value}


def _check_columns(destination: DeltaTable, uri: str, table: Any, schema: pa.Schema) -> None:
    """Refuse a table with other columns, before a row is written."""
    there = pa.schema(table.schema().to_arrow())
    wrong = [f"{name} is new" for name in schema.names if name not in there.names]
    wrong += [f"{name} is gone" for name in there.names if name not in schema.names]
    wrong += [
        f"{name} is {schema.field(name).type} and was {there.field(name).type}"
        for name in schema.names
        if name in there.names and not _alike(schema.field(name).type, there.field(name).type)
    ]
    if wrong:
        raise BadData(
            f"The Delta table {uri} has other columns than {destination.name} delivers: "
            f"{listed(wrong)}. Nothing was delivered, and the table is as it was. Declare another "
            "`uri`, or `columns` and `types` that fit, or change the table; then clear this run."
        )


def _delta_type(name: str, kind: pa.DataType) -> pa.DataType:
    """The type of Delta that holds the values of an Arrow type.

    Raises:
        BadData: there is none.
    """
    wider = {
        pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20, 0), pa.large_string(): pa.string(),
        pa.large_binary(): pa.binary(), pa.float16(): pa.float32(), pa.date64(): pa.date32(),
    }  # fmt: skip
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_delta_type(name, kind.value_type))
    known = (
        pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind)
        or pa.types.is_decimal(kind) or pa.types.is_boolean(kind)
    ) and not (pa.types.is_time(kind) or pa.types.is_duration(kind))  # fmt: skip
    if kind not in wider and not known:
        raise BadData(
            f"The column {name} has the type {kind}, which Delta does not know. Nothing was "
            "delivered; leave it out of the declared `columns`, or give it another type in `types`."
        )
    return wider.get(kind, kind)


def _alike(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether two types hold the same values: Delta does not know all of Arrow's."""
    return one == other or (_family(one) is not None and _family(one) == _family(other))


def _family(kind: pa.DataType) -> str | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        return "text"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or str(kind) == "binary_view":
        return "bytes"
    if pa.types.is_timestamp(kind):
        return "time with a zone" if kind.tz else "time"
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        return f"list of {_family(kind.value_type) or kind.value_type}"
    return None
