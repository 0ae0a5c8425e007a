"""Several models score a day; those that answer, and rightly, are combined.

Each member is scored apart from the others, so that nothing that befalls one reaches another: it
has its own plan, its own chunks and its own check. If too few are left, `fallback` takes over.
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
from include.messages import Answer, Chunk, ModelVersion, OutputCheck, RollCall, Scored
from include.metrics import Sample
from include.partitions import days_before
from include.registry import registry
from include.statistics.profile import profile_of
from include.statistics.profiles import keep
from include.usecase import Member, UseCase
from include.wording import counted

TABLE = "ensemble_predictions"
LEVELS = ["ensemble", "champion", "previous", "base rate"]
"""Where scores came from; the position is the fallback level that every row carries."""

UNVERSIONED = "unversioned"
"""Version of a remote model whose server does not say which it is."""

USUAL_DAYS = 7
"""Published days that say what a remote member's scores usually look like."""

log = logging.getLogger(__name__)


# --- the combination ------------------------------------------------------------------------------


def combine(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """The weighted average of members' scores (a linear opinion pool; Stone, 1961).

    Each member is calibrated, or the gate had not let it pass, and nothing more is learned here:
    every calibration of the average that was tried made later weeks worse (docs/ensemble.md).

    Args:
        scores: probabilities of shape (rows,), by member.
        weights: by member; those of members without scores are ignored.

    Returns:
        Probabilities, float32 of shape (rows,).

    Raises:
        ValueError: no member has a weight above 0, or one has a negative weight.
    """
    shares = normalized({name: weights[name] for name in scores})
    # By name: a sum of floats depends on its order.
    average = sum(shares[name] * scores[name].astype(np.float64) for name in sorted(scores))
    return np.clip(average, 0, 1).astype(np.float32)


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
    """Fix the version that a member scores with, and cut the day into chunks for it.

    Raises:
        BadData: there is no such version, or it does not fit the features.
        ServerDown: the server of a remote member is not ready.
    """
    if member.kind == "remote":
        with remote.connect(
            case, endpoint(member.connection), member.model, member.output
        ) as server:
            version = server.describe().version or UNVERSIONED
        # Chunks of this plan only: a server that has answered wrongly is asked again.
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
    except ModelMissing as error:  # it will not come back by itself
        raise BadData(f"{members[member.name]} is gone from the registry: {error}") from error


def score(case: UseCase, member: Member, chunk: Chunk) -> str:
    """Score a chunk with a member. Returns where the scores are.

    Raises:
        ServerDown: the server of a remote member is down, or was so for another chunk of the plan.
        BadData: it answers wrongly.
    """
    if member.kind == "registry":
        return scoring.score_chunk(case, chunk)
    given_up = scoring.scores_path(case, chunk).parent / "given_up.txt"
    if exists(given_up):
        raise ServerDown(f"Not asked, as it was given up for another chunk: {read_text(given_up)}")
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
    """Check what a member has given: as many scores as rows, and such as it usually gives.

    That each is a probability was checked when it was kept.

    Raises:
        BadData: they are too few, all the same, or far from what is usual. A member that answers
            wrongly is as good as down.
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
    mean = float(scores.mean()) if rows else None
    return Answer(features_reference, name, model.version, chunks, rows, mean, psi)


def _usual(case: UseCase, key: str, member: str, version: str) -> dict[str, list[float]] | None:
    """Distribution of a member's scores on earlier days; at first, of the champion's."""
    for table, column in ((TABLE, score_column(member)), ("predictions", "score")):
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
            with passing_over(f"The day {earlier}"):
                found.append(published.read("predictions", [column])[column])
            if len(found) == USUAL_DAYS:
                break
        if found:
            return scoring.score_reference(pl.concat(found).to_numpy())
    return None


def _wrong(key: str, member: Member, model: ModelVersion, what: str) -> BadData:
    return BadData(
        f"Member {member.name} ({model.name} version {model.version}) answers wrongly for {key}: "
        f"{what}. The ensemble goes on without it. Look at that model; clear `{member.name}.plan` "
        "and what follows it to have it asked again."
    )


def read_scores(case: UseCase, chunks: Iterable[Chunk]) -> np.ndarray:
    """The scores of chunks one after another: float32 of shape (rows,)."""
    parts = []
    for chunk in chunks:
        with scoring.open_scores(case, chunk) as file:
            parts.append(file.read(["score"]).column("score").to_numpy())
    return np.concatenate(parts)


def read_members(case: UseCase, answers: Mapping[str, Answer]) -> dict[str, np.ndarray]:
    """The scores of each member that answered: float32 of shape (rows,)."""
    return {name: read_scores(case, answer.chunks) for name, answer in answers.items()}


def score_column(member: str) -> str:
    """The column of the ensemble's predictions that holds one member's scores."""
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
    """Find out who has answered, and whether they are enough.

    Args:
        features_reference: the rows that had to be scored.
        champion: whose ensemble it is, if the registry said so.
        answers: of each member; None for who gave none.
        why: the reasons of those, where they have told one.
        may_return: members that, if they gave none, may well give one in another run.

    Raises:
        BadData: the settings ask for members that there are not.
    """
    demanded = set(filter(None, case.settings.ensemble_required.replace(" ", "").split(",")))
    _check_demands(case, demanded)
    silent = "its last try ended without a word (it was killed, or never started): see its tasks"
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
        lacking = f"required, and missing: {', '.join(missing)}"
    return RollCall(champion, given, absent, lacking, sorted(awaited))


def _check_demands(case: UseCase, demanded: set[str]) -> None:
    weighted = [member.name for member in case.members if member.weight > 0]
    unknown = sorted(demanded - {member.name for member in case.members})
    if unknown or case.settings.ensemble_quorum > len(weighted):
        raise BadData(
            f"ML_ENSEMBLE_QUORUM={case.settings.ensemble_quorum} and ML_ENSEMBLE_REQUIRED="
            f"{case.settings.ensemble_required!r} can never be met: the members that count are "
            f"{', '.join(weighted)}. Nothing was published. Fix the settings, then clear this run."
        )


def _disagreeing(case: UseCase, answers: Mapping[str, Answer]) -> dict[str, str]:
    """Members whose scores go against those of at least two others, and what to say of each.

    All look at the same rows, so that what is special of the day moves them alike. On 306 days of
    the data in `include/usecase` the least correlation of an honest member with the mean of the
    others was .26.
    """
    if len(answers) < 3:
        return {}
    scores = read_members(case, answers)
    total = sum(values.astype(np.float64) for values in scores.values())
    least, found = case.settings.ensemble_min_agreement, {}
    for name, values in scores.items():
        others = total - values
        if len(values) < scoring.LEAST_ROWS or not values.std() > 0 or not others.std() > 0:
            continue
        agreement = float(np.corrcoef(values, others)[0, 1])
        if agreement < least:
            found[name] = (
                f"it disagrees with the {len(scores) - 1} others: their correlation is "
                f"{agreement:.2f}, less than {least:g}"
            )
    return found


def no_features(why: str) -> BadData:
    """What to say where there is nothing to score."""
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
    average = combine(scores, weights)
    return Scored(write(case, features_reference, average, 0, contributors, given), 0, {})


def write(
    case: UseCase,
    features_reference: str,
    scores: np.ndarray,
    level: int,
    contributors: list[str],
    given: Mapping[str, np.ndarray],
) -> str:
    """Write scores with what they were made from: for each row, and for the run.

    Args:
        scores: of shape (rows,).
        level: position in `LEVELS`.
        contributors: whose scores these are, as `name:version`.
        given: scores of each member that answered, of shape (rows,).

    Returns:
        Reference to a version of the day's predictions that is not published yet.
    """
    source = case.lake.version(features_reference)
    version = case.lake.new_version(TABLE, source.key)
    nothing = np.full(len(scores), np.nan, np.float32)
    columns = {"score": scores}
    columns |= {
        score_column(member.name): given.get(member.name, nothing) for member in case.members
    }
    with source.parquet("features") as file:
        keys = [file.schema_arrow.field(name) for name in case.key]
        text = pa.dictionary(pa.int8(), pa.string())
        schema = pa.schema(
            [
                *keys,
                pa.field("score", pa.float32()),
                pa.field("fallback", pa.int8()),
                pa.field("members", text),
                *(pa.field(name, pa.float32()) for name in columns if name != "score"),
            ]
        )
        with version.write("predictions", schema) as writer:
            start = 0
            for batch in file.iter_batches(case.settings.batch_rows, columns=case.key):
                here = slice(start, start := start + batch.num_rows)
                values = [pa.array(column[here], from_pandas=True) for column in columns.values()]
                writer.write_batch(
                    pa.RecordBatch.from_arrays(
                        [
                            *(batch.column(name) for name in case.key),
                            values[0],
                            pa.array(np.full(batch.num_rows, level, np.int8)),
                            scoring.repeat(" ".join(contributors), batch.num_rows),
                            *values[1:],
                        ],
                        schema=schema,
                    )
                )
    keep(version, "predictions", profile_of(pl.DataFrame(columns)))
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
    """Publish a day's predictions with all that is known of how they came about.

    What an ensemble made of the same inputs before is not replaced by what stands in for it.

    Args:
        dag_run: that has made them.
        healing: whether they are made only because members have missed the day. What is published
            is then replaced by what more members have made, or nothing.

    Returns:
        What is told to those that wait for the day.

    Raises:
        Overtaken: what is published has newer inputs, or a better way from the same ones.
    """
    version = case.lake.version(scored.predictions)
    current = case.lake.readable_manifest(TABLE, version.key)
    made_from = case.lake.version(features_reference).manifest().made_from
    same_inputs = current is not None and current.made_from == made_from
    if current and same_inputs:
        before = LEVELS.index(current.metadata["fallback"]), len(current.metadata["absent"])
        if before[0] < scored.level or (healing and before <= (scored.level, len(roll.absent))):
            raise Overtaken(
                f"{version} is not published, as the {LEVELS[scored.level]} made it: "
                f"{current.version} stays, which the {LEVELS[before[0]]} made from the same inputs "
                f"without {len(current.metadata['absent'])} of the members."
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
