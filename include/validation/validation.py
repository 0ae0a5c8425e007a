"""Is a landed day fit to be scored? Contract, rows, partition; then publish, or say why not.

Three gates, each stricter in what it has seen: the contract looks at columns and types only, the
row checks put bad rows aside with their reasons, the partition check judges the day as a whole.
"""

import difflib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pandera.errors
import pandera.polars
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader
from pandera.errors import SchemaErrorReason

from include import expected, landed, metrics
from include.errors import BadData, MissingData, Overtaken
from include.lake.files import (
    exists,
    hashed,
    identity,
    open_parquet,
    put_text,
    read_json,
    to_arrow,
    write_parquet,
)
from include.lake.tables import Version
from include.landed import foreign_data
from include.messages import LandedFile, RowCheck
from include.metrics import Sample
from include.partitions import days_before, parse_key
from include.statistics.profile import Profiler
from include.statistics.profiles import keep
from include.usecase import REASONS, Input, UseCase
from include.values import infinite
from include.wording import counted, cut, few, listed, quoted

if TYPE_CHECKING:
    from include.lake.files import AnyPath

log = logging.getLogger(__name__)

FOLLOWED = ("validated", "predictions", "ensemble_predictions")
"""Tables that get a new day whenever one is due, or somebody is called."""


def names_of(case: UseCase, table: str) -> list[str]:
    """Names of the inputs that are validated and published together in a table."""
    return [table_input.name for table_input in case.tables[table]]


@dataclass(frozen=True)
class Report:
    """The outcome of validating one partition; kept as JSON and as a page."""

    table: str
    key: str
    state: str
    version: str
    checked_at: str
    breaches: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    inputs: list[RowCheck] = field(default_factory=list)


def is_due(case: UseCase, table: str, key: str) -> bool:
    """Whether there is a day to validate: it is expected, or has landed all the same."""
    main = case.lake.landing_path(case.tables[table][0].name, key)
    return expected.is_expected(case, table, key) or exists(main)


def pass_over(case: UseCase, table: str, key: str) -> None:
    """Note that no data is due for a day: tables with all days that were due are not stale."""
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
    """Fetch what has not landed yet of a day from the source, as far as it is expected.

    A file that is there is never replaced: the person who dropped or repaired it has the last word.

    Returns:
        Names of the table's inputs that have a file now.

    Raises:
        BadData: the source gives something else than a Polars frame.
    """
    day = parse_key(key)
    for name in names_of(case, table):
        path = case.lake.landing_path(name, key)
        if exists(path) or not case.input(name).expected(day):
            continue
        if (rows := case.source.fetch(name, day)) is not None:
            if not isinstance(rows, pl.DataFrame):
                raise BadData(_no_frame(name, key, rows))
            table_rows = to_arrow(rows)
            # A file that landed during the fetch stays: another run may be checking it by now.
            with write_parquet(path, table_rows.schema, replace=False) as writer:
                writer.write_table(table_rows)
    return [name for name in names_of(case, table) if exists(case.lake.landing_path(name, key))]


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


def check_contract(case: UseCase, table: str, key: str) -> list[LandedFile]:
    """Check that every landed file of a day is readable Parquet with the contract's columns.

    Returns:
        Each file that is there, for `check_rows`.

    Raises:
        BadData: naming every breach in every file.
        MissingData: a required file has not landed.
    """
    day = parse_key(key)
    version = case.lake.new_version(table, key)
    breaches: list[str] = []
    missing: list[str] = []
    present: dict[str, str] = {}
    for name in names_of(case, table):
        path = case.lake.landing_path(name, key)
        try:
            looked_at = identity(path)
            with foreign_data(f"{path}: its columns cannot be read"), open_parquet(path) as file:
                found, rows = file.schema_arrow, file.metadata.num_rows
        except FileNotFoundError:
            if case.input(name).required and case.input(name).expected(day):
                missing.append(f"There is no file {path}")
            continue
        except MissingData as error:
            if case.input(name).required and case.input(name).expected(day):
                missing.append(str(error))
            continue
        except BadData as error:
            breaches.append(str(error))
            continue
        present[name] = looked_at
        breaches += [
            f"{breach}, in {path}" for breach in contract_breaches(case.input(name), found)
        ]
        if rows == 0 and not case.input(name).may_be_empty:
            breaches.append(f"the file has no rows: {path}")
    if breaches or missing:
        page = write_report(version, breaches + missing, [], [])
        message = _failure(version, breaches + missing, page)
        raise BadData(message) if breaches else MissingData(message)
    return [LandedFile(name, str(version), looked_at) for name, looked_at in present.items()]


def contract_breaches(table_input: Input, found: pa.Schema) -> list[str]:
    """Every way in which a file's columns differ from the contract, in words."""
    expected, counts = list(table_input.schema.columns), Counter(found.names)
    common, extra = [n for n in counts if n in expected], [n for n in counts if n not in expected]
    in_order = [name for name in expected if name in counts]
    missing = []
    for name in expected:
        if name not in counts:
            short = [other for other in extra[:1000] if len(other) < 100]
            similar = difflib.get_close_matches(name, short, 1)
            renamed = f" (is it {similar[0]!r} now?)" if similar else ""
            missing.append(f"column {name!r} is missing{renamed}")
    breaches = [
        *few([f"column {quoted(name)} is there {n} times" for name, n in counts.items() if n > 1]),
        *missing,
        *few([f"column {quoted(name)} is not in the contract" for name in extra]),
    ]
    if common != in_order:
        breaches.append(
            f"columns are in another order: {listed(common, 50)}; must be {listed(in_order, 50)}"
        )
    types = {name: found.field(found.names.index(name)).type for name in in_order}
    return breaches + _type_breaches(table_input, types)


def _type_breaches(table_input: Input, types: dict[str, pa.DataType]) -> list[str]:
    """Every column whose type is not the contract's, or is none that can be read."""
    there, unreadable = {}, {}
    for name, dtype in types.items():
        try:
            with foreign_data(name):
                there[name] = pl.Series(pa.array([], dtype))
        except BadData:
            unreadable[name] = f"{cut(str(dtype))}, which cannot be read here"
    columns = {name: table_input.schema.columns[name] for name in there}
    wrong = dict(unreadable)
    try:
        with foreign_data("the columns' types cannot be read"):
            pandera.polars.DataFrameSchema(columns).validate(pl.DataFrame(there), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        for error in errors.schema_errors:
            if error.reason_code == SchemaErrorReason.WRONG_DATATYPE:
                name = error.schema.name
                wrong[name] = cut(str(there[name].dtype), 1000)
    return [
        f"column {name!r} is {wrong[name]}, must be {table_input.schema.columns[name].dtype}"
        for name in types
        if name in wrong
    ]


def check_rows(case: UseCase, landed_file: LandedFile) -> RowCheck:
    """Split one landed file into valid rows (a part of the version) and quarantined ones.

    Rows are read, checked and written a slice at a time; only the key is held for all rows. The
    file is read more than once, so it must be the same one all the time.

    Raises:
        BadData: the file's pages cannot be read, though its footer could; or they are too large;
            or it was replaced.
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
            raise BadData("the file has no rows any more")
    except BadData as error:
        breaches = [f"{path}: {error}"]
        page = write_report(target, breaches, [], [])
        raise BadData(_failure(target, breaches, page)) from error
    return tally.result(landed_file.version)


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
    """Make sure that a file still is what it was when it was first looked at.

    Raises:
        BadData: it was replaced, changed or removed.
    """
    if before and now != before:
        raise BadData(
            f"the file was {'replaced or changed' if now else 'removed'} while it was being "
            f"checked. It was: {before}. It is: {now or 'gone'}"
        )


def _split_rows(case: UseCase, target: Version, tally: "RowTally") -> None:
    name, day = tally.input.name, parse_key(target.key)
    path = target.lake.landing_path(name, target.key)
    with foreign_data("its columns cannot be read"), open_parquet(path) as file:
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

    def result(self, version: str) -> RowCheck:
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
        )


def checked_slices(
    case: UseCase, path: "AnyPath", table_input: Input, day: date, tally: RowTally
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame | None]]:
    """Check a file's rows slice by slice.

    Yields:
        The slice's valid rows, and its bad ones with their `reasons` (None: there is none).

    Raises:
        BadData: the file's pages cannot be read, though its footer could.
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

    A hash of each key is all that is held at first: keys are compared only if hashes meet.
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
    """The same slices, each read while the one before it is worked on."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, slices, None)
        while (rows := coming.result()) is not None:
            coming = reader.submit(next, slices, None)
            yield rows


def row_failures(table_input: Input, rows: pl.DataFrame, day: date) -> dict[str, pl.Series]:
    """Which rows break which rule.

    Returns:
        Reason → boolean series, true where the row breaks the rule; only rules somebody broke.
    """
    failures: dict[str, pl.Series] = {}
    try:
        table_input.schema.validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        for error in errors.schema_errors:
            if error.check_output is None:
                raise BadData(f"{table_input.name} of {day}: {cut(str(error), 1000)}") from error
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


def check_partition(case: UseCase, checks: list[RowCheck]) -> str:
    """Judge a day as a whole, and keep its quarantine and report whatever the judgement.

    Returns:
        Reference to the version that may be published.

    Raises:
        BadData: naming every breach.
    """
    version = case.lake.version(checks[0].version)
    with suppress(Overtaken):  # `publish` has the last word
        quarantine_of(version).publish([check.input for check in checks])
    recent = recent_rows(case, version)
    breaches = []
    for check in checks:
        path = case.lake.landing_path(check.input, version.key)
        found = partition_breaches(case, check, version.key, recent[check.input])
        breaches += [f"{breach}, in {path}" for breach in found]
    day, there = parse_key(version.key), {check.input for check in checks}
    awaited = [name for name in names_of(case, version.table) if case.input(name).expected(day)]
    warnings = [
        f"{case.lake.landing_path(name, version.key)}: nothing landed, the day goes on without "
        f"{name}; run it again once it is there"
        for name in awaited
        if name not in there
    ]
    page = write_report(version, breaches, warnings, checks)
    _send_metrics(case, version, checks)
    if breaches:
        raise BadData(_failure(version, breaches, page))
    log.info("Partition %s of %r may be published. Report: %s", version.key, version.table, page)
    return str(version)


def _send_metrics(case: UseCase, version: Version, checks: list[RowCheck]) -> None:
    shares = []
    for check in checks:
        rows = {"valid": check.valid, "quarantined": check.quarantined}
        for result, count in rows.items():
            metrics.send(
                case.name, "validation_rows_total", count, input=check.input, result=result
            )
        for reason, count in check.failures.items():
            metrics.send(
                case.name, "quarantined_rows_total", count, input=check.input, reason=reason
            )
        share = check.quarantined / max(check.rows, 1)
        shares.append(Sample("quarantined_share", share, {"input": check.input}))
    metrics.send_of_day(version.lake, version.table, version.key, shares)


def partition_breaches(case: UseCase, check: RowCheck, key: str, recent: list[int]) -> list[str]:
    """Every way in which a day is not like a day should be.

    Args:
        check: what the row checks found.
        key: the partition's day.
        recent: row counts of the days before it, for the volume.
    """
    limits, table_input = case.settings, case.input(check.input)
    breaches: list[str] = []
    breach = breaches.append
    if check.quarantined > limits.max_quarantine_share * check.rows:
        worst = sorted(check.failures.items(), key=lambda item: -item[1])
        breach(
            f"{check.quarantined} of {check.rows} rows are bad, more than "
            f"{limits.max_quarantine_share:.1%} ("
            + ", ".join(f"{reason} × {count}" for reason, count in worst[:5])
            + ")"
        )
    if check.duplicates > limits.max_duplicate_share * check.rows:
        breach(
            f"{check.duplicates} of {check.rows} rows share their key with another, more than "
            f"{limits.max_duplicate_share:.1%}"
        )
    for column, limit in table_input.max_null_rate.items():
        if check.null_rates[column] > limit:
            breach(f"{column} is null in {check.null_rates[column]:.1%}, more than {limit:.1%}")
    if check.rows and len(recent) >= limits.volume_min_days:
        usual = median(recent)
        least, most = usual * limits.min_volume_ratio, usual * limits.max_volume_ratio
        if not least <= check.valid <= most:
            breach(
                f"{check.valid} rows are not {least:.0f} to {most:.0f}, which is "
                f"{limits.min_volume_ratio} to {limits.max_volume_ratio} × the median of the last "
                f"{len(recent)} days"
            )
    if table_input.event_time and check.last_event:
        midnight = datetime.combine(parse_key(key) + timedelta(days=1), datetime.min.time())
        end = midnight.replace(tzinfo=ZoneInfo(table_input.time_zone))
        age = (end - datetime.fromisoformat(check.last_event)).total_seconds() / 3600
        if age > table_input.max_event_age_hours:
            breach(
                f"the last event is {age:.1f} h before the end of the day, more than "
                f"{table_input.max_event_age_hours:g} h: the day is not complete"
            )
    return breaches


def recent_rows(case: UseCase, version: Version) -> dict[str, list[int]]:
    """Valid rows of each input on the published days of the window before a version's day.

    A day that was rightly empty says nothing of how many rows a day has.
    """
    window = range(1, case.settings.volume_window_days + 1)
    before = [days_before(version.key, back) for back in window]
    published = case.lake.manifests(version.table, before).values()
    return {
        name: [
            manifest.parts[name].rows
            for manifest in published
            if name in manifest.parts and manifest.parts[name].rows
        ]
        for name in names_of(case, version.table)
    }


def publish(case: UseCase, reference: str) -> dict[str, int]:
    """Publish the day's valid rows, all inputs at once, with the report in the manifest.

    Returns:
        Input → published rows.

    Raises:
        Overtaken: a later validation of the day is published, and stays.
        MissingData: the files of this validation are gone.
    """
    version = case.lake.version(reference)
    path = version.path / "report.json"
    try:
        report = read_json(path, Report)
    except FileNotFoundError as error:
        raise version.gone(path) from error
    names = [check.input for check in report.inputs]
    manifest = version.publish(names, metadata={"report": asdict(report)})
    return {name: part.rows for name, part in manifest.parts.items()}


def validate_day(case: UseCase, table: str, key: str) -> dict[str, int]:
    """All steps for one day in one process: what the DAG does in tasks."""
    if not is_due(case, table, key):
        return {}
    land(case, table, key)
    checks = [check_rows(case, file) for file in check_contract(case, table, key)]
    return publish(case, check_partition(case, checks)) if checks else {}


def quarantine_of(version: Version) -> Version:
    """The version of the quarantine that belongs to a version."""
    return Version(version.lake, f"quarantine/{version.table}", version.key, version.name)


def write_report(
    version: Version, breaches: list[str], warnings: list[str], checks: list[RowCheck]
) -> str:
    """Keep the outcome beside the data, as JSON and as a page. Returns the page's path."""
    report = Report(
        table=version.table,
        key=version.key,
        state="failed" if breaches else "passed",
        version=version.name,
        checked_at=datetime.now(UTC).isoformat(timespec="seconds"),
        breaches=breaches,
        warnings=warnings,
        inputs=checks,
    )
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent / "templates"), autoescape=True
    )
    page = templates.get_template("validation_report.html").render(report=report)
    put_text(version.path / "report.json", json.dumps(asdict(report), indent=1))
    put_text(version.path / "report.html", page)
    return str(version.path / "report.html")


def _failure(version: Version, breaches: list[str], page: str) -> str:
    listed = "".join(f"\n  - {breach}" for breach in breaches)
    return (
        f"Partition {version.key} of {version.table!r} is not published: "
        f"{counted(len(breaches), 'breach')}.{listed}\n"
        "What was published before is untouched. Replace the landed file; if `fetch` in source.py "
        "made it, correct that and delete the file: it is fetched again. Then clear this run.\n"
        f"Report: {page}"
    )
