"""The content of the page *Model health* in Airflow's UI.

It is read from the lake and the registry; nothing is changed. The page names what could not be
read and shows the rest. Airflow's API server imports this module, so nothing here may import
scikit-learn or matplotlib.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, TypeVar

import polars as pl

from include import expected
from include.lake.files import first_line, list_folder
from include.lake.tables import Manifest
from include.messages import Decision, Reason
from include.monitoring import decision as decisions
from include.monitoring import history as records
from include.monitoring.decision import ACTIONS
from include.monitoring.page.behind_login import LAKE_READERS, LAKE_SECONDS
from include.partitions import is_key, parse_key
from include.registry import registry
from include.registry.promotion import REPLACED
from include.registry.registry import Judged, Overview
from include.usecase import UseCase

DAYS = 90
"""Number of days for which skill and drift are shown."""

PARTITIONS = 14
"""Number of partitions for which counts are shown."""

GATES = 5
"""Number of trainings for which verdicts are shown."""

REGISTRY_SECONDS = 5.0
"""How long the page waits for the registry."""

TABLES = ["validated", "features", "predictions", "ensemble_predictions", "outcomes"]

T = TypeVar("T")
log = logging.getLogger(__name__)
_asking = ThreadPoolExecutor(1, "registry")
"""One thread: a hanging registry blocks only one page."""


@dataclass(frozen=True)
class Champion:
    """The version that scores.

    Attributes:
        since: when it became champion; empty if the alias was moved by hand.
        how: `promoted` or `rolled back to`.
        approved_by: who approved it; empty if no one was asked.
        replaced: the version before it, if there was one.
        last_day: its last training day.
    """

    version: str
    candidate: str
    since: str
    how: str
    reason: str
    approved_by: str
    replaced: str
    last_day: str


@dataclass(frozen=True)
class Partition:
    """Rows of a day at each stage; None for stages that it has not reached.

    Attributes:
        version: version of the model that scored it.
        fallback: what made the ensemble's predictions, if there are any.
        absent: members of the ensemble that did not answer.
    """

    key: str
    validated: int | None
    quarantined: int | None
    features: int | None
    rejected: int | None
    predicted: int | None
    version: str
    ensemble: int | None
    fallback: str
    absent: list[str]
    outcomes: int | None


@dataclass(frozen=True)
class Gate:
    """The gate's verdicts about the candidates of one training."""

    reason: str
    when: datetime
    judged: list[Judged]


@dataclass(frozen=True)
class Health:
    """Everything that the page shows.

    Attributes:
        history: columns as in `history.SCHEMA`, up to the newest monitored day.
        last: that day.
        problems: what could not be read, one sentence each.
    """

    decision: Decision | None = None
    has_report: bool = False
    champion: Champion | None = None
    partitions: list[Partition] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    history: pl.DataFrame = field(default_factory=records.SCHEMA.to_frame)
    last: date | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show yet."""
        return not (self.problems or self.partitions or self.champion or self.decision)


def look(
    case: UseCase, seconds: float = REGISTRY_SECONDS, lake_seconds: float = LAKE_SECONDS
) -> Health:
    """Read everything.

    Args:
        case: the use case.
        seconds: how long to wait for the registry.
        lake_seconds: how long to wait for the lake.
    """
    root = case.lake.root
    registry.preload(case)  # this import must not use up the registry's time
    problems: list[str] = []
    asked = _asking.submit(registry.overview, case)
    read = LAKE_READERS.submit(_read, case)
    with_lake = "decision, skill, drift and the last partitions"
    found = _answer(read, lake_seconds, f"The lake at {root}", with_lake, problems) or Health()
    with_registry, place = "champion and verdicts of the gate", registry.address(case)
    overview = (
        _answer(asked, seconds, f"The model registry at {place}", with_registry, problems)
        or Overview()
    )
    return replace(
        found,
        champion=_champion(overview),
        gates=_gates(overview.judged),
        problems=[*found.problems, *problems],
    )


def _read(case: UseCase) -> Health:
    """The part of the page that comes from the lake."""
    problems: list[str] = []
    keys: list[str] = []
    rows, last = records.SCHEMA.to_frame(), None
    decision, has_report = None, False
    with named("The lake", problems):
        days = _keys(case, records.TABLE)
        landed = _keys(case, f"landing/{case.inputs[0].name}")
        published = [*_keys(case, "validated"), *_keys(case, "predictions")]
        looked_at = [key for key in days if expected.is_expected(case, "validated", key)]
        keys = sorted({*looked_at, *landed, *published})[-PARTITIONS:]
        if days:
            last = max(days)
            rows = records.read(case, last, DAYS, problems)
    partitions = _partitions(case, keys[::-1], problems)
    with named("The decision", problems):
        if decision := _decision(case, rows):
            folder = list_folder(case.lake.partition_path(decisions.TABLE, decision.key))
            has_report = any(path.name == "report.html" for path in folder)
    return Health(
        decision=decision,
        has_report=has_report,
        partitions=partitions,
        history=rows,
        last=parse_key(last) if last else None,
        problems=problems,
    )


def _answer(
    asked: Future[T], seconds: float, who: str, missing: str, problems: list[str]
) -> T | None:
    """The result; if it does not come in time, None, and the page says why."""
    try:
        return asked.result(seconds)
    except TimeoutError:
        asked.cancel()  # if it is queued behind others that hang
        problem = f"has not answered in {seconds:g} s"
    except Exception:
        log.warning("%s cannot be asked", who, exc_info=True)
        problem = "does not answer (the API server's log says why)"
    problems.append(f"{who} {problem}: {missing} are not shown.")
    return None


@contextmanager
def named(what: str, problems: list[str]) -> Iterator[None]:
    """A block whose failure is named on the page, while its other parts are shown."""
    try:
        yield
    except Exception as error:
        log.warning("%s cannot be read", what, exc_info=True)
        problems.append(f"{what} cannot be read: {first_line(error)}.")


def _keys(case: UseCase, folder: str) -> list[str]:
    """The days with any content in a folder."""
    names = [path.name for path in list_folder(case.lake.root / folder)]
    keys = [name.removeprefix("date=").removesuffix(".parquet") for name in names]
    return [key for key in keys if is_key(key)]


# --- the decision ---------------------------------------------------------------------------------


def _decision(case: UseCase, rows: pl.DataFrame) -> Decision | None:
    """The newest decision, with the words of its rules if they were stored."""
    decided = records.select(rows, "decision").filter(pl.col("value").is_finite())
    newest = records.newest(decided)
    if newest is None:
        return None
    today = rows.filter(pl.col("time") == newest)
    try:
        return decisions.read(case, str(newest))
    except FileNotFoundError:  # it is older than stored words
        [level] = records.select(today, "decision")["value"]
        asked = records.select(today, "rule").select(records.label("rule"), "value")
        levels = sorted(asked.iter_rows(), key=lambda rule: -rule[1])
        reasons = [Reason(name, ACTIONS[int(asks)], "", "") for name, asks in levels]
        return Decision(str(newest), ACTIONS[int(level)], reasons)


# --- partitions -----------------------------------------------------------------------------------


def _partitions(case: UseCase, keys: list[str], problems: list[str]) -> list[Partition]:
    def manifest(place: tuple[str, str]) -> Manifest | None:
        found = None
        with named(f"The manifest of {place[0]} of {place[1]}", problems):
            found = case.lake.manifest(*place)
        return found

    places = [(table, key) for key in keys for table in TABLES]
    with ThreadPoolExecutor(8) as readers:  # on an object store it is the waiting that takes time
        found = dict(zip(places, readers.map(manifest, places), strict=True))
    partitions = []
    for key in keys:
        with named(f"What is published of {key}", problems):
            partitions.append(_partition(case, key, {table: found[table, key] for table in TABLES}))
    return partitions


def _partition(case: UseCase, key: str, manifests: dict[str, Manifest | None]) -> Partition:
    def rows(table: str, part: str) -> int | None:
        manifest = manifests[table]
        return manifest.parts[part].rows if manifest and part in manifest.parts else None

    def fact(table: str, name: str, otherwise: Any) -> Any:
        manifest = manifests[table]
        return manifest.metadata.get(name, otherwise) if manifest else otherwise

    main = case.inputs[0].name
    checks = fact("validated", "report", {}).get("inputs", [])
    return Partition(
        key=key,
        validated=rows("validated", main),
        quarantined=next((one["quarantined"] for one in checks if one["input"] == main), None),
        features=rows("features", "features"),
        rejected=rows("features", "rejected"),
        predicted=rows("predictions", "predictions"),
        version=fact("predictions", "model", {}).get("version", ""),
        ensemble=rows("ensemble_predictions", "predictions"),
        fallback=fact("ensemble_predictions", "fallback", ""),
        absent=sorted(fact("ensemble_predictions", "absent", {})),
        outcomes=rows("outcomes", "outcomes"),
    )


# --- the registry ---------------------------------------------------------------------------------


def _champion(found: Overview) -> Champion | None:
    if found.champion is None:
        return None
    version = found.champion.version
    tags = found.tags[version]
    since, how, reason = tags.get("promoted_at", ""), "promoted", tags.get("promotion_reason", "")
    for other in found.tags.values():  # a version that this one replaced by a rollback
        if other.get(REPLACED) == version and other.get("rolled_back_at", "") > since:
            since, how = other["rolled_back_at"], "rolled back to"
            reason = other.get("rollback_reason", "")
    return Champion(
        version=version,
        candidate=tags.get("candidate", ""),
        since=since,
        how=how,
        reason=reason,
        approved_by=tags.get("approved_by", "") if how == "promoted" else "",
        replaced=tags.get(REPLACED, ""),
        last_day=found.last_day,
    )


def _gates(judged: list[Judged]) -> list[Gate]:
    """Candidates by training, newest training first; the chosen candidate first."""
    trainings: dict[tuple[str, str], list[Judged]] = {}
    for one in judged:
        trainings.setdefault((one.snapshot, one.reason), []).append(one)
    return [
        Gate(
            reason,
            max(one.judged_at for one in together),
            sorted(together, key=lambda one: (not one.chosen, not one.passed, one.candidate)),
        )
        for (_, reason), together in list(trainings.items())[:GATES]
    ]
