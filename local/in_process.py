"""The DAGs' tasks in one process, without Airflow: for replays, benchmarks and tests."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain

from include.inference import branching, scoring
from include.messages import Branches, ModelVersion, Verdict
from include.registry import promotion
from include.training import evaluation, gate, snapshot, training
from include.usecase import UseCase
from include.validation import contract, land, partition, rows


def validate_day(case: UseCase, table: str, key: str) -> dict[str, int]:
    """All steps from the source to a published day of a table. Returns its rows by input."""
    if not land.is_due(case, table, key):
        return {}
    land.land(case, table, key)
    checks = [rows.check_rows(case, file) for file in contract.check_contract(case, table, key)]
    return partition.publish(case, partition.check_partition(case, checks)) if checks else {}


def predict(case: UseCase, key: str, model: ModelVersion) -> str:
    """All steps from a validated day to its predictions, not published. Returns a reference."""
    return _predict(case, key, model)[0]


def batch_inference(case: UseCase, key: str, model: ModelVersion) -> int:
    """All steps from a validated day to its published predictions. Returns their number."""
    predictions, branches = _predict(case, key, model)
    features = str(case.lake.current("features", key))
    check = scoring.check_outputs(case, predictions, features, model)
    lineage = {"features": features, "model": asdict(model)}
    return branching.publish(case, predictions, check, lineage, branches)


def _predict(case: UseCase, key: str, model: ModelVersion) -> tuple[str, Branches | None]:
    features = scoring.preprocess(case, key)
    chunks = scoring.plan_chunks(case, features, model, case.settings.reason_codes)
    branches = branching.resolve(case, model) if case.settings.branches else None
    others = branching.plan(case, chunks, branches).values() if branches else []
    for chunk in chain(chunks, *others):
        scoring.score_chunk(case, chunk)
    if branches:
        branches = branching.gather(case, chunks, branches, "")
    return branching.assemble(case, features, chunks, branches), branches


def model_retraining(
    case: UseCase,
    start: str | None,
    end: str | None,
    reason: str,
    run_id: str,
    candidates: Iterable[str] | None = None,
    holdout_days: int | None = None,
) -> Verdict:
    """From labelled history to the next champion, if the gate passes one. Returns the verdict.

    Only the challenger is refitted, not the ensemble's other members.
    """
    taken = snapshot.take(case, start, end, holdout_days or case.settings.holdout_days)
    rival = evaluation.find_rival(case, taken)
    evaluations = []
    for name in case.models.CANDIDATES if candidates is None else candidates:
        run = training.train(case, taken, name, reason)
        evaluations.append(evaluation.evaluate_run(case, taken, run, name, rival))
    champion = evaluation.evaluate_champion(case, taken, rival)
    verdict = gate.judge(case, taken, champion, evaluations)
    if verdict.challenger is not None:
        name = verdict.challenger.candidate
        runs = {name: training.refit(case, taken, verdict.challenger)}
        version = training.register(case, verdict, runs, reason, run_id)
        promotion.promote(case, version, rival.model if rival else None, reason)
    return verdict
