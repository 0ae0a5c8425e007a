"""A day's files are fetched from the source, unless they have landed already."""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING, Any

import polars as pl

from include import expected, metrics
from include.errors import BadData
from include.lake.files import exists, to_arrow, write_parquet
from include.metrics import Sample
from include.partitions import parse_key
from include.usecase import Fetched, UseCase
from include.wording import listed

if TYPE_CHECKING:
    from include.lake.files import AnyPath

ORIGIN = b"origin"
"""Entry of a landed file's metadata that says where its rows come from."""

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
        BadData: the source returned something other than Polars DataFrames.
    """
    day = parse_key(key)
    paths = {one.name: case.lake.landing_path(one.name, key) for one in case.tables[table]}
    for name, path in paths.items():
        if exists(path) or not case.input(name).expected(day):
            continue
        if (rows := case.source.fetch(name, day)) is not None:
            _write(path, name, key, rows)
    return [name for name, path in paths.items() if exists(path)]


def origin_of(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """Where the rows of a landed file come from, as its metadata say; empty if they do not."""
    found: dict[str, Any] = json.loads((metadata or {}).get(ORIGIN, b"{}"))
    return found


def _write(path: "AnyPath", name: str, key: str, rows: object) -> None:
    """Write what `fetch` returned, some rows at a time; without any frame, nothing lands."""
    frames, origin = _opened(rows)
    if (first := next(frames, None)) is None:
        return
    schema = to_arrow(_frame(name, key, first)).schema
    # A file that landed during the fetch stays: another run may be checking it by now.
    with write_parquet(path, schema, replace=False) as writer:
        for frame in chain([first], frames):
            table = to_arrow(_frame(name, key, frame))
            if table.schema != schema:
                raise BadData(
                    f"fetch({name!r}, {key}) of the use case's source.py gives frames with "
                    f"different columns: {listed(table.schema, 30)} after {listed(schema, 30)}. "
                    "Nothing landed; give every frame the same columns and types."
                )
            writer.write_table(table)
        if origin:
            writer.add_key_value_metadata({ORIGIN: json.dumps(origin).encode()})


def fetch_whole(case: UseCase, name: str, day: date) -> pl.DataFrame | None:
    """All rows of an input for a day, as the source has them now; None if it has nothing yet."""
    if (rows := case.source.fetch(name, day)) is None:
        return None
    found = [_frame(name, str(day), one) for one in _opened(rows)[0]]
    return pl.concat(found) if found else None


def _opened(rows: object) -> tuple[Iterator[Any], Mapping[str, Any]]:
    """What `fetch` returned as an iterator of frames, and where they come from."""
    if isinstance(rows, Fetched):
        return iter(rows.frames), rows.origin
    return (rows, {}) if isinstance(rows, Iterator) else (iter([rows]), {})


def _frame(name: str, key: str, rows: object) -> pl.DataFrame:
    if not isinstance(rows, pl.DataFrame):
        raise BadData(_no_frame(name, key, rows))
    return rows


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
