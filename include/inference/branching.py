"""Which model scores which rows of a day: A/B tests, shadows, and models for rows of a kind.

A row takes one of these paths, and says which in its column `path`:

    without_<group>   it lacks a whole group of inputs; the model made for that scores it
    challenger        in an A/B test, a share of the other rows, by a hash of their key
    champion          all others, and whatever has no model for its own path

A shadow takes no row: the challenger's scores stand beside the champion's, and are never the
answer. Champion and others score in tasks of their own, so that nothing that befalls another model
keeps the day back: the champion has scored every row.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from include import metrics
from include.errors import BadData, MissingData, PipelineError, kind_of
from include.inference import scoring
from include.inference.scoring import PATH
from include.lake.tables import Version
from include.messages import CHALLENGER, CHAMPION, Branches, Chunk, ModelVersion, OutputCheck
from include.metrics import Sample
from include.registry import promotion, registry
from include.usecase import UseCase
from include.values import without_nan

SHADOW_SCORE = f"score_{CHALLENGER}"
"""Column of the predictions with the scores of a shadow."""

log = logging.getLogger(__name__)


def wanted(case: UseCase) -> list[str]:
    """The paths that the settings ask for, beside the champion's."""
    kinds = [group.path for group in case.features.GROUPS] if case.settings.group_models else []
    return [*kinds, *([CHALLENGER] if case.settings.experiment != "off" else [])]


# --- who scores -----------------------------------------------------------------------------------


def resolve(case: UseCase, champion: ModelVersion) -> Branches:
    """Fix the versions that score beside the champion. Who cannot is left out, with the reason.

    Raises:
        DependencyDown: the registry does not answer.
    """
    models, absent = {}, {}
    for path in wanted(case):
        try:
            model = (
                _challenger(case, champion)
                if path == CHALLENGER
                else _made_for(case, path, champion)
            )
            scoring.check_model(
                case, model, [*case.key, *case.features.FEATURES], "the features of this code"
            )
        except (BadData, MissingData) as error:  # no other try of this run would help
            log.warning("No row takes the path %s: %s", path, error)
            absent[path] = str(error)
        else:
            models[path] = model
    return Branches(case.settings.experiment, case.settings.ab_share, models, absent)


def _challenger(case: UseCase, champion: ModelVersion) -> ModelVersion:
    model = registry.find_challenger(case)
    retraining = case.dag_id("model_retraining")
    advice = f"Give a version the alias {CHALLENGER!r}, as `{retraining}` does."
    if model is None:
        raise MissingData(f"No version has the alias {CHALLENGER!r}. {advice}")
    if model == champion:
        raise MissingData(f"{model} has become champion, and nothing challenges it. {advice}")
    if case.settings.experiment == "ab" and promotion.was_rolled_back(case, model):
        raise BadData(f"{model} was rolled back: its scores are not published again. {advice}")
    return model


def _made_for(case: UseCase, path: str, champion: ModelVersion) -> ModelVersion:
    members = registry.members(case, champion)
    if path not in members:
        raise MissingData(
            f"No model {path} was trained with the champion, {champion}, or the gate has refused "
            f"it. With ML_GROUP_MODELS=true, `{case.dag_id('model_retraining')}` trains one."
        )
    return members[path]


# --- which rows -----------------------------------------------------------------------------------


def draw(case: UseCase, rows: pl.DataFrame, salt: str) -> np.ndarray:
    """A number from 0 to below 1 for each row, by its key and the salt alone: never by its place.

    BLAKE2 is the same on every machine and in every version of every library; Polars' own hash and
    Python's are not.

    Args:
        rows: with the columns of the key.
        salt: with another one all numbers are others.

    Returns:
        float64 of shape (rows,).
    """
    key = [pl.lit(salt), *(pl.col(name).cast(pl.String) for name in case.key)]
    texts = rows.select(pl.concat_str(key, separator="\x1f")).to_series()
    hashed = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    # 53 bits are exact as a float, and so is the number below 1.
    return (np.frombuffer(hashed, ">u8") >> 11) / 2.0**53


def paths(case: UseCase, rows: pl.DataFrame, branches: Branches) -> pl.Series:
    """The path of each row, whoever has failed.

    Args:
        rows: the key, and the features of all groups.
    """
    path = pl.lit(CHAMPION)
    if branches.mode == "ab" and CHALLENGER in branches.models:
        is_drawn = pl.Series(draw(case, rows, branches.salt) < branches.share, dtype=pl.Boolean)
        path = pl.when(is_drawn).then(pl.lit(CHALLENGER)).otherwise(path)
    for group in reversed(case.features.GROUPS):
        if group.path in branches.models:
            lacks_all = pl.all_horizontal(pl.col(list(group.features)).is_null())
            path = pl.when(lacks_all).then(pl.lit(group.path)).otherwise(path)
    return without_nan(rows).with_columns(path.alias(PATH))[PATH]


def plan(case: UseCase, chunks: Sequence[Chunk], branches: Branches) -> dict[str, list[Chunk]]:
    """The champion's chunks in which others have rows, for each of these, by path."""
    found: dict[str, list[Chunk]] = {path: [] for path in branches.models}
    for chunk in chunks:
        taken = set(_paths_of(case, chunk, branches))
        for path, model in branches.models.items():
            if path in taken or branches.is_shadow(path):
                found[path].append(_as_scored_by(chunk, path, model))
    return found


def _paths_of(case: UseCase, chunk: Chunk, branches: Branches) -> pl.Series:
    groups = (name for group in case.features.GROUPS for name in group.features)
    columns = list(dict.fromkeys([*case.key, *groups]))
    with case.lake.version(chunk.features).parquet("features") as file:
        found = file.read_row_groups([*range(chunk.first_group, chunk.last_group + 1)], columns)
    return paths(case, pl.DataFrame(pl.from_arrow(found)), branches)


def _as_scored_by(chunk: Chunk, path: str, model: ModelVersion) -> Chunk:
    return replace(
        chunk,
        model=model.name,
        version=model.version,
        run_id=model.run_id,
        label=f"{path}, {chunk.label}",
    )


def gather(case: UseCase, chunks: Sequence[Chunk], branches: Branches | None, why: str) -> Branches:
    """Find out whose scores are there, and as they should be.

    Args:
        chunks: the champion's.
        branches: as they were resolved; None if they were not.
        why: what the tasks of the others have told that failed.

    Raises:
        DependencyDown: the lake or the registry does not answer.
    """
    if branches is None:
        silent = "`others.resolve` ended without a word (killed, or out of time): see Airflow"
        nobody = dict.fromkeys(wanted(case), why or silent)
        return Branches(case.settings.experiment, case.settings.ab_share, {}, nobody)
    try:
        planned = plan(case, chunks, branches)
    except Exception as error:
        said = _said(error, why)
        log.warning("The champion scores every row: %s", said)
        absent = branches.absent | dict.fromkeys(branches.models, said)
        return replace(branches, models={}, absent=absent)
    absent = dict(branches.absent)
    for path, theirs in planned.items():
        try:
            scores = [_scores_of(case, chunk) for chunk in theirs]
            if not branches.is_shadow(path):
                _check(
                    case, branches.models[path], np.concatenate([np.empty(0, np.float32), *scores])
                )
        except Exception as error:
            absent[path] = _said(error, why)
    for path in absent.keys() - branches.absent.keys():
        log.warning("The champion scores the rows of %s: %s", path, absent[path])
    return replace(branches, absent=absent)


def _said(error: Exception, why: str) -> str:
    """What an error means for a path, or `why`, which a task has told before."""
    if kind_of(error) == "dependency down":  # nor would the champion's be there
        raise error
    said = str(error) if isinstance(error, PipelineError) else repr(error)
    return said if isinstance(error, BadData) else why or said


def _check(case: UseCase, model: ModelVersion, scores: np.ndarray) -> None:
    """Make sure that scores, which are to be published, can be right.

    Raises:
        BadData: they are all the same, or far from those of the model's holdout.
        MissingData: it is not known what these were.
    """
    if len(scores) < scoring.LEAST_ROWS:
        return
    _, wrong = scoring.judge(case, scores, registry.reference(case, model))
    if wrong:
        raise BadData(f"{model} answers wrongly: {wrong}.")


# --- together -------------------------------------------------------------------------------------


def assemble(
    case: UseCase, features_reference: str, chunks: Sequence[Chunk], branches: Branches | None
) -> str:
    """Give each row the score of its path's model, or the champion's where that has none.

    Args:
        chunks: the champion's.
        branches: as they were gathered; None where there is the champion only.

    Returns:
        Reference to a version of the predictions that is not published yet. With branches they
        have a column `path`, and a shadow's scores in `score_challenger`.
    """
    if branches is None:
        return scoring.assemble(case, features_reference, list(chunks))
    with case.lake.version(features_reference).parquet("features") as file:
        schema, rows = scoring.scores_schema(case, file.schema_arrow), file.metadata.num_rows
    schema = schema.append(pa.field(PATH, schema.field("model").type))
    if branches.mode == "shadow" and CHALLENGER in branches.answered:
        schema = schema.append(pa.field(SHADOW_SCORE, pa.float32()))
    batches = (batch for chunk in chunks for batch in _put_together(case, chunk, branches, schema))
    return scoring.write_predictions(case, features_reference, schema, rows, batches)


def _put_together(
    case: UseCase, chunk: Chunk, branches: Branches, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    with scoring.open_scores(case, chunk) as file:
        rows = file.read()
    answered = branches.answered
    names = [CHAMPION, *answered]
    taken = _paths_of(case, chunk, branches).to_numpy()
    codes = np.select([taken == name for name in names], range(len(names)), 0).astype(np.int8)
    scores = rows.column("score").to_numpy().copy()
    for code, (path, model) in enumerate(answered.items(), start=1):
        if (here := codes == code).any():
            scores[here] = _scores_of(case, _as_scored_by(chunk, path, model))[here]
    whose = [ModelVersion(chunk.model, chunk.version, chunk.run_id), *answered.values()]
    columns = {
        **{name: rows.column(name) for name in case.key},
        "score": pa.array(scores),
        "model": _texts([model.name for model in whose], codes),
        "model_version": _texts([model.version for model in whose], codes),
        PATH: _texts(names, codes),
    }
    if SHADOW_SCORE in schema.names:
        shadow = _as_scored_by(chunk, CHALLENGER, answered[CHALLENGER])
        columns[SHADOW_SCORE] = pa.array(_scores_of(case, shadow))
    table = pa.table(columns).cast(schema).combine_chunks()
    yield from table.to_batches(case.settings.batch_rows)


def _scores_of(case: UseCase, chunk: Chunk) -> np.ndarray:
    with scoring.open_scores(case, chunk) as file:
        scores: np.ndarray = file.read(["score"]).column("score").to_numpy()
    return scores


def _texts(values: list[str], codes: np.ndarray) -> pa.DictionaryArray:
    """A column of few texts, a byte a row."""
    distinct, places = np.unique(values, return_inverse=True)
    return pa.DictionaryArray.from_arrays(
        places[codes].astype(np.int8), pa.array(distinct.tolist(), pa.string())
    )


def publish(
    case: UseCase,
    predictions_reference: str,
    check: OutputCheck,
    lineage: dict[str, Any],
    branches: Branches | None,
) -> int:
    """Publish a day's predictions; with branches, say which rows took which path and who is absent.

    Returns:
        Published rows.
    """
    if branches is None:
        return scoring.publish(case, predictions_reference, check, lineage)
    counts = count(case.lake.version(predictions_reference), branches)
    facts = {**asdict(branches), "salt": branches.salt, "rows": counts}
    rows = scoring.publish(case, predictions_reference, check, {**lineage, "branches": facts})
    samples = [Sample("path_rows_total", number, {"path": path}) for path, number in counts.items()]
    metrics.send_all(case.name, samples)
    return rows


def count(predictions: Version, branches: Branches) -> dict[str, int]:
    """How many rows have taken each path that there could have been."""
    taken = predictions.read("predictions", [PATH])[PATH].cast(pl.String).value_counts()
    there = dict(taken.iter_rows())
    could = [CHAMPION, *branches.models, *branches.absent]
    return {path: there.get(path, 0) for path in dict.fromkeys(could)}
