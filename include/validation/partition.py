"""The third gate: a day is judged as a whole, then published."""

import logging
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from include import datasets, metrics
from include.datasets import Dataset
from include.errors import BadData, Overtaken
from include.lake.files import read_json
from include.lake.tables import Version
from include.messages import RowCheck
from include.metrics import Sample
from include.partitions import days_before, parse_key
from include.usecase import UseCase
from include.validation.report import Report, failure_message, in_file, write_report
from include.validation.rows import quarantine_of

log = logging.getLogger(__name__)


def check_partition(case: UseCase, checks: list[RowCheck]) -> str:
    """Judge a day as a whole. Its quarantine and its report are kept either way.

    Returns:
        Reference to the version that may be published.

    Raises:
        BadData: the day is not fit to be scored; the message lists every breach.
    """
    version = case.lake.version(checks[0].version)
    with suppress(Overtaken):  # `publish` has the last word
        quarantine_of(version).publish([check.input for check in checks])
    recent = recent_rows(case, version)
    breaches = []
    for check in checks:
        path = case.lake.landing_path(check.input, version.key)
        found = partition_breaches(case, check, version.key, recent[check.input])
        breaches += [in_file(breach, path) for breach in found]
    day, there = parse_key(version.key), {check.input for check in checks}
    awaited = [one.name for one in case.tables[version.table] if one.expected(day)]
    warnings = [
        f"{name} has not landed, and the day goes on without it. Once it has, clear this run. "
        f"There is no file {case.lake.landing_path(name, version.key)}"
        for name in awaited
        if name not in there
    ]
    page = write_report(version, breaches, warnings, checks)
    _send_metrics(case, version, checks)
    if breaches:
        raise BadData(failure_message(version, breaches, page))
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
    """Everything that makes a day unfit to be scored, in words.

    Args:
        check: what the row checks found.
        key: the partition's day.
        recent: row counts of the days before it, to compare its volume with.
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
            breach(
                f"{column} is null in {check.null_rates[column]:.1%} of rows, more than {limit:.1%}"
            )
    if check.rows and len(recent) >= limits.volume_min_days:
        usual = median(recent)
        least, most = usual * limits.min_volume_ratio, usual * limits.max_volume_ratio
        if not least <= check.valid <= most:
            breach(
                f"{check.valid} valid rows are outside {least:.0f} to {most:.0f}, which is "
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
                f"{table_input.max_event_age_hours:g} h: the day is incomplete"
            )
    return breaches


def recent_rows(case: UseCase, version: Version) -> dict[str, list[int]]:
    """Valid rows of each input on the published days of the window before a version's day.

    Days that were rightly empty are left out: they say nothing about how many rows a day has.
    """
    window = range(1, case.settings.volume_window_days + 1)
    before = [days_before(version.key, back) for back in window]
    published = case.lake.manifests(version.table, before).values()
    return {
        one.name: [
            manifest.parts[one.name].rows
            for manifest in published
            if one.name in manifest.parts and manifest.parts[one.name].rows
        ]
        for one in case.tables[version.table]
    }


def publish(case: UseCase, reference: str) -> dict[str, int]:
    """Publish the day's valid rows, all inputs at once, with the report in the manifest.

    Returns:
        Input → published rows.

    Raises:
        Overtaken: a later validation of the day is already published, and stays.
        MissingData: the files of this validation are gone.
    """
    version = case.lake.version(reference)
    path = version.path / "report.json"
    try:
        report = read_json(path, Report)
    except FileNotFoundError as error:
        raise version.gone(path) from error
    names = [check.input for check in report.inputs]
    datasets.read(*(_landed(case, version.key, check) for check in report.inputs))
    manifest = version.publish(names, metadata={"report": asdict(report)})
    return {name: part.rows for name, part in manifest.parts.items()}


def _landed(case: UseCase, key: str, check: RowCheck) -> Dataset:
    folder = case.lake.landing_path(check.input, key).parent
    return datasets.folder(folder, check.null_rates, check.rows, version=key)
