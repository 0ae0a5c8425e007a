"""From a snapshot to a registered challenger: fit each candidate, refit the best, register it."""

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from include import metrics
from include.errors import BadData
from include.inference import scoring
from include.lake.files import to_arrow
from include.messages import Evaluated, ModelVersion, Verdict
from include.partitions import days_before
from include.registry import registry
from include.training import evaluation, gate, plots
from include.training.fitting import fit
from include.training.snapshot import PARTS, fingerprint
from include.usecase import UseCase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLE_ROWS = 100
"""Rows from which a model's signature is taken."""

WITHHELD_SHARE, MOST_WITHHELD = 0.1, 5_000
"""Rows of the holdout that a refit does not see, so that its scores on them are a reference for
later ones: the share of them, and the most."""


def candidates(case: UseCase) -> list[str]:
    """Names of the models to train."""
    return [*case.models.CANDIDATES, *(case.models.WITHOUT if case.settings.group_models else ())]


def train(case: UseCase, snapshot: str, candidate: str, reason: str) -> str:
    """Fit a candidate on the days before the holdout and keep it in a run.

    Returns:
        Id of the MLflow run.
    """
    return _train(case, snapshot, candidate, {"reason": reason})


def refit(case: UseCase, snapshot: str, member: Evaluated) -> str:
    """Fit a judged candidate again, on the holdout too, and keep it with how it was judged.

    A few rows of the holdout are withheld. What the new model scores on them is the reference for
    its later scores: the judged model is another one, and rows that a model was fitted on are
    scored with more confidence than new ones.

    Nobody has judged the model that this gives, so it has to know the holdout at least as well as
    the one that had not seen it. If the setting `refit` is off, the judged model itself is taken.

    Args:
        member: one of a verdict's.

    Returns:
        Id of the MLflow run of the model that is to be registered.

    Raises:
        BadData: the refitted model is worse on the rows it was fitted on than the judged one.
    """
    run_id, unseen = member.run_id, member.evaluation
    if case.settings.refit:
        run_id, unseen = _refit(case, snapshot, member)
    scores = evaluation.read_scores(case.lake.version(unseen))
    registry.log_reference(case, run_id, {**scoring.score_reference(scores), "evaluation": unseen})
    return run_id


def _refit(case: UseCase, snapshot: str, member: Evaluated) -> tuple[str, str]:
    """The run of the new model, and the reference to its evaluation on the withheld rows."""
    judged, candidate = member.run_id, member.candidate
    holdout = case.lake.version(snapshot).read("holdout")
    withheld = _withheld(case, len(holdout))
    unseen, holdout = holdout.filter(withheld), holdout.filter(~withheld)
    run_id = _train(case, snapshot, candidate, {"mlflow.parentRunId": judged}, holdout)
    pipeline = registry.load_run(case, run_id)
    judged_on = case.lake.version(member.evaluation)
    rows = evaluation.read_rows(case, judged_on)
    scores, _ = evaluation.score(case, rows, pipeline)
    known = evaluation.figures(rows["label"].to_numpy(), scores)
    before = judged_on.manifest().metadata["figures"]["log_loss"]
    if not known.log_loss <= before + case.settings.gate_min_gain:
        raise BadData(
            f"The {candidate} fitted again with the holdout (run {run_id}) has a log-loss of "
            f"{known.log_loss:.4f} on it; the one that had not seen it has {before:.4f}. The "
            "champion is as it was. Look for chance in the recipe, or set ML_REFIT=false."
        )
    facts = {"candidate": candidate, "run_id": run_id, "withheld": True}
    return run_id, evaluation.evaluate_rows(case, snapshot, None, unseen, pipeline, facts)


def _withheld(case: UseCase, rows: int) -> pl.Series:
    """Which rows of a holdout a refit does not see: the same for each candidate."""
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
    """Make the challenger a version of the registry, with its lineage, verdict and pictures.

    The other members of its ensemble become versions of their own. They belong to this version:
    they come with its promotion and go with its rollback, in the same step.

    Args:
        runs: MLflow run of the refitted model by name of the candidate. A member that could not be
            refitted is not there; without the challenger's there is nothing to register.
        dag_run: the run of the DAG, in which `asks` says that a person is to decide.

    Raises:
        BadData: the challenger could not be refitted; or the person would be shown what this DAG
            run has asked about another version.
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
            "its `refit`. The champion is as it was."
        )
    others = [found for found in registry.versions_of(case, dag_run) if found.run_id != run_id]
    if asks and others:
        raise BadData(
            f"This run has asked about version {others[0].version} before, and Airflow would show "
            "that question and its verdict again for another version. Nothing was registered and "
            "the champion is as it was. Start a new run of "
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
        "judged_against": verdict.champion.version if verdict.champion else "base rate",
        "git_commit": registry.tag(case, run_id, "git_commit"),
        "reason": reason,
        "dag_run": dag_run,
        **figures,
    }
    registry.log_verdict(case, run_id, verdict.markdown, {"verdict": "passed"})
    registry.log_plots(case, run_id, _plots(case, verdict))
    lineage = {name: tags[name] for name in ("snapshot", "reason", "dag_run")}
    members = {
        name: registry.register_member(case, name, run, lineage) for name, run in runs.items()
    }
    texts = {name: str(value) for name, value in tags.items()}
    challenger = registry.register(case, run_id, verdict.markdown, texts, members)
    registry.count(case, "registered")
    return challenger


def _comes_from(case: UseCase, run_id: str | None, judged: str) -> bool:
    """Whether a run is that of a judged model, or of one that was fitted again after it."""
    if run_id is None:
        return False
    return run_id == judged or registry.tag(case, run_id, "mlflow.parentRunId") == judged


def _train(
    case: UseCase,
    snapshot: str,
    candidate: str,
    tags: dict[str, str],
    holdout: pl.DataFrame | None = None,
) -> str:
    """Fit a candidate on the training days, and on these rows of the holdout."""
    version = case.lake.version(snapshot)
    pipeline = (case.models.CANDIDATES | case.models.WITHOUT)[candidate](case.settings.seed)
    with ExitStack() as stack:
        files = [stack.enter_context(version.parquet("training"))]
        files += [] if holdout is None else [stack.enter_context(_as_file(holdout))]
        with metrics.timed(case.name, "training_seconds", candidate=candidate):
            done = fit(
                pipeline, files, int(case.settings.training_memory_mb * 1e6), case.settings.seed
            )
        example = next(files[0].iter_batches(EXAMPLE_ROWS, columns=case.features.FEATURES))
    facts = version.manifest().metadata
    params: dict[str, Any] = {
        "candidate": candidate,
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


def _as_file(rows: pl.DataFrame) -> pq.ParquetFile:
    """Rows as a Parquet file in memory."""
    buffer = pa.BufferOutputStream()
    pq.write_table(to_arrow(rows), buffer)
    return pq.ParquetFile(pa.BufferReader(buffer.getvalue()))


def _plots(case: UseCase, verdict: Verdict) -> dict[str, "Figure"]:
    """Pictures of the judged model, on rows that it had not seen, beside its rival's."""
    assert verdict.challenger is not None
    judged_on = case.lake.version(verdict.challenger.evaluation)
    rows = evaluation.read_rows(case, judged_on)
    labels = rows["label"].to_numpy()
    challenger = gate.read_model(case, judged_on)
    if verdict.champion_evaluation:
        name, rival = (
            "champion",
            gate.read_model(case, case.lake.version(verdict.champion_evaluation)),
        )
    else:
        name, rival = "base rate", gate.base_rate(case, case.lake.version(verdict.snapshot))
    scores = {"challenger": challenger.scores, name: rival.scores}
    pipeline = registry.load_run(case, verdict.challenger.run_id)
    gains = plots.feature_contributions(
        pipeline, rows, labels, case.features.FEATURES, case.settings.seed
    )
    return {
        "calibration": plots.calibration(labels, scores),
        "roc": plots.roc(labels, scores),
        "slices": plots.slices(
            gate.slice_gains(case, challenger, rival), -case.settings.gate_max_slice_loss
        ),
        "contributions": plots.contributions(gains),
    }
