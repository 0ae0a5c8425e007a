"""Scores a day when the ensemble cannot: by one model, or without a model.

    the champion alone → the version that it replaced → the baseline of each segment

Each step is tried if all steps before it failed, for whatever reason. The reasons are kept.
"""

import logging
from collections.abc import Callable

import numpy as np
import polars as pl

from include.errors import BadData, MissingData
from include.inference import ensemble, scoring
from include.inference.ensemble import LEVELS
from include.lake.files import passing_over
from include.lake.tables import Version
from include.messages import ModelVersion, RollCall, Scored
from include.partitions import parse_key
from include.preprocess import labelled
from include.registry import promotion, registry
from include.usecase import UseCase

BASELINE_DAYS = 28
PRIOR_ROWS = 100
"""Number of rows with the overall baseline that are added to each segment (shrinkage)."""

log = logging.getLogger(__name__)


def fall_back(case: UseCase, features_reference: str, roll: RollCall) -> Scored:
    """Score a day without an ensemble.

    Args:
        roll: why there is no ensemble, and its champion.

    Raises:
        MissingData: nothing can score this day; says why, step by step.
    """

    def champion() -> ModelVersion:
        return roll.champion or registry.champion(case)

    steps: list[Callable[[], tuple[np.ndarray, str]]] = [
        lambda: _alone(case, features_reference, champion()),
        lambda: _alone(case, features_reference, promotion.previous(case, champion())),
        lambda: (baselines(case, features_reference), "baseline"),
    ]
    failed: dict[str, str] = {"ensemble": roll.lacking}
    for level, step in enumerate(steps, start=1):
        try:
            scores, whose = step()
        except Exception as error:  # whatever the error, the next step may work
            log.exception("The %s cannot score instead of the ensemble", LEVELS[level])
            failed[LEVELS[level]] = f"{type(error).__name__}: {error}"
            continue
        log.warning("Scored by the %s: %s", LEVELS[level], failed)
        given = ensemble.read_members(case, roll.answers)
        predictions = ensemble.write(case, features_reference, scores, level, [whose], given)
        return Scored(predictions, level, failed)
    absent = [f"member {name}: {why}" for name, why in roll.absent.items()]
    reasons = [f"{step}: {why}" for step, why in failed.items()]
    listed = "".join(f"\n  - {line}" for line in [*absent, *reasons])
    raise MissingData(
        f"Nothing can score {case.lake.version(features_reference).key}:{listed}\nThe day's last "
        "published predictions, if there are any, are untouched. Fix one of these, then "
        "clear this run's failed tasks."
    )


def _alone(case: UseCase, features_reference: str, model: ModelVersion) -> tuple[np.ndarray, str]:
    """Scores by one version, if they look like its usual scores, and its name."""
    chunks = scoring.plan_chunks(case, features_reference, model)
    for chunk in chunks:
        scoring.score_chunk(case, chunk)
    scores = ensemble.read_scores(case, chunks)
    reference = registry.reference(case, model)
    psi = scoring.population_stability(case, scores, reference) if len(scores) else 0.0
    if psi > case.settings.max_score_psi:
        raise BadData(
            f"The scores of {model} are far from those of its holdout: PSI {psi:.2f}, more than "
            f"{case.settings.max_score_psi:g}. Look at the day's features, and at the model."
        )
    return scores, f"{model.name}:{model.version}"


def baselines(case: UseCase, features_reference: str) -> np.ndarray:
    """The baseline of each row's segment, on the newest labelled days before this one.

    Small segments are shrunk towards the baseline of all rows (an m-estimate; Cestnik, Estimating
    Probabilities, 1990). This needs neither a model nor the registry.

    Returns:
        Predictions, float32.

    Raises:
        MissingData: there is no labelled day before this one.
    """
    source = case.lake.version(features_reference)
    days = []
    for key in case.lake.published_keys("actuals"):
        if key < source.key and case.lake.readable_manifest("validated", key) is not None:
            with passing_over(f"The day {key}"):
                known = _labels(
                    case, case.lake.current("validated", key), case.lake.current("actuals", key)
                )
                days += [] if known.is_empty() else [known]
            if len(days) == BASELINE_DAYS:
                break
    if not days:
        raise MissingData(f"There is no day before {source.key} whose truth is known.")
    known = pl.concat(days)
    segment, target = list(dict.fromkeys(case.features.SEGMENT)), case.target
    overall = target.baseline([target.describe(known["label"].to_numpy())])
    if not segment:
        count = source.manifest().parts["features"].rows
        return np.full((count, *overall.shape), overall, np.float32)
    parts = known.partition_by(segment)
    own = [_shrunk(case, part["label"].to_numpy(), overall) for part in parts]
    values = np.array([*own, overall], np.float32)
    places = pl.concat([part.head(1).select(segment) for part in parts]).with_row_index("place")
    rows = source.read("features", segment)
    joined = rows.join(places, on=segment, how="left", maintain_order="left")
    found: np.ndarray = values[joined["place"].fill_null(len(own)).to_numpy()]
    return found


def _shrunk(case: UseCase, labels: np.ndarray, overall: np.ndarray) -> np.ndarray:
    """The baseline of a segment, as if it had more rows that are like all rows."""
    own = case.target.baseline([case.target.describe(labels)])
    return (len(labels) * own + PRIOR_ROWS * overall) / (len(labels) + PRIOR_ROWS)


def _labels(case: UseCase, validated: Version, truth: Version) -> pl.DataFrame:
    day = labelled(case, parse_key(validated.key), validated, truth)
    return day.select(*case.features.SEGMENT, "label")
