"""From a snapshot to a registered challenger: fit each candidate, refit the best, register it."""

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from include import datasets, metrics
from include.errors import BadData
from include.inference import scoring
from include.lake.files import to_arrow
from include.messages import Evaluated, ModelVersion, Verdict
from include.partitions import days_before
from include.registry import registry
from include.training import evaluation, gate, plots
from include.training.fitting import LABEL, batches, fit
from include.training.snapshot import PARTS, fingerprint
from include.usecase import UseCase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLE_ROWS = 100
"""Rows from which a model's signature is taken."""

WITHHELD_SHARE, MOST_WITHHELD = 0.1, 5_000
"""Rows that a fit withholds, of the holdout or else of the training days: a refit's predictions of
them are the reference for later ones, and intervals are calibrated on them. Their share, and their
maximum number."""


def candidates(case: UseCase) -> list[str]:
    """Names of the models to train."""
    return [*case.models.CANDIDATES, *(case.models.WITHOUT if case.settings.group_models else ())]


def train(case: UseCase, snapshot: str, candidate: str, reason: str) -> str:
    """Fit a candidate on the days before the holdout and log it to a run.

    Returns:
        Id of the MLflow run.
    """
    return _train(case, snapshot, candidate, {"reason": reason})


def refit(case: UseCase, snapshot: str, member: Evaluated) -> str:
    """Fit a judged candidate again with the holdout included, and log it with its verdict.

    A few rows of the holdout are withheld. The new model's scores on them are the reference for its
    later scores. The judged model's scores would not do, because it is another model, and neither
    would scores on fitted rows, because a model is more confident about those.

    The refitted model itself is not judged by the gate, so it must be at least as good on the
    holdout as the model that had not seen it. If the setting `refit` is off, the judged model
    itself is used.

    Args:
        member: a member of a verdict.

    Returns:
        Id of the MLflow run of the model to register.

    Raises:
        BadData: the refitted model is worse on the rows it was fitted on than the judged one.
    """
    run_id, unseen = member.run_id, member.evaluation
    if case.settings.refit:
        run_id, unseen = _refit(case, snapshot, member)
    scores = evaluation.read_scores(case.lake.version(unseen))
    usual = scoring.score_reference(case, scores)
    registry.log_reference(case, run_id, {**usual, "evaluation": unseen})
    return run_id


def _refit(case: UseCase, snapshot: str, member: Evaluated) -> tuple[str, str]:
    """The run of the new model, and the reference to its evaluation on the withheld rows."""
    judged, candidate = member.run_id, member.candidate
    holdout = case.lake.version(snapshot).read("holdout")
    withheld = _withheld(case, len(holdout))
    unseen, holdout = holdout.filter(withheld), holdout.filter(~withheld)
    tags = {"mlflow.parentRunId": judged}
    run_id = _train(case, snapshot, candidate, tags, holdout, unseen)
    pipeline = registry.load_run(case, run_id)
    judged_on = case.lake.version(member.evaluation)
    rows = evaluation.read_rows(case, judged_on)
    scores, _ = evaluation.score(case, rows, pipeline)
    target, labels = case.target, rows["label"].to_numpy()
    known = target.losses(labels, scores).mean()
    before = judged_on.manifest().metadata["figures"][target.loss]
    constant = gate.baseline_predictions(case, case.lake.version(snapshot), labels)
    margin = case.settings.gate_min_skill_gain * target.losses(labels, constant).mean()
    if not known <= before + margin:
        raise BadData(
            f"The refitted {candidate} (run {run_id}) has a {target.measures[target.loss].title} "
            f"of {known:.4f} on the holdout; the model that had not seen it has {before:.4f}. The "
            "champion is unchanged. Look for randomness in the training, or set "
            f"{case.settings.where_set('refit')} to false."
        )
    facts = {"candidate": candidate, "run_id": run_id, "withheld": True}
    return run_id, evaluation.evaluate_rows(case, snapshot, None, unseen, pipeline, facts)


def _withheld(case: UseCase, rows: int) -> pl.Series:
    """The rows that a fit withholds: the same for each candidate."""
    number = min(max(1, int(rows * WITHHELD_SHARE)), MOST_WITHHELD)
    chosen = np.zeros(rows, bool)
    chosen[np.random.default_rng(case.settings.seed).choice(rows, number, replace=False)] = True
    return pl.Series(chosen)


def register(
    case: UseCase,
    verdict: Verdict,
    runs: dict[str, str],
    reason: str,
    dag_run: str,
    asks: bool = False,
) -> ModelVersion:
    """Register the challenger as a version, with its lineage, verdict and plots.

    The other members of its ensemble are registered too. They belong to this version: they are
    promoted and rolled back with it, in the same step.

    Args:
        runs: candidate → MLflow run of its refitted model. Members that could not be refitted are
            missing; without the challenger there is nothing to register.
        dag_run: the DAG run.
        asks: whether a person is asked to approve.

    Raises:
        BadData: the challenger could not be refitted; or this DAG run has already asked a person
            about another version.
    """
    assert verdict.challenger is not None
    runs = {
        member.candidate: runs[member.candidate]
        for member in verdict.members
        if _comes_from(case, runs.get(member.candidate), member.run_id)
    }
    run_id = runs.get(verdict.challenger.candidate)
    if run_id is None:
        raise BadData(
            f"There is no refitted {verdict.challenger.candidate} to register: see the log of "
            "its `refit`. The champion is unchanged."
        )
    others = [found for found in registry.versions_of(case, dag_run) if found.run_id != run_id]
    if asks and others:
        raise BadData(
            f"This run has already asked about version {others[0].version}, and Airflow would show "
            "that question and its verdict again for another version. Nothing was registered and "
            "the champion is unchanged. Start a new run of "
            f"`{case.dag_id('model_retraining')}` instead."
        )
    version = case.lake.version(verdict.snapshot)
    judged = case.lake.version(verdict.challenger.evaluation).manifest().metadata
    figures = {f"holdout_{name}": value for name, value in judged["figures"].items()}
    tags = {
        "candidate": verdict.challenger.candidate,
        "snapshot": verdict.snapshot,
        "snapshot_sha256": fingerprint(version),
        "judged_run": verdict.challenger.run_id,
        "evaluation": verdict.challenger.evaluation,
        "judged_against": (
            verdict.champion.version if verdict.champion else case.target.baseline_name
        ),
        "git_commit": registry.tag(case, run_id, "git_commit"),
        "reason": reason,
        "dag_run": dag_run,
        **figures,
    }
    registry.log_verdict(case, run_id, verdict.markdown, {"verdict": "passed"})
    registry.log_plots(case, run_id, _plots(case, verdict))
    lineage = {name: tags[name] for name in ("snapshot", "reason", "dag_run")}
    judged_on = {member.candidate: member.evaluation for member in verdict.members}
    members = {
        name: registry.register_member(case, name, run, {**lineage, "evaluation": judged_on[name]})
        for name, run in runs.items()
    }
    texts = {name: str(value) for name, value in tags.items()}
    challenger = registry.register(case, run_id, verdict.markdown, texts, members)
    registry.count(case, "registered")
    datasets.wrote(datasets.model(challenger.name, challenger.version))
    return challenger


def _comes_from(case: UseCase, run_id: str | None, judged: str) -> bool:
    """Whether a run is that of a judged model, or of its refit."""
    if run_id is None:
        return False
    return run_id == judged or registry.tag(case, run_id, "mlflow.parentRunId") == judged


def _train(
    case: UseCase,
    snapshot: str,
    candidate: str,
    tags: dict[str, str],
    holdout: pl.DataFrame | None = None,
    unseen: pl.DataFrame | None = None,
) -> str:
    """Fit a candidate on the training days and these rows of the holdout.

    Args:
        unseen: rows of the holdout that it is not fitted on. By default some of the training days'
            rows are withheld, if the target needs them.
    """
    version = case.lake.version(snapshot)
    pipeline = (case.models.CANDIDATES | case.models.WITHOUT)[candidate](case.settings.seed)
    with ExitStack() as stack:
        files = [stack.enter_context(version.parquet("training"))]
        files += [] if holdout is None else [stack.enter_context(_as_file(holdout))]
        with metrics.timed(case.name, "training_seconds", candidate=candidate):
            memory = int(case.settings.training_memory_mb * 1e6)
            withheld = None
            if unseen is None and case.target.calibrates:
                withheld = _withheld(case, files[0].metadata.num_rows).to_numpy()
            done = fit(pipeline, files, memory, case.settings.seed, case.target.encode, withheld)
        if wrong := case.target.wrong_model(pipeline):
            raise BadData(f"{candidate} {wrong}. No model was kept; change models.py.")
        if unseen is None and withheld is not None:
            unseen = _rows(files[0], [*case.features.FEATURES, LABEL], withheld)
        if unseen is not None:
            pipeline = case.target.finish(pipeline, unseen)
        example = next(files[0].iter_batches(EXAMPLE_ROWS, columns=case.features.FEATURES))
    facts = version.manifest().metadata
    params: dict[str, Any] = {
        "candidate": candidate,
        registry.TARGET: case.target.name,
        "snapshot": snapshot,
        "snapshot_sha256": fingerprint(version),
        "parts": json.dumps(PARTS[:1] if holdout is None else PARTS),
        "start": facts["start"],
        "end": facts["end"],
        "holdout_days": facts["holdout_days"],
        "last_day": days_before(facts["end"], facts["holdout_days"])
        if holdout is None
        else facts["end"],
        "seed": case.settings.seed,
        "training_memory_mb": case.settings.training_memory_mb,
        **vars(done),
    }
    if holdout is not None:
        params["withheld_rows"] = version.manifest().parts["holdout"].rows - len(holdout)
    return registry.log_training(
        case, pipeline, params, tags, example, f"{candidate} to {facts['end']}"
    )


def _rows(file: pq.ParquetFile, columns: list[str], wanted: np.ndarray) -> pl.DataFrame:
    """Some rows of a file."""
    found = batches([file], columns, ~wanted)
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(found)))


def _as_file(rows: pl.DataFrame) -> pq.ParquetFile:
    """Rows as a Parquet file in memory."""
    buffer = pa.BufferOutputStream()
    pq.write_table(to_arrow(rows), buffer)
    return pq.ParquetFile(pa.BufferReader(buffer.getvalue()))


def _plots(case: UseCase, verdict: Verdict) -> dict[str, "Figure"]:
    """Plots of the judged model, on rows that it had not seen, compared with its rival's."""
    assert verdict.challenger is not None
    judged_on = case.lake.version(verdict.challenger.evaluation)
    rows = evaluation.read_rows(case, judged_on)
    labels = rows["label"].to_numpy()
    challenger = gate.read_model(case, judged_on)
    evidence = gate.gather(case, verdict.snapshot, verdict.champion_evaluation)
    rival = "champion" if evidence.has_champion else case.target.baseline_name
    scores = {"challenger": challenger.scores, rival: evidence.reference.scores}
    pipeline = registry.load_run(case, verdict.challenger.run_id)
    gains = plots.feature_contributions(
        case.target, pipeline, rows, labels, case.features.FEATURES, case.settings.seed
    )
    sliced = gate.slice_gains(case, challenger, evidence)
    return {
        **case.target.plots(labels, scores),
        "slices": plots.slices(sliced, -case.settings.gate_max_slice_skill_loss),
        "contributions": plots.contributions(gains, case.target),
    }
