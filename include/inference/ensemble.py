"""Several models score a day; the plausible answers are combined.

Each member has its own plan, chunks and check, so a failure of one does not affect the others. If
too few members answer, `fallback` takes over.
"""

import logging
import math
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from include import metrics
from include.errors import BadData, ModelMissing, Overtaken, ServerDown
from include.inference import remote, scoring
from include.inference.patient_http import endpoint
from include.lake.files import exists, passing_over, put_text, read_text
from include.lake.tables import Manifest
from include.messages import Answer, Chunk, ModelVersion, OutputCheck, RollCall, Scored
from include.metrics import Sample
from include.partitions import days_before
from include.registry import registry
from include.statistics.profile import profile_of
from include.statistics.profiles import keep
from include.targets import columns
from include.usecase import Member, UseCase
from include.wording import counted

TABLE = "ensemble_predictions"
LEVELS = ["ensemble", "champion", "previous", "baseline"]
"""What made the scores; the position is the fallback level in each row."""

UNVERSIONED = "unversioned"
"""Version of a remote model if its server does not name one."""

USUAL_DAYS = 7
"""Number of published days that define a remote member's usual scores."""

log = logging.getLogger(__name__)


def level_of(published: Manifest) -> int:
    """What made a day's predictions: its position in `LEVELS`."""
    by = published.metadata["fallback"]
    return LEVELS.index(by) if by in LEVELS else len(LEVELS) - 1  # an older release's name


# --- the combination ------------------------------------------------------------------------------


def combine(
    case: UseCase, scores: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
    """The weighted average of members' predictions.

    Each member is calibrated, because the gate requires it, and the average learns nothing more:
    every calibration of it that was tried made later weeks worse (docs/ensemble.md).

    Args:
        scores: member → predictions.
        weights: member → weight; members without scores are ignored.

    Returns:
        Predictions, float32.

    Raises:
        ValueError: no member has a weight above 0, or one has a negative weight.
    """
    shares = normalized({name: weights[name] for name in scores})
    return case.target.combine(scores, shares)


def normalized(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights as shares of their sum.

    Raises:
        ValueError: their sum is not above 0, or one is negative.
    """
    total = math.fsum(weights.values())
    if not total > 0 or min(weights.values()) < 0:
        raise ValueError(f"weights must be 0 or more, and one of them more: {dict(weights)}")
    return {name: weight / total for name, weight in weights.items()}


# --- one member -----------------------------------------------------------------------------------


def plan(
    case: UseCase, features_reference: str, member: Member, champion: ModelVersion | None
) -> list[Chunk]:
    """Fix a member's version, and cut the day into chunks for it.

    Raises:
        BadData: there is no such version, or it does not match the features.
        ServerDown: the server of a remote member is not ready.
    """
    if member.kind == "remote":
        with remote.connect(
            case, endpoint(member.connection), member.model, member.output
        ) as server:
            version = server.describe().version or UNVERSIONED
        # Chunks of this plan only: another run asks a server again that answered wrongly.
        model = ModelVersion(member.name, version, run_id=secrets.token_hex(4))
        return scoring.cut_chunks(case, features_reference, model)
    assert champion is not None
    members = registry.members(case, champion)
    if member.name not in members:
        raise BadData(
            f"No {member.name} was trained with the champion, {champion}: it was refused by the "
            f"gate, or is newer than the champion. Its members are: {', '.join(members) or 'none'}."
            f" Run `{case.dag_id('model_retraining')}` to train one."
        )
    try:
        return scoring.plan_chunks(case, features_reference, members[member.name])
    except ModelMissing as error:  # it will not come back without a person
        raise BadData(f"{members[member.name]} is gone from the registry: {error}") from error


def score(case: UseCase, member: Member, chunk: Chunk) -> str:
    """Score a chunk with a member. Returns the path of the scores.

    Raises:
        ServerDown: the server of a remote member is down, or was for another chunk of the plan.
        BadData: it answers wrongly.
    """
    if member.kind == "registry":
        return scoring.score_chunk(case, chunk)
    given_up = scoring.scores_path(case, chunk).parent / "given_up.txt"
    if exists(given_up):
        raise ServerDown(
            f"Not asked, because another chunk has already failed: {read_text(given_up)}"
        )
    try:
        return _score_remotely(case, member, chunk)
    except ServerDown as error:
        if error.retry_after is None:
            put_text(given_up, str(error))
        raise


def _score_remotely(case: UseCase, member: Member, chunk: Chunk) -> str:
    with remote.connect(case, endpoint(member.connection), member.model, member.output) as server:
        version = "" if chunk.version == UNVERSIONED else chunk.version
        description = replace(server.describe(), version=version)
        in_order = False

        def predict(rows: pa.RecordBatch) -> np.ndarray:
            nonlocal in_order
            scores = server.predict(rows, description)
            if not in_order:
                server.check_order(rows, scores, description)
                in_order = True
            return scores

        return scoring.score_chunk(case, chunk, predict)


def check(case: UseCase, features_reference: str, member: Member, chunks: list[Chunk]) -> Answer:
    """Check a member's answer: one score per row, similar to its usual scores.

    `score` has already checked that each prediction is possible.

    Raises:
        BadData: there are too few scores, they are all the same, or far from the usual ones. A
            member that answers wrongly counts as down.
    """
    source = case.lake.version(features_reference)
    with source.parquet("features") as file:
        rows = file.metadata.num_rows
    scores = read_scores(case, chunks)
    first = chunks[0]
    model = ModelVersion(first.model, first.version, first.run_id)
    if len(scores) != rows:
        raise _wrong(source.key, member, model, f"{len(scores)} scores for {rows} rows")
    usual = registry.reference(case, model) if member.kind == "registry" else None
    usual = usual or _usual(case, source.key, member.name, model.version)
    psi, wrong = scoring.judge(case, scores, usual)
    if wrong:
        raise _wrong(source.key, member, model, wrong)
    name = model.name if member.kind == "registry" else member.model
    mean = scoring.mean_of(case, scores) if rows else None
    return Answer(features_reference, name, model.version, chunks, rows, mean, psi)


def _usual(case: UseCase, key: str, member: str, version: str) -> dict[str, Any] | None:
    """Distribution of a member's scores on earlier days; on the first days, of the champion's."""
    own = [score_column(member)]
    for table, wanted in ((TABLE, own), ("predictions", list(case.target.columns))):
        found = []
        for earlier in case.lake.published_keys(table):
            if earlier < days_before(key, 4 * USUAL_DAYS):
                break
            if earlier >= key:
                continue
            published = case.lake.current(table, earlier)
            manifest = published.manifest()
            facts = manifest.metadata
            if not manifest.parts["predictions"].rows:
                continue
            if table == TABLE and facts["answers"].get(member, {}).get("version") != version:
                continue
            if not scoring.are_current(case, manifest):
                continue  # from before the target was changed
            with passing_over(f"The day {earlier}"):
                rows = published.read("predictions", wanted)
                packed = pl.col(own[0]) if wanted == own else columns.pack(case.target)
                found.append(rows.select(packed).to_series())
            if len(found) == USUAL_DAYS:
                break
        if found:
            return scoring.score_reference(
                case, pl.concat([one.drop_nulls().alias("") for one in found]).to_numpy()
            )
    return None


def _wrong(key: str, member: Member, model: ModelVersion, what: str) -> BadData:
    return BadData(
        f"Member {member.name} ({model.name} version {model.version}) answers wrongly for {key}: "
        f"{what}. The ensemble goes on without it. Look at that model; to ask it again, clear "
        f"`{member.name}.plan` and its downstream tasks."
    )


def read_scores(case: UseCase, chunks: Iterable[Chunk]) -> np.ndarray:
    """The concatenated predictions of chunks, float32."""
    return np.concatenate([scoring.read_scores(case, chunk) for chunk in chunks])


def read_members(case: UseCase, answers: Mapping[str, Answer]) -> dict[str, np.ndarray]:
    """The predictions of each member that answered, float32."""
    return {name: read_scores(case, answer.chunks) for name, answer in answers.items()}


def score_column(member: str) -> str:
    """The column with a member's scores in the ensemble's predictions."""
    return f"score_{member}"


# --- all of them ----------------------------------------------------------------------------------


def call_roll(
    case: UseCase,
    features_reference: str,
    champion: ModelVersion | None,
    answers: Mapping[str, Answer | None],
    why: Mapping[str, str],
    may_return: Collection[str] = (),
) -> RollCall:
    """Find out which members answered, and whether they are enough.

    Args:
        features_reference: the rows to score.
        champion: the champion that the ensemble belongs to, if the registry answered.
        answers: member → answer; None without one.
        why: member → failure message, if its tasks left one.
        may_return: members that may answer in another run if they did not in this one.

    Raises:
        BadData: the settings require members that do not exist.
    """
    demanded = set(filter(None, case.settings.ensemble_required.replace(" ", "").split(",")))
    _check_demands(case, demanded)
    silent = "its last try ended without a message (it was killed, or never started): see its tasks"
    given = {name: answer for name, answer in answers.items() if answer is not None}
    absent = {name: why.get(name) or silent for name in answers if name not in given}
    awaited = absent.keys() & set(may_return)
    for name in [name for name, answer in given.items() if answer.features != features_reference]:
        absent[name] = f"its answer is about other rows: {given.pop(name).features}"
        awaited.add(name)
    for name, reason in _disagreeing(case, given).items():
        del given[name]
        absent[name] = reason
    required = demanded | {member.name for member in case.members if member.required}
    counting = [member for member in case.members if member.name in given and member.weight > 0]
    lacking = ""
    if len(counting) < case.settings.ensemble_quorum:
        lacking = (
            f"{counted(len(counting), 'member')} answered, {case.settings.ensemble_quorum} have to"
        )
    elif missing := sorted(required - given.keys()):
        lacking = f"required but missing: {', '.join(missing)}"
    return RollCall(champion, given, absent, lacking, sorted(awaited))


def _check_demands(case: UseCase, demanded: set[str]) -> None:
    weighted = [member.name for member in case.members if member.weight > 0]
    unknown = sorted(demanded - {member.name for member in case.members})
    if unknown or case.settings.ensemble_quorum > len(weighted):
        raise BadData(
            f"The settings ensemble_quorum={case.settings.ensemble_quorum} "
            f"({case.settings.where_set('ensemble_quorum')}) and ensemble_required="
            f"{case.settings.ensemble_required!r} ({case.settings.where_set('ensemble_required')}) "
            f"can never be met: the members that count are {', '.join(weighted)}. Nothing was "
            "published. Fix the settings, then clear this run."
        )


def _disagreeing(case: UseCase, answers: Mapping[str, Answer]) -> dict[str, str]:
    """Members whose scores contradict at least two others, each with the reason.

    All score the same rows, so a special day changes all of them in the same way. On 306 days of
    real data, the lowest correlation of a sound member with the mean of the others was
    .26.
    """
    if len(answers) < 3:
        return {}
    scores = read_members(case, answers)
    total = sum(values.astype(np.float64) for values in scores.values())
    least, found = case.settings.ensemble_min_agreement, {}
    for name, values in scores.items():
        if len(values) < scoring.LEAST_ROWS:
            continue
        agreement = columns.agreement(case.target, values, total - values)
        if agreement is not None and agreement < least:
            found[name] = (
                f"it disagrees with the {len(scores) - 1} others: their correlation is "
                f"{agreement:.2f}, less than {least:g}"
            )
    return found


def no_features(why: str) -> BadData:
    """The error if there is nothing to score."""
    return BadData(
        f"There are no features of this day, so no member was asked. {why or 'See preprocess.'} "
        "The day's last published predictions, if there are any, are untouched."
    )


def combine_day(case: UseCase, features_reference: str, roll: RollCall) -> Scored:
    """Combine the members that answered."""
    weights = {member.name: member.weight for member in case.members if member.weight > 0}
    given = read_members(case, roll.answers)
    scores = {name: given[name] for name in sorted(given.keys() & weights)}
    contributors = [f"{name}:{roll.answers[name].version}" for name in scores]
    average = combine(case, scores, weights)
    return Scored(write(case, features_reference, average, 0, contributors, given), 0, {})


def write(
    case: UseCase,
    features_reference: str,
    scores: np.ndarray,
    level: int,
    contributors: list[str],
    given: Mapping[str, np.ndarray],
) -> str:
    """Write scores with their provenance, for each row and for the run.

    Args:
        scores: predictions.
        level: position in `LEVELS`.
        contributors: the models that made the scores, as `name:version`.
        given: member that answered → its predictions.

    Returns:
        Reference to a version of the day's predictions that is not published yet.
    """
    source = case.lake.version(features_reference)
    version = case.lake.new_version(TABLE, source.key)
    members = {score_column(member.name): given.get(member.name) for member in case.members}
    kind = columns.packed_type(case.target)
    with source.parquet("features") as file:
        schema = pa.schema(
            [
                *(file.schema_arrow.field(name) for name in case.key),
                *columns.fields(case.target),
                pa.field("fallback", pa.int8()),
                pa.field("members", pa.dictionary(pa.int8(), pa.string())),
                *(pa.field(name, kind) for name in members),
            ]
        )
        with version.write("predictions", schema) as writer:
            start = 0
            for batch in file.iter_batches(case.settings.batch_rows, columns=case.key):
                rows = batch.num_rows
                here = slice(start, start := start + rows)
                theirs = [
                    pa.nulls(rows, kind) if own is None else columns.packed(case.target, own[here])
                    for own in members.values()
                ]
                writer.write_batch(
                    pa.RecordBatch.from_arrays(
                        [
                            *(batch.column(name) for name in case.key),
                            *columns.arrays(case.target, scores[here]),
                            pa.array(np.full(rows, level, np.int8)),
                            scoring.repeat(" ".join(contributors), rows),
                            *theirs,
                        ],
                        schema=schema,
                    )
                )
    answered = {name: own for name, own in members.items() if own is not None}
    keep(version, "predictions", profile_of(columns.profiled(case.target, scores, answered)))
    return str(version)


def publish(
    case: UseCase,
    scored: Scored,
    check: OutputCheck,
    features_reference: str,
    roll: RollCall,
    dag_run: str | None,
    healing: bool = False,
) -> dict[str, Any]:
    """Publish a day's predictions with their full provenance.

    A fallback never replaces what an ensemble made from the same inputs.

    Args:
        dag_run: the run that made them.
        healing: whether the run only scores a degraded day again. It then replaces the published
            predictions only if more members contributed.

    Returns:
        The content of the day's asset event.

    Raises:
        Overtaken: the published predictions have newer inputs, or are better ones from the same
            inputs.
    """
    version = case.lake.version(scored.predictions)
    current = case.lake.readable_manifest(TABLE, version.key)
    made_from = case.lake.version(features_reference).manifest().made_from
    same_inputs = current is not None and current.made_from == made_from
    if current and same_inputs:
        before = level_of(current), len(current.metadata["absent"])
        if before[0] < scored.level or (healing and before <= (scored.level, len(roll.absent))):
            raise Overtaken(
                f"{version}, made by the {LEVELS[scored.level]}, is not published: "
                f"{current.version} stays, which the {LEVELS[before[0]]} made from the same inputs "
                f"with {len(current.metadata['absent'])} of the members missing."
            )
    facts = {"fallback": LEVELS[scored.level], "failed": scored.failed, **_describe(case, roll)}
    lineage = {"features": features_reference, "dag_run": dag_run, **facts}
    scoring.publish(case, scored.predictions, check, lineage)
    metrics.count_one(case.name, "ensemble_runs_total", "fallback", LEVELS[scored.level], LEVELS)
    samples = [Sample("ensemble_fallback_level", scored.level, {})]
    for name in [member.name for member in case.members]:
        answered = float(name in roll.answers)
        samples.append(Sample("ensemble_member_available", answered, {"member": name}))
    metrics.send_of_day(case.lake, TABLE, version.key, samples)
    return {"version": scored.predictions, **asdict(check), **facts}


def _describe(case: UseCase, roll: RollCall) -> dict[str, Any]:
    weights = {member.name: member.weight for member in case.members if member.name in roll.answers}
    shares = {} if roll.lacking else normalized(weights)
    answers = {}
    for name, answer in roll.answers.items():
        facts = asdict(answer)
        del facts["chunks"], facts["features"]
        answers[name] = {**facts, "share": shares.get(name, 0.0)}
    return {
        "answers": answers,
        "absent": roll.absent,
        "awaited": roll.awaited,
        "lacking": roll.lacking,
    }
