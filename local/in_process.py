"""What the DAGs do in tasks, in one process without Airflow: for replays, benchmarks and tests."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain

from include.usecase.models import CANDIDATES

from include.inference import branching, scoring
from include.lake.tables import Lake
from include.messages import Branches, ModelVersion, Verdict
from include.registry import promotion
from include.settings import settings
from include.training import evaluation, gate, snapshot, training


def predict(lake: Lake, key: str, model: ModelVersion) -> str:
    """All steps from a validated day to its predictions, not published. Returns a reference."""
    return _predict(lake, key, model)[0]


def batch_inference(lake: Lake, key: str, model: ModelVersion) -> int:
    """All steps from a validated day to its published predictions. Returns their number."""
    predictions, branches = _predict(lake, key, model)
    features = str(lake.current("features", key))
    check = scoring.check_outputs(lake, predictions, features, model)
    lineage = {"features": features, "model": asdict(model)}
    return branching.publish(lake, predictions, check, lineage, branches)


def _predict(lake: Lake, key: str, model: ModelVersion) -> tuple[str, Branches | None]:
    features = scoring.preprocess(lake, key)
    chunks = scoring.plan_chunks(lake, features, model)
    branches = branching.resolve(model) if settings().branches else None
    others = branching.plan(lake, chunks, branches).values() if branches else []
    for chunk in chain(chunks, *others):
        scoring.score_chunk(lake, chunk)
    if branches:
        branches = branching.gather(lake, chunks, branches, "")
    return branching.assemble(lake, features, chunks, branches), branches


def model_retraining(
    lake: Lake,
    start: str | None,
    end: str | None,
    reason: str,
    run_id: str,
    candidates: Iterable[str] = tuple(CANDIDATES),
    holdout_days: int | None = None,
) -> Verdict:
    """From labelled history to the next champion, if the gate passes one. Returns the verdict.

    Only the challenger is fitted again, none of the ensemble's other members.
    """
    taken = snapshot.take(lake, start, end, holdout_days or settings().holdout_days)
    rival = evaluation.find_rival(lake, taken)
    evaluations = []
    for name in candidates:
        run = training.train(lake, taken, name, reason)
        evaluations.append(evaluation.evaluate_run(lake, taken, run, name, rival))
    champion = evaluation.evaluate_champion(lake, taken, rival)
    verdict = gate.judge(lake, taken, champion, evaluations)
    if verdict.challenger is not None:
        name = verdict.challenger.candidate
        runs = {name: training.refit(lake, taken, verdict.challenger)}
        version = training.register(lake, verdict, runs, reason, run_id)
        promotion.promote(version, rival.model if rival else None, reason)
    return verdict
