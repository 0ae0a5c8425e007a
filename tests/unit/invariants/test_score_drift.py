"""Days like those of the training request nothing, however confident a model is; others do."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from xgboost import XGBClassifier

from include.encoder import FeatureEncoder
from include.inference import scoring
from include.lake.tables import Lake
from include.messages import Evaluated, ModelVersion, Reason
from include.monitoring import history, measure, policy
from include.registry import registry
from include.statistics.profile import profile_of
from include.statistics.profiles import keep
from include.training import evaluation, training
from include.usecases.flight_delays import features, models
from include.usecases.flight_delays.schema import KEY
from tests.case import CASE, at

FIRST = date(2013, 2, 1)
TRAINING_DAYS, HOLDOUT_DAYS, DAY_ROWS = 28, 14, 300

STRENGTH = {0.7: 0.8, 0.9: 2.2, 0.99: 8.0}
"""Of the one feature that counts, by the AUC that knowing it is worth."""

# Few leaves give many rows the same score, and deep trees know every row that they have seen.
SHAPES: dict[str, Callable[[], BaseEstimator]] = {
    "shallow": lambda: XGBClassifier(n_estimators=300, max_depth=2, learning_rate=0.1, n_jobs=2),
    "deep": lambda: XGBClassifier(n_estimators=100, max_depth=10, min_child_weight=0, n_jobs=2),
    "one tree": lambda: HistGradientBoostingClassifier(max_iter=1, learning_rate=1, max_depth=4),
}


def days(first: date, number: int, strength: float, seed: int) -> pl.DataFrame:
    """Rows that are all drawn alike, whatever their day: key, features, `label` and `day`."""
    random, rows = np.random.default_rng(seed), number * DAY_ROWS
    columns = {name: random.normal(size=rows).astype(np.float32) for name in features.NUMERIC}
    columns |= {name: random.choice(["a", "b", "c"], rows) for name in features.CATEGORICAL}
    chance = expit(strength * (columns[features.NUMERIC[0]] - 1))
    day = [first + timedelta(days=row // DAY_ROWS) for row in range(rows)]
    columns |= {
        "date": day,
        "flight": np.arange(rows) % DAY_ROWS,
        "label": (random.random(rows) < chance).astype(np.int8),
        "day": day,
    }
    return pl.DataFrame(columns).select(*dict.fromkeys([*KEY, *features.FEATURES, "label", "day"]))


def refitted(lake: Lake, shape: str, auc: float, patch: pytest.MonkeyPatch) -> ModelVersion:
    """A model that was trained, judged and fitted again as `model_retraining` does it."""
    steps = [("encode", FeatureEncoder(features.NUMERIC, features.CATEGORICAL))]
    patch.setitem(
        models.CANDIDATES, shape, lambda seed: Pipeline([*steps, ("classify", SHAPES[shape]())])
    )
    end = FIRST + timedelta(days=TRAINING_DAYS + HOLDOUT_DAYS - 1)
    snapshot = lake.new_version("training", str(end))
    rows = days(FIRST, TRAINING_DAYS + HOLDOUT_DAYS, STRENGTH[auc], seed=1)
    snapshot.write_frame("training", rows[: TRAINING_DAYS * DAY_ROWS])
    snapshot.write_frame("holdout", rows[TRAINING_DAYS * DAY_ROWS :])
    window = {"start": str(FIRST), "end": str(end), "holdout_days": HOLDOUT_DAYS}
    snapshot.publish(["training", "holdout"], window | {"labels": {"training": {"0": 1, "1": 1}}})
    run = training.train(at(lake), str(snapshot), shape, "a test")
    judged = evaluation.evaluate_run(at(lake), str(snapshot), run, shape)
    found = lake.version(judged).manifest().metadata["figures"]["roc_auc"]
    assert found == pytest.approx(auc, abs=0.04)
    member = Evaluated(shape, run, judged)
    return ModelVersion(CASE.name, "1", training.refit(at(lake), str(snapshot), member))


def score(lake: Lake, model: ModelVersion, auc: float, moved: float = 0) -> tuple[Reason, float]:
    """Score a fortnight of new days. Returns what is decided, and the largest PSI of one day."""
    first = FIRST + timedelta(days=TRAINING_DAYS + HOLDOUT_DAYS)
    rows = days(first, CASE.settings.score_drift_days, STRENGTH[auc], seed=2)
    rows = rows.with_columns(pl.col(features.NUMERIC[0]) + moved)
    pipeline, psi = registry.load_run(CASE, model.run_id), []
    for (day,), part in rows.partition_by("day", as_dict=True, maintain_order=True).items():
        scores = pl.Series("score", pipeline.predict_proba(part)[:, 1].astype(np.float32))
        version = lake.new_version("predictions", str(day))
        version.write_frame("predictions", part.select(*KEY, scores))
        keep(version, "predictions", profile_of(scores.to_frame()))
        version.publish(["predictions"], {"model": asdict(model)})
        psi.append(
            scoring.population_stability(CASE, scores.to_numpy(), registry.reference(CASE, model))
        )
    key = str(day)
    decision = policy.decide(CASE, history.to_frame(key, measure.figures(at(lake), key)), key)
    [reason] = [one for one in decision.reasons if one.rule == "scores"]
    return reason, max(psi)


exhaustive = pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("shape", "auc"),
    [
        pytest.param(shape, auc, marks=() if (shape, auc) == ("one tree", 0.9) else exhaustive)
        for shape in SHAPES
        for auc in STRENGTH
    ],
)
def test_days_like_the_training_request_nothing_and_other_days_a_retraining(
    shape: str,
    auc: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    configure: Callable[..., None],
) -> None:
    configure(retraining_min_new_days=1, holdout_days=5)  # so that one may be requested at once
    registry.create_store(CASE)
    lake = CASE.lake
    model = refitted(lake, shape, auc, monkeypatch)
    alike, psi = score(lake, model, auc)
    assert (alike.action, psi < CASE.settings.max_score_psi / 4) == ("healthy", True), alike.found
    moved, _ = score(lake, model, auc, moved=2)
    assert moved.action == "retrain"
