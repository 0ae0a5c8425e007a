"""Deletes what nothing needs any more, each kind after its own age, and says what it deletes.

Everything to delete is found first and written to a report; a dry run ends there. Killed anywhere,
it leaves a whole lake: nothing that anything refers to is ever touched, and the next pass goes on.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from include import metrics
from include.destinations import DeltaTable
from include.errors import BadData, DependencyDown, PipelineError
from include.housekeeping.versions import QUARANTINE, Day, StoredVersion, days_of, unneeded
from include.inference import delta_table
from include.lake.files import (
    Stored,
    is_old_scratch,
    put_text,
    remove_file,
    remove_folder,
    walk,
)
from include.lake.tables import VERSION_TIME, is_orphan, remove_version
from include.messages import Housekept, Tally
from include.metrics import Sample
from include.registry import unused
from include.usecase import UseCase
from include.wording import counted, few, listed, literal

if TYPE_CHECKING:
    from include.lake.files import AnyPath

FOLDER = "housekeeping"
"""The reports' folder in the lake."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expired:
    """Something to delete.

    Attributes:
        since: when it was last changed or needed.
        remove: deletes it; again, if that was interrupted.
    """

    what: str
    bytes: int
    since: datetime
    remove: Callable[[], object]


def keep_house(
    case: UseCase, open_dags: Sequence[str], logs: Path | None, dry_run: bool
) -> Housekept:
    """Find, report and delete what nothing needs any more.

    Args:
        open_dags: DAGs of the use case, other than `housekeeping`, with a run that is not over. It
            may use anything that has been replaced since it began, so replaced versions, scores of
            chunks, MLflow runs and the logs of these DAGs stay this time.
        logs: Airflow's folder of logs; None if they are elsewhere.
        dry_run: whether to delete nothing.

    Raises:
        DependencyDown: the lake or the registry does not answer, or something cannot be deleted.
            All else is deleted.
    """
    now = datetime.now(UTC)
    expired, stays = find(case, open_dags, logs, now)
    tallies = {
        kind: Tally(len(found), sum(one.bytes for one in found)) for kind, found in expired.items()
    }
    report = case.lake.root / FOLDER / f"{now.strftime(VERSION_TIME)}.md"
    put_text(report, _page(case, expired, tallies, stays, dry_run, now))
    for line in _table(expired, tallies):
        log.info("%s", line)
    for why in stays:
        log.warning("%s", why)
    would = "would delete" if dry_run else "deletes"
    log.info("Housekeeping %s these. Every one is named in %s", would, report)
    if not dry_run:
        _delete(expired)
    freed = [
        Sample("deleted_bytes_total", 0 if dry_run else tally.bytes, {"kind": kind})
        for kind, tally in tallies.items()
    ]
    metrics.send_all(case.name, freed)
    return Housekept(dry_run, tallies, stays, str(report))


def _delete(expired: dict[str, list[Expired]]) -> None:
    failed = []
    for found in expired.values():
        for one in found:
            try:
                one.remove()
            except PipelineError:
                raise
            except Exception as error:  # one file without permission must not keep the others
                failed.append(f"{one.what}: {error!r}")
    if failed:
        raise DependencyDown(
            f"{counted(len(failed), 'thing')} could not be deleted, and all else was: "
            f"{'; '.join(few(failed))}. Nothing that is needed was touched. Give write access, "
            "or delete them by hand; the retry continues from here."
        )


def find(
    case: UseCase, open_dags: Sequence[str], logs: Path | None, now: datetime
) -> tuple[dict[str, list[Expired]], list[str]]:
    """Everything to delete, by kind, and why some kinds stay this time."""

    def ago(days: int) -> datetime:
        return now - timedelta(days=days)

    ages, stays = case.settings, []
    in_use = unused.references(case)
    files = list(walk(case.lake.root))
    days = days_of(case.lake.root, files)
    found: dict[str, Iterable[Expired]] = {
        "replaced_versions": [],
        "leftovers": leftovers(days, files),
        "quarantine": _quarantine(days, ago(ages.keep_quarantine_days)),
        "chunk_scores": [],
        "delivered_files": _delivered(case, ages.keep_replaced_days),
        "logs": _logs(case, open_dags, logs, ago(ages.keep_logs_days)) if logs else [],
        "mlflow_runs": [],
    }
    if open_dags:
        stays.append(
            f"Runs of {listed(open_dags)} are not over. Replaced versions, scores of chunks, "
            "MLflow runs and the logs of these DAGs stay this time."
        )
    else:
        found["chunk_scores"] = _scores(case, files, ago(ages.keep_scores_days))
        found["mlflow_runs"] = _runs(case, in_use, ago(ages.keep_runs_days))
        try:
            found["replaced_versions"] = [
                Expired(str(one.folder), one.bytes, since, partial(remove_version, one.folder))
                for one, since in unneeded(
                    days, in_use.text, ages.keep_versions, ago(ages.keep_replaced_days)
                )
            ]
        except BadData as error:
            stays.append(str(error))
    return {kind: list(each) for kind, each in found.items()}, stays


def leftovers(days: Iterable[Day], files: Iterable[Stored]) -> Iterator[Expired]:
    """What killed writers left: old versions that were never published, and half-written files."""
    for day in days:
        for version in day.versions.values():
            if version.published is None and _is_orphan(version):
                assert version.changed
                folder = version.folder
                yield Expired(
                    str(folder), version.bytes, version.changed, partial(remove_folder, folder)
                )
    for file in files:
        if is_old_scratch(file.path.name, file.changed):
            yield Expired(str(file.path), file.bytes, file.changed, partial(remove_file, file.path))


def _is_orphan(version: StoredVersion) -> bool:
    try:
        return is_orphan(version.folder)
    except BadData as error:
        log.warning("%s stays: %s", version.folder, error)
        return False


def _quarantine(days: Iterable[Day], before: datetime) -> Iterator[Expired]:
    """Old quarantined rows, also those of a day's current version: no reader needs them.

    What is known of them, counts and reasons, is in the manifest of the validated version.
    """
    for day in days:
        if not day.table.startswith(QUARANTINE):
            continue
        newest = max((one.published for one in day.published if one.published), default=before)
        for version in day.published:
            assert version.published
            if version.published < before:
                remove = partial(_remove_quarantine, day, version, last=newest < before)
                yield Expired(str(version.folder), version.bytes, version.published, remove)


def _remove_quarantine(day: Day, version: StoredVersion, last: bool) -> None:
    if last and day.current:  # before its version, so that it never names one that is gone
        remove_file(day.current)
    remove_version(version.folder)


def _scores(case: UseCase, files: Iterable[Stored], before: datetime) -> Iterator[Expired]:
    """Scores of chunks of one day and model, if none of them is young."""
    for folder, inside in _folders(files, case.lake.root / "scores", depth=2).items():
        if (changed := max(file.changed for file in inside)) < before:
            size = sum(file.bytes for file in inside)
            yield Expired(str(folder), size, changed, partial(remove_folder, folder))


def _delivered(case: UseCase, days: int) -> Iterator[Expired]:
    """Files of Delta tables that belong to no day any more, those of a table together."""
    for one in case.destinations:
        if isinstance(one, DeltaTable):
            uri, files = delta_table.vacuum(case, one, days, dry_run=True)
            if files:
                what = f"{counted(len(files), 'file')} of {uri}"
                size, since = sum(file.size or 0 for file in files), min(f.mtime for f in files)
                remove = partial(delta_table.vacuum, case, one, days, dry_run=False)
                yield Expired(what, size, since, remove)


def _logs(
    case: UseCase, open_dags: Sequence[str], logs: Path, before: datetime
) -> Iterator[Expired]:
    """Airflow's logs of runs, if nothing in them is young."""
    for dag in logs.glob(f"dag_id={case.name}.*"):
        if dag.name.removeprefix("dag_id=") in open_dags:
            continue
        for folder, inside in _folders(walk(dag), dag, depth=1).items():
            changed = max(file.changed for file in inside)
            if folder.name.startswith("run_id=") and changed < before:
                size = sum(file.bytes for file in inside)
                yield Expired(str(folder), size, changed, partial(remove_folder, folder))


def _runs(case: UseCase, in_use: unused.References, before: datetime) -> Iterator[Expired]:
    for run in unused.unused_runs(case, in_use, before):
        what = f"{run.run_id} {run.name}".strip()
        yield Expired(what, run.bytes, run.ended, partial(unused.delete_run, case, run.run_id))


def _folders(files: Iterable[Stored], root: "AnyPath", depth: int) -> "dict[AnyPath, list[Stored]]":
    """The folders that are so many levels below a root, each with what is in it."""
    found = defaultdict(list)
    start = f"{root}/"
    for file in files:
        parts = str(file.path).removeprefix(start).split("/")
        if str(file.path).startswith(start) and len(parts) >= depth:
            found[root.joinpath(*parts[:depth])].append(file)
    return found


def _table(expired: dict[str, list[Expired]], tallies: dict[str, Tally]) -> list[str]:
    """A Markdown table with a line for each kind."""
    lines = ["| what | things | bytes | oldest | newest |", "|---|---|---|---|---|"]
    for kind, found in expired.items():
        times = sorted(one.since for one in found)
        ends = [f"{time:%Y-%m-%d}" for time in (times[0], times[-1])] if times else ["", ""]
        cells = [kind, f"{tallies[kind].things:,}", f"{tallies[kind].bytes:,}", *ends]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _page(
    case: UseCase,
    expired: dict[str, list[Expired]],
    tallies: dict[str, Tally],
    stays: Sequence[str],
    dry_run: bool,
    now: datetime,
) -> str:
    """The report: what is deleted, each thing by its name."""
    title = f"# Housekeeping of {case.name}, {now:%Y-%m-%d %H:%M} UTC"
    what = "A dry run: nothing was deleted." if dry_run else "All of this is deleted."
    lines = [title, "", what, *(literal(why) for why in stays), "", *_table(expired, tallies)]
    for kind, found in expired.items():
        if found:
            lines += ["", f"## {kind}", ""]
            lines += [
                f"- {literal(one.what)}, {one.bytes:,} bytes, {one.since:%F}" for one in found
            ]
    return "\n".join([*lines, ""])
