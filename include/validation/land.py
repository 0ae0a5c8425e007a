"""A day's files are fetched from the source, unless they have landed already."""

import time

import polars as pl

from include import expected, metrics
from include.errors import BadData
from include.lake.files import exists, to_arrow, write_parquet
from include.metrics import Sample
from include.partitions import parse_key
from include.usecase import UseCase

FOLLOWED = ("validated", "predictions", "ensemble_predictions")
"""Tables whose age is alerted on: each gets a new day whenever one is due."""


def is_due(case: UseCase, table: str, key: str) -> bool:
    """Whether there is a day to validate: its data is expected, or has landed anyway."""
    main = case.lake.landing_path(case.tables[table][0].name, key)
    return expected.is_expected(case, table, key) or exists(main)


def pass_over(case: UseCase, table: str, key: str) -> None:
    """Record that no data is due for a day, so that tables with every due day are not stale."""
    before = expected.expected_before(case, key)
    if table != "validated" or before is None:
        return
    complete = [name for name in FOLLOWED if case.lake.readable_manifest(name, before) is not None]
    now = time.time()
    samples = [
        Sample("last_published_timestamp_seconds", now, {"table": name}) for name in complete
    ]
    metrics.send_of_day(case.lake, table, key, samples)


def land(case: UseCase, table: str, key: str) -> list[str]:
    """Fetch the expected files of a day that have not landed yet.

    A landed file is never replaced, so a file that a person has put there or repaired stays.

    Returns:
        Names of the table's inputs that have a file now.

    Raises:
        BadData: the source returned something other than a Polars DataFrame.
    """
    day = parse_key(key)
    paths = {one.name: case.lake.landing_path(one.name, key) for one in case.tables[table]}
    for name, path in paths.items():
        if exists(path) or not case.input(name).expected(day):
            continue
        if (rows := case.source.fetch(name, day)) is not None:
            if not isinstance(rows, pl.DataFrame):
                raise BadData(_no_frame(name, key, rows))
            table_rows = to_arrow(rows)
            # A file that landed during the fetch stays: another run may be checking it by now.
            with write_parquet(path, table_rows.schema, replace=False) as writer:
                writer.write_table(table_rows)
    return [name for name, path in paths.items() if exists(path)]


def _no_frame(name: str, key: str, rows: object) -> str:
    library, kind = type(rows).__module__.partition(".")[0], type(rows).__name__
    how = {
        ("pandas", "DataFrame"): "Return pl.from_pandas(frame), nullable columns as they were",
        ("pyarrow", "Table"): "Return pl.from_arrow(table)",
        ("polars", "LazyFrame"): "Return frame.collect()",
    }.get((library, kind), "Return a pl.DataFrame, or None if there is nothing for the day")
    return (
        f"fetch({name!r}, {key}) of the use case's source.py returned a {kind} of {library}, not a "
        f"Polars DataFrame. Nothing landed. {how}; then clear this run."
    )
