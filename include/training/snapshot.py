"""The fixed rows of a training: their days, their versions and their content.

A snapshot is a version of the table `training`. `housekeeping` never removes the current one of a
day, nor one that a registered model refers to: their trainings can be repeated at any time.
"""

from contextlib import ExitStack, suppress
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy.stats import ks_2samp

from include import expected
from include.errors import BadData, MissingData, Overtaken
from include.lake.files import to_arrow
from include.lake.tables import Version
from include.partitions import parse_key
from include.preprocess import labelled
from include.statistics.profile import Profiler
from include.statistics.profiles import keep
from include.usecase import UseCase
from include.values import without_nan
from include.wording import counted, listed, quoted

TABLES = ("validated", "actuals")

MOST_DAYS, MOST_HOLDOUT_DAYS = 7_305, 3_650
"""Bounds of a window, so that a mistyped year does not search a million days."""
LEAST_SHIFTS = 3
PROFILE = "features"
"""Name of the profile of all its rows, the baseline of models trained on it."""

PARTS: tuple[Literal["training"], Literal["holdout"]] = ("training", "holdout")


def take(case: UseCase, start: str | None, end: str | None, holdout_days: int) -> str:
    """Join the features and labels of each day of a window, and store them as one version.

    Args:
        start: first day to train on; None for the setting.
        end: last day of the holdout; None for the newest day whose truth is known.
        holdout_days: days at the end of the window that are for evaluation only.

    Returns:
        Reference to the snapshot, whose parts `training` and `holdout` have the key, the features,
        `label` and `day` of every row, in the order of the days. One day is in memory at a time.

    Raises:
        BadData: the window is empty, not longer than the holdout, too long or in the future; or a
            part of it has no labelled rows or only one class.
        MissingData: more days are not validated or lack their truth than the setting allows; the
            message names them. A few may be missing, so that a refused day does not stop the
            loop. Days for which the use case expects no data do not count.
    """
    first = parse_key(start) if start else case.training_start
    last = parse_key(end) if end else newest_day(case)
    start_set = case.settings.where_set("train_start")
    _check_window(first, last, holdout_days, "" if start else f" ({start_set})")
    holdout_from = last - timedelta(days=holdout_days - 1)
    days = {
        "training": _days(first, holdout_from - timedelta(days=1)),
        "holdout": _days(holdout_from, last),
    }
    sources = _resolve(case, [*days["training"], *days["holdout"]])
    version = case.lake.new_version("training", str(last))
    profiler = Profiler()
    labels = {part: _write(case, version, part, days[part], sources, profiler) for part in PARTS}
    keep(version, PROFILE, profiler.result())
    metadata = {
        "start": str(first),
        "end": str(last),
        "holdout_days": holdout_days,
        "labels": labels,
        "missing": [
            str(day)
            for part in PARTS
            for day in days[part]
            if str(day) not in sources and _is_expected(case, str(day))
        ],
        "sources": {key: [described for _, described in found] for key, found in sources.items()},
    }
    with suppress(
        Overtaken
    ):  # it is read by its reference, even if another one is the day's current version
        version.publish(list(PARTS), metadata)
    return str(version)


def _check_window(first: date, last: date, holdout_days: int, from_setting: str) -> None:
    """Refuse an impossible window before searching for its days."""
    window, today = f"The window is {first}{from_setting} to {last}", datetime.now(UTC).date()
    if last < first:
        what, wanted = "its end is before its start", "an end that is later"
    elif last > today:
        what = f"it ends in the future (today is {today}), so its truth cannot be known"
        wanted = "an end in the past, or without an end: then it is the newest day with truth"
    elif (last - first).days >= MOST_DAYS:
        what = f"it has {(last - first).days + 1:,} days, more than {MOST_DAYS:,}"
        wanted = "a start that is later"
    elif not 1 <= holdout_days <= MOST_HOLDOUT_DAYS:
        what = f"its holdout cannot have {str(holdout_days)[:20]} days"
        wanted = f"`holdout_days` up to {MOST_HOLDOUT_DAYS}"
    elif (last - first).days < holdout_days:
        held = counted(holdout_days, "day")
        what = f"its last {held} are the holdout, and no day is left to train on"
        wanted = "a longer window"
    else:
        return
    raise BadData(
        f"{window}: {what}. No model was trained and the champion is unchanged. Start a new run "
        f"with {wanted}; clearing this one would repeat the same."
    )


def verify(case: UseCase, reference: str) -> str:
    """Check that a snapshot has not changed since it was taken.

    Returns:
        Its reference.

    Raises:
        BadData: a part has changed, or the snapshot does not exist.
    """
    table, _, rest = reference.partition("/")
    if table != "training" or rest.count("/") != 1 or ".." in rest:
        raise BadData(
            f"{quoted(reference)} is not a snapshot: its name is like training/2026-02-28/… and is "
            "in the parameters of a run in MLflow. Nothing was trained."
        )
    version = case.lake.version(reference)
    parse_key(version.key)
    try:
        parts = version.manifest().parts
    except MissingData as error:  # waiting will not help: the name is wrong
        raise BadData(
            f"There is no snapshot {reference} under {case.lake.root}. {error}"
        ) from error
    for part, promised in parts.items():
        if version.describe(part) != promised:
            raise BadData(
                f"{version.part_path(part)} is not what was published as part of {reference}: its "
                "content has another hash. Nothing was trained. Bring the file back, or take a "
                "new snapshot by naming a window instead."
            )
    return reference


def fingerprint(version: Version) -> str:
    """SHA-256 hashes of a snapshot's parts, equal for trainings on the same rows."""
    return " ".join(f"{name}:{part.sha256}" for name, part in version.manifest().parts.items())


def input_shifts(case: UseCase, version: Version) -> pl.DataFrame:
    """How far each feature shifts from training to holdout, and how far it usually shifts.

    Time is cut into windows of the holdout's length. The shift between two windows, from 0 to 1, is
    the two-sample Kolmogorov–Smirnov statistic of numbers (the total variation distance of
    categories), or the difference of their shares of nulls if that is larger.

    Returns:
        A row per feature: `feature`, `shift` (between the last window of the training days and the
        holdout), `usual` (the largest earlier shift; null if there are fewer than `LEAST_SHIFTS`
        of them, too few to tell).
    """
    metadata = version.manifest().metadata
    length = metadata["holdout_days"]
    last = parse_key(metadata["end"])
    found = []
    for name in case.features.FEATURES:
        rows = pl.concat([version.read(part, ["day", name]) for part in PARTS])
        # Private column names, because a feature may be called `window`.
        number = (last - pl.col("day")).dt.total_days() // length
        numbered = rows.select("day", value=name, window=number)
        windows = numbered.partition_by("window", as_dict=True)
        # The oldest window may have only a day; it is used alone only if it is complete.
        whole = ((last - min(rows["day"])).days + 1) // length
        values = [windows[(n,)]["value"] for n in range(max(whole, 2)) if (n,) in windows]
        shift, *earlier = (_distance(later, former) for later, former in pairwise(values))
        usual = max(earlier) if len(earlier) >= LEAST_SHIFTS else None
        found.append({"feature": name, "shift": shift, "usual": usual})
    return pl.DataFrame(found, schema={"feature": str, "shift": float, "usual": float})


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def newest_day(case: UseCase, until: str | None = None) -> date:
    """The newest day with inputs and truth, optionally up to a given day.

    Raises:
        MissingData: there is none.
    """
    for key in case.lake.published_keys("actuals"):
        if until is not None and key > until:
            continue
        if case.lake.readable_manifest("validated", key) is not None:
            return parse_key(key)
    raise MissingData(
        f"There is no day with inputs and truth under {case.lake.root}. No model was trained. "
        f"Backfill `{case.dag_id('data_validation')}` (or `make seed`), then clear this run's "
        "failed tasks."
    )


def _is_expected(case: UseCase, key: str) -> bool:
    """Whether a day should have rows with a label."""
    return all(expected.is_expected(case, table, key) for table in TABLES)


Sources = dict[str, list[tuple[Version, dict[str, Any]]]]


def _resolve(case: UseCase, days: list[date]) -> Sources:
    """Day → the versions of its partitions and the hashes of their parts; without missing days."""
    sources: Sources = {}
    keys = [day.isoformat() for day in days]
    published = {table: case.lake.manifests(table, keys) for table in TABLES}
    for key in keys:
        manifests = {table: published[table].get(key) for table in TABLES}
        sources[key] = []
        for table, manifest in manifests.items():
            if manifest is not None:
                version = Version(case.lake, table, key, manifest.version, manifest)
                hashes = {name: part.sha256 for name, part in manifest.parts.items()}
                sources[key].append((version, {"version": str(version), "sha256": hashes}))
    whole = {key: found for key, found in sources.items() if len(found) == len(TABLES)}
    due = [key for key in keys if _is_expected(case, key)]
    lacking = [key for key in due if key not in whole]
    if len(lacking) > case.settings.max_missing_share * len(due):
        absent = ((table, key) for key in lacking for table in TABLES)
        missing = [f"{table} {key}" for table, key in absent if key not in published[table]]
        raise MissingData(
            f"{counted(len(missing), 'partition')} of the training window {days[0]} to {days[-1]} "
            f"are not published: {listed(missing)}. No model was trained. Backfill "
            f"`{case.dag_id('data_validation')}` from {days[0]} to "
            f"{days[-1] + timedelta(days=case.truth_delay_days)} (a day's truth comes with a later "
            "run), or run `make seed`; then clear this run's failed tasks. Or ask for a window "
            "without them "
            f"({case.settings.where_set('max_missing_share')} is the share of days that may be "
            "missing)."
        )
    return whole


def _write(
    case: UseCase,
    version: Version,
    part: str,
    days: list[date],
    sources: Sources,
    profiler: Profiler,
) -> dict[str, Any]:
    """Write the days of one part, at least one row group each. Returns what its labels are like."""
    labels = [np.empty(0, np.int8)]
    with ExitStack() as stack:
        writer = None
        for day in days:
            if day.isoformat() not in sources:
                continue
            (validated, _), (truth, _) = sources[day.isoformat()]
            rows = labelled(case, day, validated, truth)
            if rows.is_empty():
                continue
            labels.append(rows["label"].to_numpy())
            profiler.add(rows.select(case.features.FEATURES))
            table = to_arrow(rows)
            writer = writer or stack.enter_context(version.write(part, table.schema))
            writer.write_table(table, case.settings.batch_rows)
    which = f"the {part} ({days[0]} to {days[-1]})"
    described = case.target.describe(np.concatenate(labels))
    if what := case.target.lacking(described, part == PARTS[0]):
        raise BadData(
            f"In {which} there is {what}. No model was trained and the champion is unchanged. "
            "Choose a longer window."
        )
    return described


def _distance(one: pl.Series, other: pl.Series) -> float:
    one, other = (without_nan(values.to_frame()).to_series() for values in (one, other))
    nulls = abs(one.null_count() / max(len(one), 1) - other.null_count() / max(len(other), 1))
    one, other = one.drop_nulls(), other.drop_nulls()
    if not len(one) or not len(other):
        return float(nulls)
    if one.dtype == pl.String:
        shares = [
            values.alias("value").value_counts(normalize=True, name=f"{number}")
            for number, values in enumerate((one, other))
        ]
        both = shares[0].join(shares[1], on="value", how="full").fill_null(0)
        apart = float((both["0"] - both["1"]).abs().sum()) / 2
    else:
        apart = float(ks_2samp(one.to_numpy(), other.to_numpy(), method="asymp").statistic)
    return max(apart, float(nulls))
