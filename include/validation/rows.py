"""The second gate: bad rows go to quarantine, each with its reasons."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandera.errors
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pandera.errors import SchemaErrorReason

from include import landed
from include.errors import BadData
from include.lake.files import hashed, identity, open_parquet, to_arrow
from include.lake.tables import Version
from include.landed import foreign_data
from include.messages import LandedFile, RowCheck
from include.partitions import parse_key
from include.statistics.profile import Profiler
from include.statistics.profiles import keep
from include.usecase import REASONS, Input, UseCase
from include.validation.report import failure_message, in_file, write_report
from include.values import infinite
from include.wording import cut, quoted

if TYPE_CHECKING:
    from include.lake.files import AnyPath


def check_rows(case: UseCase, landed_file: LandedFile) -> RowCheck:
    """Split one landed file into valid rows (a part of the version) and quarantined ones.

    Rows are read, checked and written a slice at a time; only the key is held for all rows. The
    file is read more than once, so it must not change meanwhile.

    Raises:
        BadData: the file's pages cannot be read, are too large, or changed while they were read.
    """
    target = case.lake.version(landed_file.version)
    path = case.lake.landing_path(landed_file.input_name, target.key)
    tally = RowTally(case.input(landed_file.input_name))
    try:
        tally.file = _identity_or_none(path) or landed_file.file
        _check_unchanged(landed_file.file, tally.file)
        _split_rows(case, target, tally)
        tally.sha256 = _hash(path)
        _check_unchanged(tally.file, _identity_or_none(path))
        if not tally.rows and not tally.input.may_be_empty:
            raise BadData("the file has no rows")
    except BadData as error:
        breaches = [in_file(str(error), path)]
        page = write_report(target, breaches, [], [])
        raise BadData(failure_message(target, breaches, page)) from error
    return tally.result(landed_file.version, landed_file.origin)


def quarantine_of(version: Version) -> Version:
    """The version of the quarantine that belongs to a version."""
    return Version(version.lake, f"quarantine/{version.table}", version.key, version.name)


def _identity_or_none(path: "AnyPath") -> str | None:
    with suppress(FileNotFoundError):
        return identity(path)
    return None


def _hash(path: "AnyPath") -> str:
    """SHA-256 of a file in a folder; empty for one of a store, whose etag names its content."""
    if isinstance(path, Path):
        with suppress(FileNotFoundError), path.open("rb") as data:
            return hashed(data)[0]
    return ""


def _check_unchanged(before: str, now: str | None) -> None:
    """Make sure that a file is still what it was when it was first looked at.

    Raises:
        BadData: it was replaced, changed or removed.
    """
    if before and now != before:
        raise BadData(
            f"the file was {'replaced or changed' if now else 'removed'} while it was being "
            f"checked (before: {before}; now: {now or 'gone'})"
        )


def _split_rows(case: UseCase, target: Version, tally: "RowTally") -> None:
    name, day = tally.input.name, parse_key(target.key)
    path = target.lake.landing_path(name, target.key)
    with foreign_data("the columns cannot be read"), open_parquet(path) as file:
        # Not the file's own types: they may forbid nulls, and NaN becomes null.
        empty = pl.DataFrame(pl.from_arrow(file.schema_arrow.empty_table()))
        valid_schema = to_arrow(empty).schema
    rejected_schema = valid_schema.append(pa.field(REASONS, pa.list_(pa.string())))
    with (
        target.write(name, valid_schema) as valid,
        quarantine_of(target).write(name, rejected_schema) as rejected,
    ):
        profiler = Profiler()
        for good, bad in checked_slices(case, path, tally.input, day, tally):
            profiler.add(good)
            _write(case, valid, good, valid_schema)
            if bad is not None:
                _write(case, rejected, bad, rejected_schema)
    keep(target, name, profiler.result())


def _write(
    case: UseCase, writer: pq.ParquetWriter, rows: pl.DataFrame, file_schema: pa.Schema
) -> None:
    columns = []
    for one in file_schema:
        with foreign_data(f"column {quoted(one.name)} cannot be published"):
            columns.append(to_arrow(rows.select(one.name)).column(0).cast(one.type))
    writer.write_table(pa.table(columns, schema=file_schema), case.settings.batch_rows)


class RowTally:
    """Counts over all slices of one file."""

    def __init__(self, table_input: Input):
        self.input = table_input
        self.rows = self.quarantined = self.duplicates = 0
        self.failures: dict[str, int] = {}
        self.nulls: dict[str, int] = dict.fromkeys(table_input.schema.columns, 0)
        self.last_event: datetime | None = None
        self.file = self.sha256 = ""

    def split(
        self, rows: pl.DataFrame, failures: dict[str, pl.Series]
    ) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """Count one slice; returns its valid rows, and its bad ones with their `reasons`."""
        self.rows += len(rows)
        for name, nulls in rows.null_count().row(0, named=True).items():
            self.nulls[name] += nulls
        valid, rejected = rows, None
        if failures:
            marks = pl.DataFrame(failures)
            for reason, count in marks.sum().row(0, named=True).items():
                self.failures[reason] = self.failures.get(reason, 0) + count
            bad = marks.select(pl.any_horizontal(pl.all())).to_series()
            self.quarantined += int(bad.sum())
            reasons = marks.filter(bad).select(
                pl.concat_list(
                    pl.when(pl.col(reason)).then(pl.lit(reason)) for reason in failures
                ).list.drop_nulls()
            )
            valid = rows.filter(~bad)
            rejected = rows.filter(bad).with_columns(reasons.to_series().alias(REASONS))
        latest = valid[self.input.event_time].max() if self.input.event_time else None
        if isinstance(latest, datetime):
            self.last_event = max(latest, self.last_event or latest)
        return valid, rejected

    def result(self, version: str, origin: dict[str, Any]) -> RowCheck:
        """The counts as they travel to the next task."""
        return RowCheck(
            version=version,
            input=self.input.name,
            rows=self.rows,
            valid=self.rows - self.quarantined,
            quarantined=self.quarantined,
            duplicates=self.duplicates,
            failures=self.failures,
            null_rates={name: nulls / max(self.rows, 1) for name, nulls in self.nulls.items()},
            last_event=self.last_event.isoformat() if self.last_event else None,
            file=self.file,
            sha256=self.sha256,
            origin=origin,
        )


def checked_slices(
    case: UseCase, path: "AnyPath", table_input: Input, day: date, tally: RowTally
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame | None]]:
    """Check a file's rows slice by slice.

    Yields:
        The slice's valid rows, and its bad ones with their `reasons` (None if it has none).

    Raises:
        BadData: the file's pages cannot be read, although its footer could.
    """
    with foreign_data("the rows cannot be read to the end"):
        duplicated = duplicated_keys(case, path, table_input)
        tally.duplicates = 0 if duplicated is None else int(duplicated.sum())
        start = 0
        for rows in _ahead(landed.slices(case, path, table_input.max_text_bytes)):
            failures = row_failures(table_input, rows, day)
            if duplicated is not None:
                failures["key: not unique"] = duplicated.slice(start, len(rows))
            start += len(rows)
            yield tally.split(rows, failures)


def duplicated_keys(case: UseCase, path: "AnyPath", table_input: Input) -> pl.Series | None:
    """Which rows of a file share their key with another; None if no row does.

    At first only a hash of each key is held: keys are compared only where hashes are equal.
    """
    keys_of_slices = partial(landed.slices, case, path, table_input.max_text_bytes, table_input.key)
    slices = [keys.hash_rows() for keys in _ahead(keys_of_slices())]
    hashes = pl.concat(slices) if slices else pl.Series([], dtype=pl.UInt64)
    if hashes.n_unique() == len(hashes):
        return None
    duplicated = hashes.is_duplicated()
    suspects = duplicated.arg_true()
    keys = pl.concat(keys_of_slices())[suspects]
    return duplicated.scatter(suspects, keys.is_duplicated())


def _ahead(slices: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same slices, each read while the one before it is processed."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, slices, None)
        while (rows := coming.result()) is not None:
            coming = reader.submit(next, slices, None)
            yield rows


def row_failures(table_input: Input, rows: pl.DataFrame, day: date) -> dict[str, pl.Series]:
    """Which rows break which rule.

    Returns:
        Reason → boolean series, true where the row breaks the rule; only rules that a row breaks.

    Raises:
        BadData: a check of the schema does not say which rows break it.
    """
    failures: dict[str, pl.Series] = {}
    try:
        table_input.schema.validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        for error in errors.schema_errors:
            if error.check_output is None:
                raise BadData(
                    f"a check of schema.py does not say which rows break it: "
                    f"{cut(str(error), 1000)}"
                ) from error
            passed = error.check_output["check_output"]
            failures[f"{error.schema.name}: {_rule(error)}"] = ~passed.fill_null(True)
    for name, marks in infinite(rows).items():
        for reason, found in failures.items():
            if reason.startswith(f"{name}: "):
                marks &= ~found
        if marks.any():
            failures[f"{name}: infinite"] = marks
    strangers = rows.select(~table_input.belongs(day).fill_null(False)).to_series()
    if strangers.any():
        failures["row of another day"] = strangers
    return failures


def _rule(error: pandera.errors.SchemaError) -> str:
    if error.reason_code == SchemaErrorReason.SERIES_CONTAINS_NULLS:
        return "missing"
    check = error.check
    return str(getattr(check, "error", None) or getattr(check, "name", None) or check)
